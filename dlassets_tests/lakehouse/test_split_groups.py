"""Photos that look alike, or belong together by a setting, share a side of the split, and never change it."""

import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from dlassets.engines.base import Engine, Written
from dlassets.engines.local import LocalEngine
from dlassets.errors import SettingsError
from dlassets.images.profile import profile
from dlassets.lakehouse.snapshots import evolve
from dlassets.lakehouse.split_groups import Straddling, straddling
from dlassets.lakehouse.tables import raw_images_with
from dlassets.learning.examples import Examples
from dlassets.learning.training.head_training import train_head
from dlassets.samples.generated import CLASSES, photo
from dlassets.settings import Settings, TrainingSettings, load_settings
from dlassets.storage.lake import Lake
from dlassets_tests.tables import NOON, get, image_id, labelled, pins, put, take_labels

SCENES, LOTS = 40, 8
SIDES = ("train", "validation", "test")


def side_alone(name: str) -> str:
    """The side that a photo's own hash puts it on."""
    share = int(image_id(name)[:8], 16) / 16**8
    return SIDES[0] if share < 0.7 else SIDES[1] if share < 0.85 else SIDES[2]


# Names by the side that they are on alone, and the looks of photos that are not alike.
ON = {side: [name for name in map(str, range(100)) if side_alone(name) == side] for side in SIDES}
TRAIN, OTHER_TRAIN, *_ = ON["train"]
TEST, OTHER_TEST, *_ = ON["test"]
ONE, OTHER = (int(look) for look in np.random.default_rng(0).integers(-(2**63), 2**63, 2))
LOT = Settings.model_validate({"split": {"group_by": r"/(lot-\d+)-"}})


def differing(look: int, bits: int) -> int:
    return look ^ ((1 << bits) - 1)


def arrive(lake: Lake, looks: dict[str, int | None], folder: str = "001.cat", minutes: int = 0) -> None:
    """Take photos in by name, each profiled unless it has no look."""
    rows = [
        {
            "path": f"labeled/{folder}/{name}.jpg",
            "image_id": image_id(name.split("-")[-1]),
            "landing": "labeled",
            "folder": folder,
            "modificationTime": NOON.replace(minute=minutes),
        }
        for name in looks
    ]
    put(lake, "raw_images", *rows)
    for row, look in zip(rows, looks.values(), strict=True):
        row["perceptual_hash"] = look
    put(lake, "image_profiles", *(row for row in rows if row["perceptual_hash"] is not None))


def update(engine: Engine, lake: Lake, settings: Settings | None = None) -> Written:
    return take_labels(engine, lake, settings or Settings())


def sides(engine: Engine, lake: Lake) -> dict[str, str]:
    """The side of each photo, by its name."""
    rows = get(engine, lake, "labeled_images", "path, split")
    return {row["path"].split("/")[-1][:-4]: row["split"] for row in rows}


def apart(engine: Engine, lake: Lake, settings: Settings | None = None) -> Straddling:
    tables = pins(lake, "raw_images", "image_profiles", "labeled_images")
    return straddling(engine, tables, (settings or Settings()).split)


def test_a_photo_goes_where_one_that_looks_like_it_is(engine, lake) -> None:
    arrive(lake, {TRAIN: ONE, TEST: OTHER})
    update(engine, lake)
    arrive(lake, {OTHER_TEST: differing(ONE, 4), OTHER_TRAIN: differing(OTHER, 5)})

    update(engine, lake)

    # Four bits are alike, and five are not.
    assert sides(engine, lake) == {TRAIN: "train", TEST: "test", OTHER_TEST: "train", OTHER_TRAIN: "train"}
    assert apart(engine, lake).groups == 0
    assert not update(engine, lake).changed


def test_of_new_photos_that_look_alike_the_oldest_decides(local_engine, lake) -> None:
    arrive(lake, dict.fromkeys(ON["train"][:5], ONE), minutes=5)
    arrive(lake, {TEST: differing(ONE, 3)})

    update(local_engine, lake)

    assert set(sides(local_engine, lake).values()) == {"test"}


def test_a_photo_between_two_groups_that_stand_joins_the_nearer_and_moves_neither(local_engine, lake) -> None:
    arrive(lake, {TRAIN: ONE, TEST: differing(ONE, 6)})
    update(local_engine, lake)
    arrive(lake, {OTHER_TRAIN: differing(ONE, 4)})

    update(local_engine, lake)

    assert sides(local_engine, lake) == {TRAIN: "train", TEST: "test", OTHER_TRAIN: "test"}
    found = apart(local_engine, lake)
    assert (found.groups, found.photos) == (1, 3)
    assert found.examples == [f"labeled/001.cat/{TRAIN}.jpg (train) and labeled/001.cat/{OTHER_TRAIN}.jpg (test)"]


