"""Care of tables: small files together, nothing deleted that somebody needs, no version where nothing is to do."""

import os
import threading
from pathlib import Path
from typing import Any

import pytest

from dlassets.alerts.outbox import Alert, raise_alerts, read_alerts
from dlassets.engines import delta_log, local
from dlassets.engines.base import Commit, Engine
from dlassets.engines.delta_log import open_table
from dlassets.engines.local import LocalEngine
from dlassets.errors import ConflictError, DlassetsError
from dlassets.intake.ingest import ingest
from dlassets.lakehouse.history import missing_files
from dlassets.lakehouse.maintenance import Care, maintain, sweep_files
from dlassets.lakehouse.snapshots import (
    PROPERTIES,
    at_version,
    commits,
    evolve,
    files_of,
    pin,
    provenance_of,
    row_count,
    settled,
)
from dlassets.lakehouse.tables import ALERTS, IMAGE_PROFILES, LABELED_IMAGES, MODEL_EVENTS, PREDICTIONS, RAW_IMAGES
from dlassets.registry.events import Event, History, event_of, events_of, signed, write_events
from dlassets.registry.models import ModelVersion
from dlassets.settings import IngestSettings, MaintenanceSettings, Settings
from dlassets.storage.lake import Lake
from dlassets_tests.killing import overtaken_at
from dlassets_tests.tables import AT_ONCE, arrow, get, image_id, put

SETTINGS = MaintenanceSettings()


def prediction(name: str, confidence: float = 0.5) -> dict[str, Any]:
    return {"path": f"z/{name}.jpg", "image_id": image_id(name), "confidence": confidence}


def profile(name: str) -> dict[str, Any]:
    return {"image_id": image_id(name), "width": 40}


def put_many(engine: Engine, lake: Lake, table: str, *rows: dict[str, Any]) -> None:
    """Append each row in a commit, and so a file, of its own."""
    for row in rows:
        put(lake, table, row, engine=engine)


def parquet_files(lake: Lake, table: str) -> set[Path]:
    return set(Path(lake.table(table)).glob("**/*.parquet")) - set(Path(lake.table(table), "_delta_log").iterdir())


def log_versions(lake: Lake, table: str) -> list[int]:
    return sorted(int(file.name[:20]) for file in Path(lake.table(table), "_delta_log").glob("*.json"))


def test_small_files_become_one_and_nothing_is_deleted_before_its_time(engine, lake) -> None:
    put_many(engine, lake, "image_profiles", *map(profile, "abc"))
    before, rows = parquet_files(lake, "image_profiles"), get(engine, lake, "image_profiles")

    care = maintain(engine, lake, IMAGE_PROFILES, SETTINGS)

    files = care.files
    assert (files.files_before, files.files_after, files.files_deleted, files.bytes_deleted) == (3, 1, 0, 0)
    assert files.bytes_before == sum(file.stat().st_size for file in before)
    (new,) = parquet_files(lake, "image_profiles") - before
    assert files.bytes_after == new.stat().st_size
    assert care.changed
    assert get(engine, lake, "image_profiles") == rows
    earlier = at_version(pin(lake, "image_profiles"), 2)
    assert earlier is not None
    assert row_count(earlier) == 2


@pytest.mark.parametrize("table", ["image_profiles", "predictions"])
def test_a_table_that_needs_nothing_gets_no_new_version(local_engine, lake, table) -> None:
    row = {"image_profiles": profile, "predictions": prediction}[table]
    definition = {"image_profiles": IMAGE_PROFILES, "predictions": PREDICTIONS}[table]
    pin(lake, table)
    assert not maintain(local_engine, lake, definition, AT_ONCE).changed
    put_many(local_engine, lake, table, row("a"), row("b"))
    assert maintain(local_engine, lake, definition, AT_ONCE).changed
    version = pin(lake, table).version

    care = maintain(local_engine, lake, definition, AT_ONCE)

    assert (care.changed, care.z_ordered, pin(lake, table).version) == (False, False, version)


