import csv
import re
from pathlib import Path
from typing import Any

import pytest

from dlassets.engines.local import LocalEngine
from dlassets.errors import DlassetsError
from dlassets.labeling import requests as module
from dlassets.labeling.folder import FolderService
from dlassets.labeling.requests import batch_id, request_id
from dlassets.registry.models import ModelVersion
from dlassets.settings import Settings
from dlassets_tests import tables
from dlassets_tests.killing import killed_at, overtaken_at

from .conftest import MODEL, Bench, doubted, image_id, photo, raw_image


@pytest.fixture
def scored(bench: Bench) -> Bench:
    bench.add_photos("a", "b", "c")
    bench.score({"a": 0.5, "b": 0.4, "c": 0.99})
    return bench


def names(bench: Bench) -> set[str]:
    return {row["path"].removeprefix("unlabeled/").removesuffix(".jpg") for row in bench.rows("label_requests")}


def statuses(bench: Bench) -> dict[str, str]:
    return {row["path"]: row["status"] for row in bench.rows("label_requests")}


def photos_laid_out(bench: Bench) -> list[str]:
    """The file names of every photo that people see, in whatever batch."""
    return sorted(path.name for path in bench.requests.rglob("*.jpg"))


def expected_photos(*photos: str, version: int = 3) -> list[str]:
    return sorted(f"{request_id(image_id(name), ModelVersion(MODEL, version))}.jpg" for name in photos)


def test_ids_are_functions_of_what_they_name() -> None:
    id_ = request_id("ab", ModelVersion("m", 1))
    assert id_ == request_id("ab", ModelVersion("m", 1))
    assert len({id_, request_id("ab", ModelVersion("m", 2)), request_id("ab", ModelVersion("n", 1))}) == 3
    assert len(id_) == 16
    assert int(id_, 16) >= 0
    assert batch_id(3, ["x", "y"]) == batch_id(3, ["y", "x"])
    assert batch_id(3, ["x", "y"]) != batch_id(3, ["x"])
    assert batch_id(3, ["x"]).startswith("v3-")


def test_no_id_reads_as_a_number() -> None:
    ids = [request_id(str(photo), ModelVersion("m", 1)) for photo in range(20_000)]
    assert not [id_ for id_ in ids if re.fullmatch(r"[\d.,]+(e[+-]?\d+)?", id_, re.IGNORECASE)]
    assert len({*ids}) == len(ids)


def test_unsure_images_become_open_requests_with_their_photos_in_a_batch(scored: Bench) -> None:
    written = scored.send()
    assert (written.inserted, written.updated, written.changed) == (2, 0, True)
    assert written.version == scored.pin("label_requests").version
    rows = {row["path"]: row for row in scored.rows("label_requests")}
    assert sorted(rows) == ["unlabeled/a.jpg", "unlabeled/b.jpg"]
    row = rows["unlabeled/b.jpg"]
    assert row["request_id"] == request_id(image_id("b"), ModelVersion(MODEL, 3))
    assert row["batch_id"] == batch_id(3, [other["request_id"] for other in rows.values()])
    assert (row["status"], row["service"], row["strategy"]) == ("open", "folder", "margin")
    assert (row["predicted_label"], row["predicted_name"], row["confidence"]) == (2, "hat", 0.4)
    assert row["external_id"] == f"{row['batch_id']}/{row['request_id']}"
    batch = scored.requests / row["batch_id"]
    assert (batch / f"{row['request_id']}.jpg").read_bytes() == photo("b")
    with (batch / "requests.csv").open(encoding="utf-8-sig", newline="") as stream:
        listed = list(csv.DictReader(stream))
    assert [line["path"] for line in listed] == ["unlabeled/b.jpg", "unlabeled/a.jpg"]
    assert [line["label"] for line in listed] == ["", ""]


def test_nothing_to_send_makes_no_version_and_no_batch(scored: Bench) -> None:
    scored.send()
    before = scored.pin("label_requests").version
    written = scored.send()
    assert (written.version, written.changed, written.inserted) == (before, False, 0)
    assert scored.pin("label_requests").version == before
    assert len(list(scored.requests.iterdir())) == 1


