"""A kernel's table: one row an image, made once."""

import functools
from typing import TYPE_CHECKING, Any

import pytest

from dlassets.engines.base import Engine, Written
from dlassets.engines.local import LocalEngine
from dlassets.lakehouse import derived
from dlassets.lakehouse.derived import Derivation, derive
from dlassets.lakehouse.photos import Photos
from dlassets.lakehouse.tables import IMAGE_FEATURES
from dlassets.storage.lake import Lake
from dlassets_tests.killing import killed_at, overtaken_at
from dlassets_tests.tables import get, image_id, pins, put

if TYPE_CHECKING:
    import pyarrow as pa


def lengths(batch: "pa.RecordBatch", *, version: str) -> "pa.RecordBatch":
    """Kernel: an image's number of bytes for an embedding."""
    import pyarrow as pa

    sizes = [[float(len(content))] for content in batch["content"].to_pylist()]
    return pa.RecordBatch.from_pydict(
        {
            "image_id": batch["image_id"],
            "feature_version": pa.array([version] * batch.num_rows),
            "features": pa.array(sizes, pa.list_(pa.float32())),
        }
    )


def photos(engine: Engine, lake: Lake, *names: str) -> None:
    put(
        lake,
        "raw_images",
        *({"path": f"zone/{name}", "image_id": image_id(name[0]), "content": name[0].encode()} for name in names),
    )


def run(engine: Engine, lake: Lake, version: str = "v1", **options: Any) -> Written:
    kernel = functools.partial(lengths, version=version)
    where = f"feature_version = '{version}'"
    return derived_from(engine, lake, Derivation(IMAGE_FEATURES, kernel, where), **options)


def derived_from(engine: Engine, lake: Lake, derivation: Derivation, **options: Any) -> Written:
    """Derive a table from the newest versions of all that says which images there are."""
    inputs = pins(lake, "raw_images", "deleted_files", "quarantined_files")
    return derive(Photos(engine, lake, inputs["raw_images"]), lake, derivation, inputs, {}, **options)


def test_every_image_gets_one_row_under_however_many_paths(engine: Engine, lake: Lake) -> None:
    photos(engine, lake, "a", "b", "a again")

    assert run(engine, lake).inserted == 2
    assert get(engine, lake, "image_features", "image_id, features") == sorted(
        ({"image_id": image_id(name), "features": [1.0]} for name in "ab"), key=repr
    )


def test_only_new_images_are_worked_on(local_engine: Engine, lake: Lake) -> None:
    photos(local_engine, lake, "a")
    first = run(local_engine, lake)

    assert run(local_engine, lake) == Written(first.version, changed=False)
    photos(local_engine, lake, "b")
    assert run(local_engine, lake).inserted == 1
    assert run(local_engine, lake, version="v2").inserted == 2


def test_progress_is_told_of_how_many(lake: Lake) -> None:
    photos(LocalEngine(), lake, "a", "b", "c")
    told: list[tuple[int, int | None]] = []

    run(LocalEngine(), lake, progress=lambda done, total: told.append((done, total)))

    assert told[-1] == (3, 3)


def test_killed_midway_it_goes_on_after_the_last_commit(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(derived, "IMAGES_PER_COMMIT", 2)
    photos(LocalEngine(), lake, *"abcde")
    with killed_at(LocalEngine, "append", after=1):
        run(LocalEngine(), lake)

    assert run(LocalEngine(), lake).inserted == 3
    assert len(get(LocalEngine(), lake, "image_features", "image_id")) == 5


def test_of_two_runs_at_once_nothing_doubles(lake: Lake) -> None:
    photos(LocalEngine(), lake, *"abc")

    with overtaken_at(LocalEngine, "append", lambda: run(LocalEngine(), lake)):
        run(LocalEngine(), lake)

    assert len(get(LocalEngine(), lake, "image_features", "image_id")) == 3
