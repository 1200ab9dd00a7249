"""What the processes of a training tell each other through a folder, on disk and in object storage."""

import json
import uuid

import pytest

from dlassets.errors import DlassetsError, ProcessFailedError
from dlassets.learning.training.exchange import Exchange
from dlassets.learning.training.job import Event
from dlassets_tests.errors import ERRORS, raising
from dlassets_tests.learning.training.trainings import job, trained

EVENTS = [Event("step", number, 3, {"train_loss": 1 / number}) for number in (1, 2, 3)]


@pytest.fixture(params=["disk", "s3"])
def folder(request, tmp_path, monkeypatch) -> str:
    if request.param == "disk":
        return str(tmp_path / "lake" / "exchange")
    server = request.getfixturevalue("s3")
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    bucket = f"training-{uuid.uuid4().hex[:8]}"
    server.create(bucket)
    return f"s3://{bucket}/checkpoints/exchange"


def test_both_sides_see_what_the_other_writes(folder, tmp_path) -> None:
    ours, theirs = Exchange(folder), Exchange(folder)
    ours.open(job(tmp_path))

    assert theirs.job() == job(tmp_path)
    assert (theirs.begin(), theirs.begin(), ours.starts) == (1, 2, 2)
    with theirs.reporting() as report:
        for event in EVENTS:
            report(event)
    assert list(ours.events()) == EVENTS
    assert list(ours.events()) == []
    assert ours.trained() is None
    theirs.finish(trained("well"))
    assert ours.trained().remarks == ("well",)
    assert theirs.is_wanted
    ours.stop()
    ours.stop()
    assert not theirs.is_wanted
    ours.delete()  # type: ignore[unreachable]  # what is wanted has changed
    assert not theirs.is_wanted


def test_events_of_a_process_that_was_started_again_follow_the_first_one_s(tmp_path) -> None:
    exchange = Exchange(str(tmp_path))
    exchange.open(job(tmp_path))
    for event in EVENTS:
        with Exchange(str(tmp_path)).reporting() as report:
            report(event)

    assert list(exchange.events()) == EVENTS


def test_events_that_cannot_be_written_are_left_out_and_end_no_training(tmp_path, caplog) -> None:
    exchange = Exchange(str(tmp_path))
    exchange.open(job(tmp_path))
    (tmp_path / "events").rename(tmp_path / "gone")

    with exchange.reporting() as report:
        report(EVENTS[0])
    (tmp_path / "gone").rename(tmp_path / "events")
    with exchange.reporting() as report:
        report(EVENTS[1])

    assert list(exchange.events()) == [EVENTS[1]]
    assert "could not be written" in caplog.text


def test_a_process_that_does_not_see_the_folder_says_what_to_do(tmp_path) -> None:
    with pytest.raises(DlassetsError, match=r"finds no job\.json in .*elsewhere.*DLASSETS_ROOT"):
        Exchange(str(tmp_path / "elsewhere")).job()


def test_an_error_is_raised_as_what_it_was_told_as(tmp_path) -> None:
    exchange = Exchange(str(tmp_path))
    exchange.raise_failure()
    assert not exchange.has_failed

    exchange.fail(ERRORS[1])

    assert exchange.has_failed
    with raising(ERRORS[1]):  # type: ignore[unreachable]  # it has failed by now
        exchange.raise_failure()


@pytest.mark.parametrize(
    "kind",
    ["builtins.KeyError", "os.abort", "dlassets.engines.base.Engine", "dlassets.errors.annotations", "dlassets..x"],
)
def test_no_other_kind_of_error_is_made_of_what_a_folder_says(tmp_path, kind) -> None:
    (tmp_path / "failure.json").write_text(json.dumps({"kind": kind, "message": "no error of ours"}))

    with raising(ProcessFailedError("no error of ours")):
        Exchange(str(tmp_path)).raise_failure()