@pytest.mark.parametrize("writes", [0, 1])
def test_killed_at_a_write_and_run_again_ends_as_if_never_killed(scored: Bench, writes: int) -> None:
    with killed_at(LocalEngine, "merge", after=writes):
        scored.send()
    scored.send()
    assert photos_laid_out(scored) == expected_photos("a", "b")
    assert {row["status"] for row in scored.rows("label_requests")} == {"open"}
    assert names(scored) == {"a", "b"}


def test_killed_between_files_and_table_nothing_is_doubled_though_the_choice_would_now_differ(scored: Bench) -> None:
    with killed_at(LocalEngine, "merge", after=1):
        scored.send()
    scored.add_photos("d")
    scored.score({"a": 0.2, "b": 0.1, "d": 0.3}, version=4)
    written = scored.send(version=4)
    assert (written.inserted, written.updated) == (1, 2)
    assert photos_laid_out(scored) == sorted(expected_photos("a", "b") + expected_photos("d", version=4))
    assert {row["status"] for row in scored.rows("label_requests")} == {"open"}
    assert names(scored) == {"a", "b", "d"}


def test_without_a_model_none_is_chosen_and_what_was_planned_is_sent(scored: Bench) -> None:
    assert not scored.send(version=None).changed
    with killed_at(LocalEngine, "merge", after=1):
        scored.send()
    written = scored.send(version=None)
    assert (written.inserted, written.updated) == (0, 2)
    assert {row["status"] for row in scored.rows("label_requests")} == {"open"}


def test_of_two_runs_at_once_the_second_asks_about_what_the_first_has_not(scored: Bench) -> None:
    with overtaken_at(LocalEngine, "merge", lambda: scored.send(batch_limit=1)):
        written = scored.send()
    assert (written.inserted, written.updated) == (1, 0)
    assert photos_laid_out(scored) == expected_photos("a", "b")
    assert len({row["batch_id"] for row in scored.rows("label_requests")}) == 1


def test_a_photo_moved_before_the_killed_run_is_repeated_does_not_come_back(scored: Bench) -> None:
    with killed_at(LocalEngine, "merge", after=1):
        scored.send()
    moved = next(scored.requests.rglob("*.jpg"))
    moved.rename(scored.answers / "002.hat" / moved.name)
    scored.send()
    assert len(photos_laid_out(scored)) == 1
    assert {row["status"] for row in scored.rows("label_requests")} == {"open"}


def test_killed_while_photos_are_written_the_batch_is_completed(scored: Bench) -> None:
    with killed_at(Path, "write_bytes", after=1):
        scored.send()
    assert [path.name[0] for path in scored.requests.iterdir()] == ["."]
    scored.send()
    assert photos_laid_out(scored) == expected_photos("a", "b")
    assert [path.name[0] for path in scored.requests.iterdir()] == ["v"]


