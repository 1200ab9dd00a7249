"""A photo that a step fails for is left out by itself: noted, counted, and tried again when something has changed."""

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from dlassets import __version__
from dlassets.engines.base import Commit, Engine, Written
from dlassets.engines.local import LocalEngine
from dlassets.errors import DlassetsError
from dlassets.images.decode import ImageError
from dlassets.images.digest import image_id_of
from dlassets.intake.quarantine import drop, refused_files, retry
from dlassets.lakehouse.derived import Derivation, derive
from dlassets.lakehouse.failures import failed_images
from dlassets.lakehouse.photos import Photos
from dlassets.lakehouse.tables import IMAGE_FEATURES, QUARANTINED_FILES
from dlassets.lakehouse.training_set import PIXELS, choose, chosen_from
from dlassets.monitoring.quality import RULES, check
from dlassets.settings import LabelSettings, Settings
from dlassets.storage.lake import Lake
from dlassets_tests.tables import arrow, get, labelled, pins, put

if TYPE_CHECKING:
    import pyarrow as pa

ENGINE = LocalEngine()
GOOD, BAD, OTHER = b"good", b"bad", b"other"


def lengths(batch: "pa.RecordBatch", *, raises: type[Exception], for_: bytes | None) -> "pa.RecordBatch":
    """Kernel: a photo's number of bytes for an embedding; of some photos, or of all, an error in two lines."""
    import pyarrow as pa

    contents = batch["content"].to_pylist()
    if for_ is None or for_ in contents:
        raise raises("nobody\nthought of it")
    return pa.RecordBatch.from_pylist(
        [
            {"image_id": image_id, "feature_version": "v1", "features": [float(len(content))]}
            for image_id, content in zip(batch["image_id"].to_pylist(), contents, strict=True)
        ],
        schema=IMAGE_FEATURES.schema,
    )


def photos(lake: Lake, **contents: bytes) -> None:
    rows = [{"path": f"labeled/{n}.jpg", "image_id": image_id_of(c), "content": c} for n, c in contents.items()]
    put(lake, "raw_images", *({**row, "landing": "labeled", "length": len(row["content"])} for row in rows))


def run(engine: Engine, lake: Lake, *, raises: type[Exception] = ImageError, for_: bytes | None = BAD) -> Written:
    inputs = pins(lake, "raw_images", "deleted_files", "quarantined_files")
    kernel = functools.partial(lengths, raises=raises, for_=for_)
    return derive(Photos(engine, lake, inputs["raw_images"]), lake, Derivation(IMAGE_FEATURES, kernel), inputs, {})


def mended(lake: Lake) -> Written:
    """Run the step again, which by now could make a row of any photo."""
    return run(ENGINE, lake, for_=b"none")


def embedded(lake: Lake) -> list[bytes]:
    made = {row["image_id"] for row in get(ENGINE, lake, "image_features", "image_id")}
    return [content for content in (GOOD, BAD, OTHER) if image_id_of(content) in made]


def states(engine: Engine, lake: Lake) -> dict[str, str]:
    return {file.path: file.state for file in refused_files(engine, lake, everything=True)}


@pytest.fixture
def failed(lake: Lake) -> Lake:
    """A lake with three photos, for one of which, under two paths, a step has failed."""
    photos(lake, a=GOOD, b=BAD, again=BAD, c=OTHER)
    assert run(ENGINE, lake).failed == ("labeled/again.jpg",)
    return lake


@pytest.mark.parametrize("raises", [ImageError, ZeroDivisionError])
def test_a_photo_that_a_step_fails_for_is_noted_and_all_others_are_in(engine: Engine, lake, raises) -> None:
    photos(lake, a=GOOD, b=BAD, c=OTHER)

    done = run(engine, lake, raises=raises)

    assert (done.inserted, done.failed, done.quarantined, done.left_out) == (2, ("labeled/b.jpg",), 1, 0)
    assert embedded(lake) == [GOOD, OTHER]
    (noted,) = refused_files(engine, lake)
    assert (noted.path, noted.reason, noted.stage) == ("labeled/b.jpg", "failed", "image_features")
    assert (noted.image_id, noted.length, noted.code_version) == (image_id_of(BAD), 3, __version__)
    kind = "" if raises is ImageError else "ZeroDivisionError: "
    assert noted.detail == f"{kind}nobody thought of it"


