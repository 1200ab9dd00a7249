"""The lease of the one Spark driver that writes a lake on S3 without a condition: taken, kept, given back, run out."""

import json
import time

import pytest

from dlassets.engines.only_writer import OnlyWriter
from dlassets.errors import PassingError

SHORT = 1.0


def held(s3, bucket: str) -> str:
    return json.loads(s3.client.get_object(Bucket=bucket, Key="lake/spark-writer.json")["Body"].read())["owner"]


def wait_until_taken(writer: OnlyWriter) -> float:
    """Try until the lease is had, and return after how many seconds that was."""
    began = time.monotonic()
    while True:
        try:
            writer.check()
        except PassingError:
            assert time.monotonic() < began + 60
            time.sleep(0.1)
        else:
            return time.monotonic() - began


def test_of_two_drivers_the_second_is_refused_until_the_first_has_ended(s3, bucket) -> None:
    root = f"s3a://{bucket}/lake"
    first, second = OnlyWriter(root, "app-1 at one:1"), OnlyWriter(root, "app-2 at two:2")
    first.check()
    first.check()

    with pytest.raises(PassingError, match=rf"Another Spark driver writes {root}: app-1 at one:1\. .*only_writer"):
        second.check()
    assert held(s3, bucket) == "app-1 at one:1"

    first.give_back()
    second.check()
    assert held(s3, bucket) == "app-2 at two:2"
    second.give_back()
    assert s3.client.list_objects_v2(Bucket=bucket)["KeyCount"] == 0


def test_clients_of_one_connect_server_are_one_driver(bucket) -> None:
    root = f"s3://{bucket}/lake"
    one, other = (OnlyWriter(root, "local-1 at one:1", is_shared=True) for _ in range(2))

    for writer in (one, other, one):
        writer.check()


@pytest.mark.usefixtures("bucket")
def test_where_the_store_says_nothing_the_commit_is_not_made() -> None:
    with pytest.raises(PassingError, match=r"Nothing says who writes s3://no-such-bucket/lake.*create no-such-bucket"):
        OnlyWriter("s3://no-such-bucket/lake", "one").check()


@pytest.mark.slow
def test_a_lease_is_renewed_while_its_driver_lives_and_runs_out_when_it_does_not(s3, bucket) -> None:
    root = f"s3://{bucket}/lake"
    first, second = OnlyWriter(root, "one", seconds=SHORT), OnlyWriter(root, "two", seconds=SHORT)
    first.check()
    until = time.monotonic() + 3 * SHORT + 2
    while time.monotonic() < until:  # longer than a lease that nobody renews
        with pytest.raises(PassingError):
            second.check()
        time.sleep(0.1)

    first._ended.set()  # as a kill ends its thread: nothing is given back
    assert wait_until_taken(second) > 0
    assert held(s3, bucket) == "two"
    first._until = 0
    with pytest.raises(PassingError, match=r"writes .*: two"):  # its lease was taken meanwhile
        first.check()
    second.give_back()


def test_a_lease_whose_answer_got_lost_is_still_its_owners(s3, bucket) -> None:
    writer = OnlyWriter(f"s3://{bucket}/lake", "one")
    writer.check()
    writer._tag, writer._until = '"another"', 0

    writer.check()

    assert held(s3, bucket) == "one"
    writer.give_back()