def test_looks_count_for_nothing_where_the_setting_says_so(local_engine, lake) -> None:
    settings = Settings.model_validate({"split": {"look_alike_bits": None}})
    arrive(lake, {TRAIN: ONE, TEST: ONE})
    update(local_engine, lake, settings)
    arrive(lake, {OTHER_TEST: ONE})
    update(local_engine, lake, settings)

    assert sides(local_engine, lake) == {TRAIN: "train", TEST: "test", OTHER_TEST: "test"}
    assert apart(local_engine, lake, settings).groups == 0


def test_a_photo_in_a_mirror_is_alike(local_engine, lake) -> None:
    picture = photo("fish", np.random.default_rng(5))
    mirror = ImageOps.mirror(Image.open(io.BytesIO(picture)))
    arrive(lake, {TEST: profile(picture)["perceptual_hash"]})
    update(local_engine, lake)
    arrive(lake, {TRAIN: profile(jpeg(mirror, 90))["perceptual_hash"]})
    update(local_engine, lake)

    assert sides(local_engine, lake) == {TEST: "test", TRAIN: "test"}


def test_a_photo_of_one_colour_looks_like_no_other(local_engine, lake) -> None:
    arrive(lake, {TRAIN: 0, TEST: 0})

    update(local_engine, lake)

    assert sides(local_engine, lake) == {TRAIN: "train", TEST: "test"}
    assert apart(local_engine, lake).groups == 0


def test_rows_of_an_earlier_release_keep_their_side_and_others_join_them(local_engine, lake) -> None:
    arrive(lake, {TRAIN: ONE, TEST: ONE})
    put(lake, "labeled_images", *(old_row(name) for name in (TRAIN, TEST)))
    assert not update(local_engine, lake).changed
    arrive(lake, {OTHER_TEST: ONE})

    update(local_engine, lake)

    assert sides(local_engine, lake) == {TRAIN: "train", TEST: "test", OTHER_TEST: "train"}
    assert apart(local_engine, lake).photos == 3


def old_row(name: str) -> dict[str, Any]:
    path = f"labeled/001.cat/{name}.jpg"
    return labelled(name, 1, path=path, label_name="cat", split=side_alone(name), labeled_at=NOON)


def test_whoever_comes_later_moves_nobody(local_engine, lake) -> None:
    """Photos of a few looks come one after the other: what is known of a side once is known for ever."""
    rng = np.random.default_rng(1)
    known: dict[str, str] = {}
    for name in map(str, range(12)):
        look = differing((ONE, OTHER)[rng.integers(2)], int(rng.integers(9)))
        arrive(lake, {name: look}, minutes=int(rng.integers(60)))
        update(local_engine, lake)
        now = sides(local_engine, lake)
        assert now.items() >= known.items()
        known = now


def test_a_run_that_was_killed_and_is_run_again_decides_the_same(local_engine, lake, monkeypatch) -> None:
    arrive(lake, {TRAIN: ONE, TEST: OTHER})
    update(local_engine, lake)
    arrive(lake, {OTHER_TEST: ONE, OTHER_TRAIN: OTHER})

    with monkeypatch.context() as killing:
        killing.setattr(LocalEngine, "merge", killed)
        with pytest.raises(KeyboardInterrupt):
            update(local_engine, lake)
    update(local_engine, lake)

    assert sides(local_engine, lake) == {TRAIN: "train", TEST: "test", OTHER_TEST: "train", OTHER_TRAIN: "test"}


def killed(*_: Any) -> None:
    raise KeyboardInterrupt


def test_all_of_a_lot_share_a_side_by_a_pattern_on_the_path(local_engine, lake) -> None:
    arrive(lake, {f"lot-1-{TEST}": ONE, f"lot-2-{TRAIN}": OTHER})
    update(local_engine, lake, LOT)
    arrive(lake, {f"lot-1-{OTHER_TRAIN}": None, f"lot-2-{OTHER_TEST}": None, ON["train"][2]: None})

    update(local_engine, lake, LOT)

    assert sides(local_engine, lake) == {
        f"lot-1-{TEST}": "test",
        f"lot-1-{OTHER_TRAIN}": "test",
        f"lot-2-{TRAIN}": "train",
        f"lot-2-{OTHER_TEST}": "train",
        ON["train"][2]: "train",
    }