def test_files_grow_to_the_target_and_no_further(local_engine, lake) -> None:
    contents = [os.urandom(40_000) for _ in range(4)]
    photos = ({"path": f"z/{n}.jpg", "content": content, "length": 40_000} for n, content in enumerate(contents))
    put_many(local_engine, lake, "raw_images", *photos)
    one = max(file.stat().st_size for file in parquet_files(lake, "raw_images"))

    care = maintain(local_engine, lake, RAW_IMAGES, SETTINGS.model_copy(update={"target_file_bytes": one * 5 // 2}))

    assert (care.files.files_before, care.files.files_after) == (4, 2)
    found = get(local_engine, lake, "raw_images")
    assert sorted(row["content"] for row in found) == sorted(contents)


@pytest.mark.contract
def test_versions_that_are_needed_stay_and_others_go(engine, lake) -> None:
    put_many(engine, lake, "image_profiles", profile("a"))
    maintain(engine, lake, IMAGE_PROFILES, AT_ONCE)
    for name in "bcd":
        rows = engine.rows(arrow("image_profiles", profile(name)))
        engine.replace(rows, IMAGE_PROFILES, lake.table("image_profiles"), Commit())
    last = pin(lake, "image_profiles")

    care = maintain(engine, lake, IMAGE_PROFILES, AT_ONCE, needed=[last.version - 1, 99])

    assert (care.kept, care.lost) == ((last.version - 1,), (99,))
    assert care.files.files_deleted == 2
    assert care.files.bytes_deleted > 0
    there = [at_version(last, version) for version in range(last.version - 2, last.version + 1)]
    whole = {table.version: not missing_files(table) for table in there if table is not None}
    assert whole == {last.version - 2: False, last.version - 1: True, last.version: True}
    names = [row["image_id"] for row in engine.sql("SELECT * FROM t", {"t": at_version(last, 3)}).arrow().to_pylist()]
    assert names == [image_id("c")]


def test_nothing_is_deleted_where_a_needed_version_cannot_be_read_just_now(lake, local_engine) -> None:
    from deltalake.exceptions import DeltaError

    put_many(local_engine, lake, "image_profiles", profile("a"), profile("b"))
    maintain(local_engine, lake, IMAGE_PROFILES, SETTINGS)
    before = parquet_files(lake, "image_profiles")
    commit = Path(lake.table("image_profiles"), "_delta_log", f"{1:020}.json")
    open_table(lake.table("image_profiles")).create_checkpoint()
    commit.write_bytes(commit.read_bytes()[:-20])

    with pytest.raises(DeltaError):
        maintain(local_engine, lake, IMAGE_PROFILES, AT_ONCE, needed=[1])
    assert parquet_files(lake, "image_profiles") == before


def test_what_a_killed_write_left_goes_once_it_is_old_and_not_while_it_may_be_running(engine, lake) -> None:
    put_many(engine, lake, "image_profiles", profile("a"))
    old, young = (Path(lake.table("image_profiles"), f"part-{name}.parquet") for name in ("old", "young"))
    old.write_bytes(b"x" * 10)
    young.write_bytes(b"x")
    os.utime(old, (0, 0))

    care = maintain(engine, lake, IMAGE_PROFILES, SETTINGS)

    assert (care.files.files_deleted, care.files.bytes_deleted) == (1, 10)
    assert (old.exists(), young.exists()) == (False, True)


def test_the_log_is_cut_off_where_nothing_is_read_from_any_more(local_engine, lake) -> None:
    for number in range(25):
        commit = Commit({} if 15 <= number < 24 else {"n": number})
        put(lake, "image_profiles", profile(str(number)), engine=local_engine, commit=commit)
    rows = get(local_engine, lake, "image_profiles")
    needed = 23

    # Versions 16 to 24 say nothing of themselves: what version 23 was made of stands in commit 15.
    care = maintain(local_engine, lake, IMAGE_PROFILES, AT_ONCE, needed=[needed])

    assert care.log_files_deleted > 0
    assert log_versions(lake, "image_profiles")[0] == 9  # of the last checkpoint before that
    kept = at_version(pin(lake, "image_profiles"), needed)
    assert kept is not None
    assert local_engine.sql("SELECT COUNT(*) AS n FROM t", {"t": kept}).arrow()["n"].to_pylist() == [23]
    assert provenance_of(kept) == {"n": 14}
    assert get(local_engine, lake, "image_profiles") == rows
    put(lake, "image_profiles", profile("one more"), engine=local_engine)
    assert len(get(local_engine, lake, "image_profiles")) == 26


def test_neither_engine_cleans_the_log_by_itself(engine, lake) -> None:
    from deltalake import DeltaTable

    put_many(engine, lake, "image_profiles", profile("a"))
    DeltaTable(lake.table("image_profiles")).alter.set_table_properties(
        {"delta.logRetentionDuration": "interval 0 hours", "delta.checkpointInterval": "2"}
    )
    for name in "bcde":
        put(lake, "image_profiles", profile(name), engine=engine)

    assert list(Path(lake.table("image_profiles"), "_delta_log").glob("*.checkpoint.parquet"))
    assert log_versions(lake, "image_profiles") == list(range(pin(lake, "image_profiles").version + 1))


def test_a_table_of_an_older_release_stops_cleaning_its_log_by_itself(lake, local_engine) -> None:
    from deltalake import DeltaTable

    DeltaTable.create(lake.table("image_profiles"), schema=IMAGE_PROFILES.schema)

    care = maintain(local_engine, lake, IMAGE_PROFILES, SETTINGS)

    assert care.changed
    assert DeltaTable(lake.table("image_profiles")).metadata().configuration == PROPERTIES
    assert not maintain(local_engine, lake, IMAGE_PROFILES, SETTINGS).changed


def test_rows_are_laid_out_again_when_a_fifth_is_new(engine, lake) -> None:
    put(lake, "predictions", *(prediction(f"{n:04}") for n in range(2000)), engine=engine)
    put(lake, "predictions", *(prediction(f"{n:04}") for n in range(2000, 4000)), engine=engine)

    def care() -> Care:
        return maintain(engine, lake, PREDICTIONS, SETTINGS)

    assert care().z_ordered
    put(lake, "predictions", *(prediction(f"{n:04}") for n in range(4000, 4100)), engine=engine)
    small = care()
    assert (small.z_ordered, small.files.files_after) == (False, 1)
    put(lake, "predictions", *(prediction(f"{n:04}") for n in range(4100, 6000)), engine=engine)
    assert care().z_ordered
    # Another order is another layout.
    other = SETTINGS.model_copy(update={"z_order": {"predictions": ("image_id",)}})
    assert maintain(engine, lake, PREDICTIONS, other).z_ordered
    assert row_count(pin(lake, "predictions")) == 6000


def test_events_of_models_stay_as_they_are_and_go_on_while_their_files_are_put_together(engine, lake) -> None:
    def decide() -> None:
        def plan(history: History) -> list[Event]:
            model = ModelVersion("m", len(history.events) + 1, "a" * 64)
            return [*signed([event_of(model, "registered", "challenger", "trained")], "ann", "")]

        write_events(engine, lake, "m", plan, {})

    def care() -> Care:
        return maintain(engine, lake, MODEL_EVENTS, AT_ONCE)

    for _ in range(3):
        decide()
    before = events_of(engine, evolve(lake, MODEL_EVENTS), "m")

    assert (care().files.files_after, care().changed) == (1, False)
    assert events_of(engine, evolve(lake, MODEL_EVENTS), "m") == before
    decide()
    with overtaken_at(type(engine), "append", care):
        decide()

    events = events_of(engine, evolve(lake, MODEL_EVENTS), "m")
    assert [event.number for event in events] == [1, 2, 3, 4, 5]
    assert events[:3] == before
    assert len(files_of(evolve(lake, MODEL_EVENTS))) == 2


def test_alerts_are_sent_on_after_care(local_engine, lake) -> None:
    alerts = [Alert("run_failed", f"Run {number} failed", "it did", str(number)) for number in range(3)]
    for alert in alerts:
        raise_alerts(local_engine, lake, [alert])
    before = read_alerts(local_engine, lake, "waiting")

    assert maintain(local_engine, lake, ALERTS, AT_ONCE).files.files_after == 1
    assert read_alerts(local_engine, lake, "waiting") == before
    assert raise_alerts(local_engine, lake, [*alerts, Alert("run_failed", "Another", "it did", "3")]) == 1


def test_the_version_that_first_had_the_rows_is_found_behind_care_of_them(local_engine, lake) -> None:
    put_many(local_engine, lake, "image_profiles", *map(profile, "ab"))
    written = pin(lake, "image_profiles")
    maintain(local_engine, lake, IMAGE_PROFILES, AT_ONCE)
    now = pin(lake, "image_profiles")

    assert now.version > written.version
    assert settled(now) == written
    put(lake, "image_profiles", profile("c"), engine=local_engine)
    assert settled(pin(lake, "image_profiles")) == pin(lake, "image_profiles")


def test_a_merge_that_loses_to_care_alone_is_done_again(lake, monkeypatch) -> None:
    engine = LocalEngine()
    put_many(engine, lake, "predictions", prediction("a"), prediction("b"))
    uri, properties, times = lake.table("predictions"), local._commit_properties, []

    def care_in_between(commit: Commit) -> Any:
        times.append(1)
        if len(times) == 1:
            maintain(engine, lake, PREDICTIONS, AT_ONCE.model_copy(update={"retention_hours": 24}))
        return properties(commit)

    monkeypatch.setattr(local, "_commit_properties", care_in_between)

    written = engine.merge(engine.rows(arrow("predictions", prediction("a", 0.9))), PREDICTIONS, uri, Commit())

    assert (written.updated, written.inserted, len(times)) == (1, 0, 2)
    assert [row["confidence"] for row in get(engine, lake, "predictions")] == [0.9, 0.5]


def test_a_write_that_loses_to_another_write_is_not(lake, local_engine) -> None:
    put(lake, "predictions", prediction("a"), engine=local_engine)
    times = []

    def lose() -> None:
        times.append(1)
        put(lake, "predictions", prediction("b"), engine=local_engine)
        maintain(local_engine, lake, PREDICTIONS, SETTINGS)
        raise ConflictError("lost")

    with pytest.raises(ConflictError):
        delta_log.past_maintenance(lake.table("predictions"), lose)
    assert len(times) == 1


def test_care_that_loses_to_a_write_is_planned_again(engine, lake, monkeypatch) -> None:
    put_many(engine, lake, "image_profiles", *map(profile, "abc"))
    work, times = engine.maintain, []

    def lose_once(*arguments: Any, **options: Any) -> Any:
        times.append(1)
        if len(times) == 1:
            put(lake, "image_profiles", profile("d"), engine=engine)
            raise ConflictError("lost")
        return work(*arguments, **options)

    monkeypatch.setattr(engine, "maintain", lose_once)

    assert maintain(engine, lake, IMAGE_PROFILES, SETTINGS).files.files_before == 4
    assert len(get(engine, lake, "image_profiles")) == 4


def test_neither_care_nor_writes_break_while_both_go_on(lake) -> None:
    engine, uri = LocalEngine(), pin(lake, "labeled_images").uri
    problems: list[Exception] = []
    done = threading.Event()

    def write() -> None:
        try:
            for number in range(20):
                table = arrow("labeled_images", *({"path": path, "label": number} for path in ("same", f"z/{number}")))
                engine.merge(engine.rows(table), LABELED_IMAGES, uri, Commit({"n": number}))
        except Exception as error:  # noqa: BLE001 - shown below
            problems.append(error)
        done.set()

    writing = threading.Thread(target=write)
    writing.start()
    while not done.is_set():
        maintain(engine, lake, LABELED_IMAGES, SETTINGS)
    writing.join()

    assert problems == []
    found = {row["path"]: row["label"] for row in get(engine, lake, "labeled_images")}
    assert found == {"same": 19} | {f"z/{number}": number for number in range(20)}
    assert any(commit["operation"] == "OPTIMIZE" for commit in commits(pin(lake, "labeled_images")))


LATER = 2**32


def kept_photo(lake: Lake, name: str, written: int | None = None) -> dict[str, Any]:
    """Write a photo as a file of the lake, at a time or now, and return its row."""
    location = f"files/{image_id(name)[:2]}/{image_id(name)}"
    file = Path(lake.under(location))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(name.encode())
    if written is not None:
        os.utime(file, (written, written))
    return {"path": f"z/{name}.jpg", "image_id": image_id(name), "location": location}


def photos_of(lake: Lake) -> set[str]:
    return {file.name for file in Path(lake.files).glob("*/*")}


def test_photos_kept_as_files_go_once_no_version_that_is_needed_names_them(local_engine, lake) -> None:
    """Of photos that were replaced one after the other, the newest stays, and the one that a model needs."""
    uri = pin(lake, "raw_images").uri
    for name in ("first", "a model's", "newest"):
        rows = local_engine.rows(arrow("raw_images", kept_photo(lake, name)))
        version = local_engine.replace(rows, RAW_IMAGES, uri, Commit()).version
    kept_photo(lake, "unnamed")
    kept_photo(lake, "arriving", LATER)
    unfinished = Path(lake.files, "ab", ".photo-0123")
    unfinished.parent.mkdir(exist_ok=True)
    unfinished.write_bytes(b"cut")
    assert sweep_files(lake, 24) == (0, 0)
    assert sweep_files(lake, 0) == (2, len("unnamed") + len("cut"))  # every version is there still

    maintain(local_engine, lake, RAW_IMAGES, AT_ONCE, needed=[version - 1])

    assert sweep_files(lake, 0) == (1, len("first"))
    assert photos_of(lake) == {image_id(name) for name in ("a model's", "newest", "arriving")}
    assert sweep_files(lake, 0) == (0, 0)


def test_a_lake_that_keeps_no_photos_as_files_has_none_to_sweep(lake) -> None:
    assert sweep_files(lake, 0) == (0, 0)


def test_photos_outlive_their_table_that_was_moved_away(lake, tmp_path) -> None:
    put(lake, "raw_images", kept_photo(lake, "one", 1))
    Path(lake.table("raw_images")).rename(tmp_path / "away")
    pin(lake, "raw_images")

    assert sweep_files(lake, 0) == (0, 0)
    assert photos_of(lake) == {image_id("one")}


def test_a_damaged_file_of_the_table_stops_the_deletion_of_photos(lake) -> None:
    pin(lake, "raw_images")
    put(lake, "raw_images", kept_photo(lake, "one"))
    (damaged,) = parquet_files(lake, "raw_images")
    damaged.write_bytes(b"no parquet")

    with pytest.raises(DlassetsError, match="is damaged, so which photos it names cannot be told"):
        sweep_files(lake, 0)


def test_a_photo_that_comes_again_is_not_swept_before_it_has_its_row(lake, photos) -> None:
    pin(lake, "raw_images")
    photo = next(photos.glob("*/*")).read_bytes()
    ingested = Settings(root=lake.root, ingest=IngestSettings(storage="files"))
    zone = Path(lake.zone("labeled"), "001.one")
    zone.mkdir(parents=True)
    Path(lake.zone("unlabeled")).mkdir()
    (zone / "a.jpg").write_bytes(photo)
    ingest(LocalEngine(), lake, ingested, {})
    (kept,) = Path(lake.files).glob("*/*")
    os.utime(kept, (0, 0))
    (zone / "b.jpg").write_bytes(photo)
    ingest(LocalEngine(), lake, ingested, {})

    assert kept.stat().st_mtime > 0
