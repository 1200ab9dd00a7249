"""One photo that passes the door and that a step then fails for costs the lake that photo, and nothing else."""

from pathlib import Path
from typing import Any

import pytest

from dlassets.defs.common import table_result
from dlassets.engines.base import Commit
from dlassets.engines.local import LocalEngine
from dlassets.images.decode import ImageError, View
from dlassets.intake.quarantine import refused_files
from dlassets.lakehouse import profiles
from dlassets.lakehouse.tables import IMAGE_PROFILES, RAW_IMAGES
from dlassets.learning import embedding
from dlassets.learning.training import pixels
from dlassets.monitoring.quality import RULES, check
from dlassets.pipeline import steps
from dlassets.pipeline.session import Session
from dlassets.settings import LabelSettings, Settings
from dlassets.storage.lake import Lake
from dlassets_tests.intake.test_ingest import photo, put
from dlassets_tests.pipelines import Warnings
from dlassets_tests.programs import invoke
from dlassets_tests.tables import get, pins

ENGINE = LocalEngine()
ARRIVED = {f"labeled/001.cat/{number}.jpg": photo(10 * number) for number in range(4)}
BAD = "labeled/001.cat/2.jpg"


@pytest.fixture
def session(lake: Lake) -> Session:
    """Photos that are taken in and labelled."""
    Path(lake.zone("unlabeled")).mkdir(parents=True)
    for path, content in ARRIVED.items():
        put(Path(lake.zone(path)), content)
    session = Session(Settings(root=lake.root))
    steps.ingested_files.run(session)
    steps.classes.run(session)
    return session


def failing_for(data: bytes, *, patch: pytest.MonkeyPatch, module: Any, name: str) -> None:
    work = getattr(module, name)

    def failing(given: bytes, *args: Any) -> Any:
        if given == data:
            raise ImageError("nobody thought of it")
        return work(given, *args)

    patch.setattr(module, name, failing)


def paths_of(lake: Lake, table: str) -> list[str]:
    images = f"SELECT path FROM raw_images WHERE image_id IN (SELECT image_id FROM {table}) ORDER BY path"
    return list(ENGINE.sql(images, pins(lake, "raw_images", table)).arrow()["path"].to_pylist())


def test_it_is_told_of_once_listed_with_its_stage_and_another_file_has_its_turn(lake, session, monkeypatch) -> None:
    failing_for(ARRIVED[BAD], patch=monkeypatch, module=profiles, name="profile")
    heard = Warnings()
    for inserted, failed in ((3, (BAD,)), (0, ())):
        made = steps.image_profiles.run(session, heard)
        written = made.written["image_profiles"]
        assert (written.inserted, written.failed, written.quarantined) == (inserted, failed, 1)
        assert made.complete, "nothing waits for it"
    (warning,) = heard.messages
    assert warning.startswith(f"image_profiles could not be made of 1 photos: {BAD}. They are quarantined")
    monkeypatch.setenv("DLASSETS_ROOT", lake.root)
    listed = invoke("quarantine", "list", "--reason", "failed")
    assert "failed (image_profiles)" in listed.output.replace("\n", " ")

    put(Path(lake.zone(BAD)), photo(99))
    steps.ingested_files.run(session)

    assert refused_files(ENGINE, lake) == []
    assert steps.image_profiles.run(session).written["image_profiles"].inserted == 1


@pytest.mark.parametrize("trainable", ["head", "all"])
def test_nothing_after_it_waits_for_it_and_nothing_is_learned_from_it(lake, session, monkeypatch, trainable) -> None:
    failing_for(ARRIVED[BAD], patch=monkeypatch, module=embedding, name="as_seen")
    training = session.settings.training.model_copy(update={"trainable": trainable})
    session = session.changed(settings=session.settings.model_copy(update={"training": training}))
    for step in (steps.image_features, steps.image_profiles, steps.human_labels, steps.labeled_images):
        step.run(session)

    written = steps.training_set.run(session).written["training_set"]

    whole = [path for path in ARRIVED if path != BAD]
    assert paths_of(lake, "image_features") == paths_of(lake, "image_profiles") == whole
    assert [row["path"] for row in get(ENGINE, lake, "training_set", "path")] == whole
    assert (written.inserted, written.quarantined, written.left_out) == (3, 1, 0)
    for rule in RULES:
        if rule.name in {"every_image_profiled", "every_image_embedded", "labels_as_in_force"}:
            assert check(ENGINE, rule, pins(lake, *rule.reads), LabelSettings()).passed, rule.name


def test_what_training_on_pixels_cannot_see_of_whole_photos_is_noted(lake, session, monkeypatch) -> None:
    failing_for(ARRIVED[BAD], patch=monkeypatch, module=pixels, name="load")
    left_out = [BAD, "labeled/001.cat/1.jpg"]

    noted = pixels.note_unseen(session.photos(session.pin(RAW_IMAGES)), left_out, View(), "trained_model", Commit())

    assert noted == [BAD]
    assert [(file.path, file.stage) for file in refused_files(ENGINE, lake)] == [(BAD, "trained_model")]


def test_how_many_are_left_out_stands_in_the_materialization(session, monkeypatch) -> None:
    failing_for(ARRIVED[BAD], patch=monkeypatch, module=profiles, name="profile")

    made = steps.image_profiles.run(session)

    metadata = table_result(session, IMAGE_PROFILES, made, {}).metadata
    assert (metadata["photos_failed"], metadata["photos_quarantined"], metadata["rows_inserted"]) == (1, 1, 3)