def test_a_setting_that_comes_later_moves_nobody_and_says_what_is_apart(local_engine, lake) -> None:
    arrive(lake, {f"lot-1-{TRAIN}": ONE, f"lot-1-{TEST}": OTHER})
    update(local_engine, lake)

    assert not update(local_engine, lake, LOT).changed

    assert apart(local_engine, lake).groups == 0
    found = apart(local_engine, lake, LOT)
    assert (found.groups, found.photos) == (1, 2)


def test_all_photos_of_a_camera_share_a_side(engine, lake) -> None:
    by_camera = Settings.model_validate({"split": {"group_by": "camera"}, "ingest": {"capture": ["camera"]}})
    arrive(lake, {TRAIN: None})
    update(engine, lake, by_camera)  # of a lake that has no such column yet
    table = raw_images_with(["camera"])
    uri = evolve(lake, table).uri
    names = {ON["test"][2]: "Box", ON["train"][3]: "Box", ON["train"][4]: None}
    arrive(lake, dict.fromkeys(names))
    from deltalake import DeltaTable

    for name, camera in names.items():
        if camera:
            DeltaTable(uri).update({"camera": f"'{camera}'"}, predicate=f"image_id = '{image_id(name)}'")

    update(engine, lake, by_camera)

    found = sides(engine, lake)
    assert found[ON["test"][2]] == found[ON["train"][3]]
    assert (found[TRAIN], found[ON["train"][4]]) == ("train", "train")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"DLASSETS_SPLIT__GROUP_BY": "lot-"}, r"must be camera, or a regular expression with a group"),
        ({"DLASSETS_SPLIT__GROUP_BY": "(lot"}, "neither camera nor a regular expression"),
        ({"DLASSETS_SPLIT__GROUP_BY": "camera"}, "ingest.capture must name"),
    ],
)
def test_a_setting_that_groups_nothing_is_refused(values, message) -> None:
    with pytest.raises(SettingsError, match=message):
        load_settings(values)


# ---- what it is for


def re_encodings(content: bytes) -> list[bytes]:
    image = Image.open(io.BytesIO(content)).convert("RGB")
    half = image.resize((image.width // 2, image.height // 2))
    lights = [ImageEnhance.Brightness(image).enhance(factor) for factor in (0.8, 0.9, 1.1, 1.2)]
    return [
        content,
        *(jpeg(image, q) for q in (20, 40, 60, 80)),
        jpeg(half, 90),
        *(jpeg(light, 90) for light in lights),
    ]


def jpeg(image: Image.Image, quality: int) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return file.getvalue()


def scores(on: Sequence[str], features: np.ndarray, labels: Callable[[int], np.ndarray]) -> list[float]:
    """The accuracy of a head on the test side, for labels of several lots."""

    def rows(side: str, drawn: np.ndarray) -> Examples:
        chosen = np.flatnonzero(np.array(on) == side)
        names = [str(place) for place in chosen]
        return Examples(names, names, drawn[chosen], [str(label) for label in drawn[chosen]], features[chosen])

    found = []
    for lot in range(LOTS):
        train, validation, test = (rows(side, labels(lot)) for side in SIDES)
        head = train_head(train, validation, TrainingSettings(l2=0.001, epochs=15)).head
        found.append(float((head.predict(test.features) == test.labels).mean()))
    return found


@pytest.mark.slow
def test_re_encodings_of_scenes_with_labels_drawn_by_lot_score_about_chance(local_engine, lake) -> None:
    looks, features = {}, []
    for scene in range(SCENES):
        original = photo(list(CLASSES)[scene % len(CLASSES)], np.random.default_rng((3, scene)))
        for number, content in enumerate(re_encodings(original)):
            row = profile(content)
            looks[f"{scene}.{number}"] = row["perceptual_hash"]
            small = Image.open(io.BytesIO(row["thumbnail"])).convert("L").resize((12, 12))
            features.append(np.asarray(small, np.float32).ravel() / 255)
    names = [*looks]
    rng = np.random.default_rng(0)
    for part in np.array_split(rng.permutation(len(names)), 3):  # in three parts, as they may come
        arrive(lake, {names[place]: looks[names[place]] for place in part})
        update(local_engine, lake)
    scene_of = [int(name.split(".")[0]) for name in names]

    def by_lot(lot: int) -> np.ndarray:
        return np.random.default_rng(lot).permutation(np.arange(SCENES) % 2)[scene_of]

    found = sides(local_engine, lake)
    alone = scores([side_alone(name) for name in names], np.stack(features), by_lot)
    together = scores([found[name] for name in names], np.stack(features), by_lot)

    assert apart(local_engine, lake) == Straddling(0, 0, [])
    assert np.mean(alone) > 0.95
    assert np.mean(together) == pytest.approx(0.5, abs=0.15)
