"""What a step is handed, and what follows from its declaration."""

import datetime as dt
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dlassets.engines.base import Commit, Written
from dlassets.engines.local import LocalEngine
from dlassets.engines.schema import Table
from dlassets.lakehouse.snapshots import pin, provenance_of
from dlassets.lakehouse.tables import (
    CLASSES,
    DELETED_FILES,
    IMAGE_FEATURES,
    LABELED_IMAGES,
    PREDICTIONS,
    RAW_IMAGES,
    TABLES,
)
from dlassets.pipeline import steps
from dlassets.pipeline.report import Report
from dlassets.pipeline.session import Session
from dlassets.pipeline.step import Made, Reads, UndeclaredReadError, step
from dlassets.registry.models import VALIDATED_VERSION, ModelVersion
from dlassets.settings import Settings
from dlassets.storage.lake import Lake
from dlassets_tests.programs import python
from dlassets_tests.tables import arrow, get, image_id, put

PHOTO = {"path": "unlabeled/a.jpg", "image_id": image_id("a"), "length": 1}


def handed(session: Session, *reads: Table) -> Reads:
    @step(PREDICTIONS, reads=reads)
    def anything(session: Session, read: Reads, report: Report) -> Made:
        raise NotImplementedError

    return anything.hand_out(session)


@pytest.mark.parametrize(
    "look",
    [
        lambda read: read[LABELED_IMAGES],
        lambda read: read.named(RAW_IMAGES, LABELED_IMAGES),
        lambda read: read.own(LABELED_IMAGES),
        lambda read: read.champion,
        lambda read: read.declared(VALIDATED_VERSION),
    ],
)
def test_reading_what_is_not_declared_raises(settings: Settings, look: Any) -> None:
    with pytest.raises(UndeclaredReadError, match="does not"):
        look(handed(Session(settings), RAW_IMAGES))


def test_a_step_is_handed_the_version_there_was_when_it_began(settings: Settings, lake: Lake) -> None:
    read = handed(Session(settings), RAW_IMAGES)
    put(lake, "raw_images", PHOTO)

    assert read[RAW_IMAGES].version == 0
    assert handed(Session(settings), RAW_IMAGES)[RAW_IMAGES].version == 1


def test_a_step_that_lost_to_another_run_is_done_again_on_what_that_left(settings: Settings, lake: Lake) -> None:
    seen: list[int] = []

    def taken_over(batch: Any) -> Any:
        if len(seen) == 1:  # between what this run planned and its commit
            put(lake, "raw_images", PHOTO)
            commit_note("theirs")
        return batch

    def commit_note(landing: str, kernel: Any = lambda batch: batch) -> Written:
        note = {"path": "unlabeled/a.jpg", "landing": landing, "deleted_at": dt.datetime(2026, 1, 2, tzinfo=dt.UTC)}
        rows = LocalEngine().rows(arrow("deleted_files", note)).map(kernel, DELETED_FILES.columns)
        return LocalEngine().merge(rows, DELETED_FILES, pin(lake, "deleted_files").uri, Commit())

    @step(DELETED_FILES, reads=[RAW_IMAGES])
    def noting(session: Session, read: Reads, report: Report) -> Made:
        seen.append(read[RAW_IMAGES].version)
        return Made(read.provenance(), {DELETED_FILES.name: commit_note("ours", taken_over)})

    read, made = noting.done(Session(settings))

    assert seen == [0, 1]
    assert read[RAW_IMAGES].version == made.provenance.inputs["raw_images"] == 1
    assert (made.written["deleted_files"].updated, made.written["deleted_files"].inserted) == (1, 0)
    assert [row["landing"] for row in get(LocalEngine(), lake, "deleted_files", "landing")] == ["ours"]