def test_it_is_not_tried_again_and_counted_for_as_long_as_it_is_left_out(engine: Engine, failed: Lake) -> None:
    done = run(engine, failed, raises=AssertionError)

    assert (done.changed, done.failed, done.quarantined, done.left_out) == (False, (), 1, 0)
    assert states(engine, failed) == {"labeled/again.jpg": "quarantined", "labeled/b.jpg": "quarantined"}


def test_another_version_of_the_code_tries_again(failed: Lake) -> None:
    older = [{**row, "code_version": "0.0.1"} for row in get(ENGINE, failed, "quarantined_files")]
    rows = ENGINE.rows(arrow("quarantined_files", *older))
    ENGINE.merge(rows, QUARANTINED_FILES, failed.table("quarantined_files"), Commit())

    assert {*states(ENGINE, failed).values()} == {"superseded"}
    assert run(ENGINE, failed).failed == ("labeled/again.jpg",), "that one fails as well, and is noted anew"
    assert {*states(ENGINE, failed).values()} == {"quarantined"}
    assert run(ENGINE, failed, raises=AssertionError).failed == ()


def test_retried_by_a_person_it_is_tried_by_the_steps_next_run(failed: Lake, settings: Settings) -> None:
    Path(failed.zone("labeled")).mkdir(parents=True)
    done = retry(ENGINE, failed, settings, refused_files(ENGINE, failed), {})

    assert (done.left_to_steps, done.taken_in, done.refused, done.missing) == (2, 0, 0, 0)
    assert mended(failed).inserted == 1
    assert embedded(failed) == [GOOD, BAD, OTHER]
    assert states(ENGINE, failed) == {}


def test_dropped_by_a_person_it_is_left_out_for_good_and_not_warned_of(failed: Lake, settings: Settings) -> None:
    drop(ENGINE, failed, settings, refused_files(ENGINE, failed), {})

    assert {*states(ENGINE, failed).values()} == {"dropped"}
    done = mended(failed)
    assert (done.inserted, done.quarantined) == (0, 1)


def test_a_step_that_fails_for_any_photo_fails_and_blames_none(engine: Engine, lake: Lake) -> None:
    photos(lake, a=GOOD, b=BAD)

    with pytest.raises(DlassetsError, match="nobody"):
        run(engine, lake, raises=DlassetsError, for_=None)

    assert refused_files(ENGINE, lake, everything=True) == []


@pytest.mark.parametrize("raises", [MemoryError, OSError])
def test_what_says_nothing_of_a_photo_is_no_verdict_on_it(lake: Lake, raises) -> None:
    photos(lake, a=GOOD, b=BAD)

    done = run(ENGINE, lake, raises=raises)

    assert (done.inserted, done.left_out, done.failed, done.quarantined) == (1, 1, (), 0)
    assert mended(lake).inserted == 1


@pytest.mark.parametrize("made_of", ["v1", PIXELS])
def test_it_is_not_learned_from_though_another_step_made_something_of_it(failed: Lake, made_of) -> None:
    features = {"image_id": image_id_of(BAD), "feature_version": "v1", "features": [1.0]}
    put(failed, "image_features", features)
    for name, content in {"a": GOOD, "b": BAD, "c": OTHER}.items():
        put(failed, "labeled_images", labelled(name, 1, image_id=image_id_of(content)))

    choice = choose(ENGINE, pins(failed, *(t.name for t in chosen_from(made_of))), made_of, LabelSettings())

    assert sorted(choice.rows["path"].to_pylist()) == ["labeled/a.jpg", "labeled/c.jpg"]
    assert choice.quarantined == 1


def test_checks_want_nothing_of_it_and_warn_of_it(failed: Lake) -> None:
    def broken(name: str) -> Any:
        rule = next(rule for rule in RULES if rule.name == name)
        return check(ENGINE, rule, pins(failed, *rule.reads), LabelSettings())

    assert broken("every_image_embedded").passed
    assert broken("nothing_quarantined").broken == 2
    assert broken("every_image_profiled").broken == 2, "photos that were never tried"


def test_there_is_nothing_to_count_in_a_lake_without_failures(lake: Lake) -> None:
    photos(lake, a=GOOD)

    assert failed_images(ENGINE, pins(lake, "raw_images", "deleted_files", "quarantined_files")) == 0
