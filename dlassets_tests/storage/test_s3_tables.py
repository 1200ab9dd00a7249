"""Tables in a bucket: of two writers one is refused, and dagster-deltalake finds them with nothing in its settings."""

import datetime as dt

import pytest

from dlassets.engines.base import Commit, Engine, Transaction
from dlassets.errors import ConflictError
from dlassets.lakehouse.snapshots import pin
from dlassets.lakehouse.tables import DELETED_FILES
from dlassets.resources.session import DagsterSession
from dlassets.settings import Settings
from dlassets.storage.lake import Lake
from dlassets_tests.intake.test_ingest import rows
from dlassets_tests.storage.server import Faults

WHEN = dt.datetime(2026, 1, 2, tzinfo=dt.UTC)
NOTED = {"path": "photos/a.jpg", "landing": "photos", "deleted_at": WHEN, "returned_at": None}


def test_dagster_reads_the_version_that_was_written(local_engine, bucket) -> None:
    session = DagsterSession(Settings(root=f"s3://{bucket}/lake"))
    empty = session.pin(DELETED_FILES)

    append(local_engine, session.lake, number=0)

    assert (empty.version, session.pin(DELETED_FILES).version) == (0, 1)


def test_of_two_writers_that_planned_the_same_batch_one_is_refused(local_engine, bucket) -> None:
    import threading

    lake = Lake.at(f"s3a://{bucket}/lake")
    pin(lake, "deleted_files")
    outcomes: list[str] = []
    ready = threading.Barrier(2)

    def write() -> None:
        ready.wait()
        try:
            append(local_engine, lake, number=0)
            outcomes.append("written")
        except ConflictError:
            outcomes.append("refused")

    writers = [threading.Thread(target=write) for _ in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()

    assert sorted(outcomes) == ["refused", "written"]
    assert rows(local_engine, lake, "deleted_files", "path") == [("photos/a.jpg",)]


@pytest.mark.slow
def test_a_write_whose_answer_got_lost_is_done_once(local_engine, s3, bucket) -> None:
    import pyarrow as pa

    lake = Lake.at(f"s3://{bucket}/lake")
    pin(lake, "deleted_files")
    uri = lake.table("deleted_files")

    def note(*paths: str):
        noted = [{**NOTED, "path": path} for path in paths]
        return local_engine.rows(pa.Table.from_pylist(noted, schema=DELETED_FILES.schema))

    with s3.faults(Faults(lost_every=1)):  # of each try: delta-rs commits again and again, until it gives up
        appended = local_engine.append(note("a", "b"), DELETED_FILES, uri, Commit({}, Transaction("test", 1)))
        merged = local_engine.merge(note("b", "c"), DELETED_FILES, uri, Commit())
        replaced = local_engine.replace(note("a"), DELETED_FILES, uri, Commit(), {"path": ["a"]})

    assert rows(local_engine, lake, "deleted_files", "path") == [("a",), ("b",), ("c",)]
    assert (appended.inserted, merged.inserted, merged.updated, replaced.inserted) == (2, 1, 1, 1)
    with pytest.raises(ConflictError):
        append(local_engine, lake, number=1)


def append(engine: Engine, lake: Lake, number: int) -> None:
    import pyarrow as pa

    noted = engine.rows(pa.Table.from_pylist([NOTED], schema=DELETED_FILES.schema))
    engine.append(noted, DELETED_FILES, lake.table("deleted_files"), Commit({}, Transaction("test", number)))


@pytest.mark.spark
@pytest.mark.slow
def test_spark_and_the_embedded_engine_go_on_where_the_other_was(local_engine, spark_engine, bucket) -> None:
    lake = Lake.at(f"s3://{bucket}/a lake")
    pin(lake, "deleted_files")

    append(local_engine, lake, number=0)
    append(spark_engine, lake, number=1)
    append(local_engine, lake, number=2)
    kept = spark_engine.maintain(DELETED_FILES, lake.table("deleted_files"), z_order=["path"])

    assert (kept.files_before, kept.files_after) == (3, 1)
    assert rows(local_engine, lake, "deleted_files", "path") == [("photos/a.jpg",)] * 3