def test_what_was_looked_at_is_recorded_and_nothing_else(settings: Settings, lake: Lake) -> None:
    put(lake, "raw_images", PHOTO)
    read = handed(Session(settings, run_id="run"), RAW_IMAGES, LABELED_IMAGES)
    assert read[RAW_IMAGES].version == 1

    recorded = read.provenance(ModelVersion("model", 1, "digest"), share=0.5).as_dict()

    assert recorded.pop("code_version")
    assert recorded == {
        "asset": "predictions",
        "inputs": {"raw_images": 1},
        "run_id": "run",
        "model": "model/1",
        "package": "digest",
        "parameters": {"share": 0.5},
    }


def test_the_state_moves_with_each_table_that_is_declared(settings: Settings, lake: Lake) -> None:
    before = handed(Session(settings), RAW_IMAGES, DELETED_FILES).state
    put(lake, "labeled_images", {**PHOTO, "label": 1})
    assert handed(Session(settings), RAW_IMAGES, DELETED_FILES).state == before
    put(lake, "deleted_files", {"path": "unlabeled/a.jpg"})
    assert handed(Session(settings), RAW_IMAGES, DELETED_FILES).state != before


def test_a_session_reads_given_snapshots_and_the_tables_of_another_lake(settings: Settings, lake: Lake) -> None:
    put(lake, "raw_images", PHOTO)
    old = replace(pin(lake, "raw_images"), version=0)
    bench = settings.model_copy(update={"root": lake.under("bench")})

    beside = Session(bench, source=Session(settings, at={"raw_images": old}), own={"image_features"})

    assert beside.pin(RAW_IMAGES) == old
    assert beside.pin(DELETED_FILES).uri == lake.table("deleted_files")
    assert beside.pin(IMAGE_FEATURES).uri == Lake.at(bench.root).table("image_features")
    assert beside.lake_of(RAW_IMAGES) == lake
    read = steps.image_features.hand_out(beside)
    assert read[RAW_IMAGES].version == 0
    assert read.provenance().elsewhere == {"raw_images": lake.table("raw_images")}


def test_every_table_has_one_step_that_makes_it() -> None:
    made = [each.name for one in steps.STEPS for each in one.makes if isinstance(each, Table)]

    assert sorted(made) == sorted(TABLES)


def test_labels_that_people_gave_are_read_as_the_last_round_left_them_and_recorded(settings: Settings) -> None:
    session = Session(settings)

    made = steps.human_labels.run(session)

    assert steps.human_labels.reads == (RAW_IMAGES, CLASSES)
    assert made.provenance.inputs == {"label_requests": 0, "raw_images": 0, "classes": 0}
    assert not made.changed


def test_a_step_s_commit_records_what_it_read(settings: Settings, lake: Lake) -> None:
    folder = {**PHOTO, "path": "labeled/001.cat/a.jpg", "landing": "labeled", "folder": "001.cat"}
    put(lake, "raw_images", folder)

    steps.classes.run(Session(settings))
    steps.labeled_images.run(Session(settings))

    recorded = provenance_of(pin(lake, "labeled_images"))
    assert recorded["asset"] == "labeled_images"
    read = {
        "raw_images": 1,
        "deleted_files": 0,
        "listed_labels": 0,
        "classes": 1,
        "human_labels": 0,
        "label_requests": 0,
        "consensus": 0,
        "image_profiles": 0,
    }
    assert recorded["inputs"] == read


def test_no_step_and_no_command_that_needs_none_imports_dagster(tmp_path: Path) -> None:
    program = """
import sys, click.testing, dlassets.pipeline.steps, dlassets.pipeline.follower, dlassets.pipeline.stream
from dlassets.cli import main
for line in ("history raw_images", "history --model 1", "reproduce 1", "automl --minutes 1"):
    click.testing.CliRunner().invoke(main, line.split())
print(sorted(name for name in sys.modules if name.partition(".")[0] == "dagster"))
"""
    assert python(program, DLASSETS_ROOT=str(tmp_path)).strip() == "[]"
