"""The benchmarks still run, and what they compute from a measurement is right. Their figures are for people."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import accuracy, demo_time, loading
from benchmarks.ingest import landing, parts
from benchmarks.ingest.data import names, originals, written
from benchmarks.ingest.worker import TASKS
from benchmarks.processes import clean_environment, run
from dlassets.errors import DlassetsError
from dlassets.learning.examples import Examples
from dlassets.settings import Settings
from dlassets_tests.learning.examples import examples
from dlassets_tests.test_benchmarks_embedding import shown


@pytest.mark.slow
def test_loading_names_each_import_and_finds_nothing_heavy_in_the_code_location() -> None:
    statements = {name: loading.STATEMENTS[name] for name in (loading.DAGSTER, loading.LOCATION)}

    measured = loading.measure(1, {**statements, "two heavy ones": "import duckdb, simplejpeg"})

    heavy = {one.what: one.heavy for one in measured.imports}
    assert heavy == {loading.DAGSTER: [], loading.LOCATION: [], "two heavy ones": ["duckdb", "simplejpeg"]}
    assert measured.ratio(measured.imports[0]) == 1
    assert loading.LOCATION in shown(measured)


def test_a_program_that_fails_is_an_error_with_what_it_said() -> None:
    with pytest.raises(DlassetsError, match="no photos today"):
        run(["sh", "-c", "echo no photos today; exit 3"], clean_environment())


def test_measuring_leaves_the_user_s_settings_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DLASSETS_TRAINING__EPOCHS", "1")
    monkeypatch.setenv("DAGSTER_HOME", "elsewhere")
    monkeypatch.setenv("UNRELATED", "stays")

    kept = clean_environment(DLASSETS_ROOT="lake")

    assert {name for name in kept if name.startswith(("DLASSETS_", "DAGSTER_"))} == {"DLASSETS_ROOT"}
    assert kept["UNRELATED"] == "stays"


def test_a_stage_lasts_until_the_next_heading() -> None:
    lines = [(2.0, "1/2 Photos arrive"), (2.5, "    3 of 4/5 photos"), (3.0, "2/2 Train"), (7.0, "Summary   ")]

    stages = demo_time.stage_seconds(lines, wall_s=7.5)

    assert stages == {demo_time.START: 2.0, "Photos arrive": 1.0, "Train": 4.0, demo_time.END: 0.5}


def test_a_paired_difference_counts_only_the_rows_on_which_the_two_differ() -> None:
    one = np.array([True] * 80 + [True] * 12 + [False] * 4 + [False] * 4)
    other = np.array([True] * 80 + [False] * 12 + [True] * 4 + [False] * 4)

    difference, low, high = accuracy.paired_difference(one, other)

    assert difference == pytest.approx(0.08)
    assert (low, high) == pytest.approx((0.0032, 0.1568), abs=1e-4)
    assert accuracy.paired_difference(one, one) == (0, 0, 0)


def test_the_sides_are_those_of_the_lake_and_redrawn_hashes_give_others() -> None:
    image_ids = ["b3333332" + "0" * 56, "b3333334" + "0" * 56, "e0000000" + "0" * 56]

    assert accuracy.sides_of(image_ids, Settings()).tolist() == ["train", "validation", "test"]
    assert accuracy.redrawn_hashes(image_ids, 1) == accuracy.redrawn_hashes(image_ids, 1)
    assert not set(accuracy.redrawn_hashes(image_ids, 1)) & {*image_ids, *accuracy.redrawn_hashes(image_ids, 2)}


def test_the_probes_learn_what_can_be_learned() -> None:
    rows = _separable(seed=0)
    validation, test = _separable(seed=1), _separable(seed=2)

    predictions = {name: predict(test.features) for name, predict in accuracy.probes(rows, validation).items()}

    assert set(predictions) == {accuracy.PEER, accuracy.PEER_DEFAULT}
    for predicted in predictions.values():
        assert predicted.tolist() == test.labels.tolist()


@pytest.mark.slow
def test_copies_of_photos_are_other_bytes_of_the_same_picture_and_all_are_taken_in(
    photos: Path, tmp_path: Path
) -> None:
    bench = _small_bench(photos, tmp_path)

    taken = parts.take_in(bench)

    whos = ["cp -r", "bare loop, 2 threads", "bare loop, 2 processes", "dlassets, local"]
    assert {one.who: one.images for one in taken.taken} == dict.fromkeys(whos, 90)
    rates = [one.per_second for one in taken.taken if one.who.startswith("bare loop")]
    assert taken.per_second("bare loop") == max(rates)
    contents = [path.read_bytes() for path in bench.zone(90).glob("*/*.jpg")]
    assert len(contents) == len(set(contents)) == 90
    assert "dlassets, local" in shown(taken)


@pytest.mark.slow
def test_ticks_find_nothing_new_and_changes_change_rows_alone(photos: Path, tmp_path: Path) -> None:
    bench = _small_bench(photos, tmp_path, _InThisProcess)

    ticks = parts.ticks(bench).ticks
    merges = parts.merges(bench).changes
    replacements = parts.replacements(bench).changes
    forms = parts.storage(bench).forms

    by = ["dlassets, local, events", "dlassets, local, listing"]
    assert [(tick.by, tick.files) for tick in ticks] == [(each, 30) for each in by]
    assert [(change.rows, change.changed) for change in merges] == [(200, 200), (200, 200)]
    assert [(change.rows, change.changed) for change in replacements] == [(90, 10), (90, 90)]
    assert [form.storage for form in forms] == ["table", "files", "landing"]
    assert forms[2].disk_mib < forms[2].photos_mib < forms[0].disk_mib


@pytest.mark.slow
def test_photos_that_land_while_dlassets_watches_are_read(photos: Path, tmp_path: Path) -> None:
    lags = landing.watch(originals(photos)[:4], tmp_path, files=4, pace=0.01)

    assert [(lag.landed, lag.files) for lag in lags] == [("one every 0.01 s", 2), ("1 at once, twice", 2)]
    assert all(0 < lag.p50_s <= lag.p95_s <= lag.most_s for lag in lags)


def test_a_folder_of_photos_is_made_once_and_names_of_files_share_few_files(photos: Path, tmp_path: Path) -> None:
    folder = written(originals(photos), 5, tmp_path / "five")
    first = next(folder.glob("*/*.jpg"))
    first.unlink()

    assert not first.exists()
    assert written(originals(photos), 5, folder) == folder
    assert not first.exists()
    assert written(originals(photos), 6, folder) == folder
    assert first.exists()
    inodes = [path.stat().st_ino for path in names(1500, tmp_path / "names").glob("*/*")]
    assert (len(inodes), len(set(inodes))) == (1500, 1)


class _InThisProcess(parts.Bench):
    """Tasks without a process of their own, whose start takes longer than a small task."""

    def task(self, task: str, module: str = "worker", **arguments: Any) -> dict[str, Any]:
        assert module == "worker"
        return dict(TASKS[task](**arguments))


def _small_bench(photos: Path, folder: Path, kind: type[parts.Bench] = parts.Bench) -> parts.Bench:
    return kind(photos, folder, photos=90, ticks=(30,), predictions=(200,), copies=(1,), runs=1, engines=("local",))


def _separable(seed: int) -> Examples:
    labels = np.tile(np.array([3, 12], dtype=np.int64), 20)
    features = np.random.default_rng(seed).normal(size=(40, 8)).astype(np.float32)
    features[:, 0] += np.where(labels == 3, -20, 20)
    return examples(labels, features)
