"""`dlassets stream` in Dagster: what it makes is shown without a run, and its silence is noticed."""

import datetime as dt
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest

from dlassets.defs import streaming
from dlassets.defs.streaming import IS_UP, PHOTO_STREAM, StreamReporter
from dlassets.pipeline import steps
from dlassets.pipeline.session import Session
from dlassets.pipeline.stream import Batch
from dlassets_tests.pipelines import Pipelines, values


@pytest.fixture
def batch(empty: Pipelines, photos: Path) -> Batch:
    """A photo and a file that is none, taken in and profiled."""
    folder = empty.zone("unlabeled")
    (folder / "a.jpg").write_bytes(next(photos.glob("*/*.jpg")).read_bytes())
    (folder / "b.jpg").write_text("no photo")
    session = Session(empty.settings)
    return Batch("unlabeled", [steps.ingested_files.run(session), steps.image_profiles.run(session)], 0.1, 0.05)


def reported(pipelines: Pipelines, name: str) -> dg.AssetMaterialization | None:
    event = pipelines.instance.get_latest_materialization_event(dg.AssetKey(name))
    return event.asset_materialization if event else None


def test_a_batch_shows_at_the_tables_it_wrote_with_counts_and_without_a_run(empty, batch) -> None:
    with StreamReporter(empty.instance, Session(empty.settings), print) as reporter:
        reporter.report(batch)

        shown = {name: reported(empty, name) for name in ("raw_images", "quarantined_files", "image_profiles")}

    assert all(shown.values())
    assert {name: values(made)["rows_inserted"] for name, made in shown.items() if made} == dict.fromkeys(shown, 1)
    raw = shown["raw_images"]
    assert raw is not None
    assert (values(raw)["dagster/row_count"], raw.tags["dagster/data_version"]) == (1, "1")
    assert values(raw)["provenance"]["asset"] == "raw_images"
    assert reported(empty, "deleted_files") is None
    assert empty.instance.get_runs() == []


def test_what_cannot_be_reported_is_logged_once_and_reported_with_the_next_batch(empty, batch, monkeypatch) -> None:
    messages: list[str] = []
    reporter = StreamReporter(empty.instance, Session(empty.settings), messages.append)
    with monkeypatch.context() as patched:
        patched.setattr(empty.instance, "report_runless_asset_event", full_disk)
        reporter.report(batch)
        reporter.report(batch)
    assert messages == ["Dagster could not be told of the stream, which goes on: No space left."]
    assert reported(empty, "raw_images") is None

    reporter.report(batch)

    made = reported(empty, "raw_images")
    assert made is not None
    assert values(made)["batches"] == 3


def full_disk(_: object) -> None:
    raise OSError("No space left.")


def outcome(ticked: Any) -> tuple[bool, str]:
    (check,) = ticked.asset_events
    assert (check.asset_key, check.check_name) == (PHOTO_STREAM.key, IS_UP)
    return check.passed, check.description


def test_a_stream_never_heard_of_silent_or_stopped_is_noticed_once_and_when_it_is_back(empty, monkeypatch) -> None:
    never = empty.tick("stream_silence")
    assert outcome(never) == (False, "Nothing was ever heard of the stream: start `dlassets stream`.")
    with StreamReporter(empty.instance, Session(empty.settings), print):
        up = empty.tick("stream_silence", never.cursor)
        assert outcome(up)[0] is True
        assert not empty.tick("stream_silence", up.cursor).asset_events
        later = dt.datetime.now(dt.UTC) + dt.timedelta(minutes=10)
        with monkeypatch.context() as patched:
            clock = SimpleNamespace(now=lambda _: later, fromtimestamp=dt.datetime.fromtimestamp)
            patched.setattr(streaming, "dt", SimpleNamespace(datetime=clock, UTC=dt.UTC))
            silent = empty.tick("stream_silence", up.cursor)
        passed, message = outcome(silent)
        assert not passed
        assert "Nothing was heard of the stream (process" in message
        assert outcome(empty.tick("stream_silence", silent.cursor))[0] is True
    stopped = empty.tick("stream_silence", up.cursor)
    assert outcome(stopped)[0] is False
    assert "was stopped at" in outcome(stopped)[1]