def test_photos_come_in_chunks_of_bounded_size(scored: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, map_ = [], LocalEngine.map

    def counting(engine: LocalEngine, snapshot: Any, columns: Any, keys: Any, *rest: Any) -> Any:
        asked.append(keys.count())
        return map_(engine, snapshot, columns, keys, *rest)

    monkeypatch.setattr(LocalEngine, "map", counting)
    monkeypatch.setattr(module, "CHUNK_BYTES", 2 * len(photo("a")))
    scored.send(threshold=1.0)
    assert asked == [3, 2, 1], "compared, and then brought here"
    assert photos_laid_out(scored) == expected_photos("a", "b", "c")


def test_a_planned_request_whose_photo_has_gone_waits_and_stops_no_other(scored: Bench) -> None:
    with killed_at(FolderService, "send"):
        scored.send()
    scored.replace_photo(raw_image("other", "unlabeled/a.jpg"))
    scored.send()
    assert statuses(scored) == {"unlabeled/a.jpg": "planned", "unlabeled/b.jpg": "open"}


def test_a_planned_request_is_sent_with_the_same_bytes_under_another_path(scored: Bench) -> None:
    with killed_at(FolderService, "send"):
        scored.send()
    copies = ("unlabeled/copy.jpg", "unlabeled/b copy.jpg", "unlabeled/z.jpg")
    scored.add("raw_images", [raw_image(name, path) for name, path in zip("abb", copies, strict=True)])
    scored.replace_photo(raw_image("other", "unlabeled/a.jpg"))
    scored.send()
    assert statuses(scored) == {"unlabeled/copy.jpg": "open", "unlabeled/b.jpg": "open"}
    assert photos_laid_out(scored) == expected_photos("a", "b")


def test_a_place_that_cannot_be_written_is_said_and_the_plan_waits(scored: Bench) -> None:
    scored.requests.parent.mkdir(parents=True, exist_ok=True)
    scored.requests.write_text("a file where the folder should be")
    with pytest.raises(DlassetsError, match=r"labelling batch v3-\w{8} could not be written to .*requests"):
        scored.send()
    scored.requests.unlink()
    scored.send()
    assert photos_laid_out(scored) == expected_photos("a", "b")


def test_requests_close_when_an_accepted_answer_is_there_and_only_once(scored: Bench) -> None:
    scored.send()
    ids = {row["path"]: row["request_id"] for row in scored.rows("label_requests")}
    statuses = {"a": "accepted", "b": "refused"}
    answers = [{"request_id": ids[f"unlabeled/{name}.jpg"], "status": status} for name, status in statuses.items()]
    scored.add("human_labels", answers)
    before = {row["path"]: row for row in scored.rows("label_requests")}
    written = scored.close()
    assert (written.updated, written.inserted) == (1, 0)
    after = {row["path"]: row for row in scored.rows("label_requests")}
    closed_at = after["unlabeled/a.jpg"]["closed_at"]
    assert after["unlabeled/a.jpg"] == {**before["unlabeled/a.jpg"], "status": "answered", "closed_at": closed_at}
    assert closed_at > before["unlabeled/a.jpg"]["requested_at"]
    assert after["unlabeled/b.jpg"] == before["unlabeled/b.jpg"]
    again = scored.close()
    assert (again.changed, again.version) == (False, written.version)
    assert scored.send().changed is False


def take_labels(bench: Bench) -> dict[str, tuple[int, str, str]]:
    """Bring the labels in force up to date, and return them."""
    tables.take_labels(bench.engine, bench.lake, Settings())
    return {row["path"]: (row["label"], row["label_name"], row["source"]) for row in bench.rows("labeled_images")}


@pytest.mark.parametrize(("answer", "label"), [("010.t-shirt", 10), ("006.shirt", 6)])
def test_what_people_say_of_a_label_that_looked_wrong_is_in_force_and_not_asked_again(bench, answer, label) -> None:
    for name, folder in {"w": "006.shirt", "t": "010.t-shirt"}.items():
        row = raw_image(name, f"labeled/{folder}/{name}.jpg")
        bench.add("raw_images", [{**row, "landing": "labeled", "folder": folder}])
    assert take_labels(bench)["labeled/006.shirt/w.jpg"] == (6, "shirt", "folder")
    bench.add("label_errors", [doubted("w", 6, 0.01)])
    bench.send(relabel_limit=1)
    (request,) = bench.rows("label_requests")
    assert (request["strategy"], request["predicted_name"], request["confidence"]) == ("label_error", "t-shirt", 0.75)

    (laid_out,) = bench.requests.rglob("*.jpg")
    laid_out.rename(bench.answers / answer / laid_out.name)
    bench.collect()
    bench.close()

    assert take_labels(bench)["labeled/006.shirt/w.jpg"] == (label, answer[4:], "human")
    assert [row["status"] for row in bench.rows("label_requests")] == ["answered"]
    assert bench.send(relabel_limit=1).changed is False


def test_the_lake_is_all_under_its_root(scored: Bench, tmp_path: Path) -> None:
    scored.send()
    assert [path.name for path in tmp_path.iterdir()] == ["lake"]


def test_a_damaged_photo_is_not_sent_and_keeps_no_other_waiting(scored: Bench) -> None:
    scored.replace_photo({**raw_image("a"), "content": photo("a flipped bit")})
    first, again = scored.send(), scored.send()
    assert (first.inserted, first.left_out) == (2, 1)
    assert (again.changed, again.left_out) == (False, 1)
    assert statuses(scored) == {"unlabeled/a.jpg": "planned", "unlabeled/b.jpg": "open"}
    assert photos_laid_out(scored) == expected_photos("b")

    scored.replace_photo(raw_image("a"))
    mended = scored.send()

    assert (mended.updated, mended.left_out) == (1, 0)
    assert set(statuses(scored).values()) == {"open"}
    assert photos_laid_out(scored) == expected_photos("a", "b")
