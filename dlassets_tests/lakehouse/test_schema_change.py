"""Tables that have fewer columns than they should, or more, or others: brought up, kept, refused."""

import threading
from typing import Any

import pytest

from dlassets.engines.base import Commit, Engine
from dlassets.errors import ConflictError, DlassetsError
from dlassets.lakehouse import snapshots
from dlassets.lakehouse.snapshots import evolve, pin
from dlassets.lakehouse.tables import CAPTURE, IMAGE_PROFILES, PREDICTIONS, RAW_IMAGES, TABLES, raw_images_with
from dlassets.storage.lake import Lake
from dlassets_tests.killing import killed_at
from dlassets_tests.tables import NOON, arrow, get, image_id, put

PHOTO = {"path": "z/a.jpg", "content": b"a", "image_id": image_id("a"), "landing": "z", "length": 1}


def make(lake: Lake, table: str, without: tuple[str, ...] = (), **others: Any) -> None:
    """Create a table as another release or tool would: without some columns, and with others (Arrow types)."""
    import pyarrow as pa
    from deltalake import DeltaTable

    fields = [field for field in TABLES[table].schema if field.name not in (*without, *others)]
    further = [type_ if isinstance(type_, pa.Field) else pa.field(name, type_) for name, type_ in others.items()]
    DeltaTable.create(
        lake.table(table), schema=pa.schema([*fields, *further]), partition_by=list(TABLES[table].partition_by)
    )


def columns(lake: Lake, table: str) -> list[str]:
    from deltalake import DeltaTable

    return [field.name for field in DeltaTable(lake.table(table)).schema().fields]


def raw_rows(engine: Engine, **values: Any) -> Any:
    import pyarrow as pa

    row = {"modificationTime": NOON, "load_date": NOON.date(), "batch_id": "z-0", **PHOTO, **values}
    table = raw_images_with([column.name for column in CAPTURE])
    return engine.rows(pa.Table.from_pylist([row], schema=table.schema)), table


def test_an_old_table_gets_the_columns_it_lacks_and_its_rows_have_null_there(engine, lake) -> None:
    import pyarrow as pa
    from deltalake import write_deltalake

    make(lake, "image_profiles", without=("perceptual_hash", "sharpness"))
    old = {name: [None] for name in IMAGE_PROFILES.names if name not in ("perceptual_hash", "sharpness")}
    old_schema = pa.schema([IMAGE_PROFILES.schema.field(name) for name in old])
    write_deltalake(
        lake.table("image_profiles"), pa.table(old | {"image_id": [image_id("old")]}, schema=old_schema), mode="append"
    )

    put(lake, "image_profiles", {"image_id": image_id("new"), "perceptual_hash": 7, "sharpness": 0.5}, engine=engine)

    found = {row["image_id"]: row for row in get(engine, lake, "image_profiles")}
    assert found[image_id("old")]["perceptual_hash"] is None
    assert (found[image_id("new")]["perceptual_hash"], found[image_id("new")]["sharpness"]) == (7, 0.5)
    assert pin(lake, "image_profiles").version == 3  # made, written, extended once, written


def test_a_table_as_it_should_be_gets_no_new_version(lake) -> None:
    pin(lake, "raw_images")
    assert pin(lake, "raw_images").version == 0

    assert evolve(lake, raw_images_with(["camera", "taken_at"])).version == 1
    assert evolve(lake, raw_images_with(["camera", "taken_at"])).version == 1
    assert pin(lake, "raw_images").version == 1
    assert columns(lake, "raw_images") == [*RAW_IMAGES.names, "taken_at", "camera"]


def test_columns_of_a_setting_are_filled_while_it_is_on_and_null_when_it_is_off(engine, lake) -> None:
    put(lake, "raw_images", PHOTO, engine=engine)
    uri = evolve(lake, raw_images_with([column.name for column in CAPTURE])).uri
    rows, wide = raw_rows(engine, path="z/b.jpg", camera="Box", latitude=1.5, taken_at=NOON)
    engine.append(rows, wide, uri, Commit())
    put(lake, "raw_images", PHOTO | {"path": "z/c.jpg"}, engine=engine)

    found = get(engine, lake, "raw_images", "path, camera, latitude, taken_at, load_date, content")
    assert [(row["path"], row["camera"], row["latitude"], row["taken_at"]) for row in found] == [
        ("z/a.jpg", None, None, None),
        ("z/b.jpg", "Box", 1.5, NOON),
        ("z/c.jpg", None, None, None),
    ]
    assert {row["load_date"] for row in found} == {NOON.date()}

    rows, wide = raw_rows(engine, camera="Kodak")
    engine.replace(rows, wide, uri, Commit(), where={"path": ["z/a.jpg"]})
    rows, _ = raw_rows(engine, path="z/b.jpg")
    engine.replace(rows, RAW_IMAGES, uri, Commit(), where={"path": ["z/b.jpg"]})
    found = get(engine, lake, "raw_images", "path, camera")
    assert [row["camera"] for row in found] == ["Kodak", None, None]
    engine.replace(rows, RAW_IMAGES, uri, Commit())
    assert columns(lake, "raw_images")[-4:] == [column.name for column in CAPTURE]
    assert get(engine, lake, "raw_images", "path, camera") == [{"path": "z/b.jpg", "camera": None}]


@pytest.mark.contract
def test_a_column_added_upstream_is_kept_by_a_merge_and_null_in_new_rows(engine, lake) -> None:
    import pyarrow as pa
    from deltalake import DeltaTable

    make(lake, "predictions", reviewed=pa.string())
    row = {"path": "z/a.jpg", "image_id": image_id("a"), "model_name": "m", "model_version": 1}
    put(lake, "predictions", row, engine=engine)
    DeltaTable(lake.table("predictions")).update({"reviewed": "'by hand'"})
    merged = arrow("predictions", *(row | {"path": path, "confidence": 0.75} for path in ("z/a.jpg", "z/b.jpg")))

    written = engine.merge(engine.rows(merged), PREDICTIONS, lake.table("predictions"), Commit())

    assert (written.inserted, written.updated) == (1, 1)
    found = get(engine, lake, "predictions", "path, confidence, reviewed")
    assert [tuple(row.values()) for row in found] == [("z/a.jpg", 0.75, "by hand"), ("z/b.jpg", 0.75, None)]


@pytest.mark.spark
@pytest.mark.slow
def test_a_column_that_spark_added_is_known_to_the_embedded_engine_and_back(local_engine, spark_engine, lake) -> None:
    put(lake, "image_profiles", {"image_id": image_id("a")}, engine=local_engine)
    uri = lake.table("image_profiles")
    spark_engine.session.sql(f"ALTER TABLE delta.`file://{uri}` ADD COLUMNS (mood STRING)")

    put(lake, "image_profiles", {"image_id": image_id("b")}, engine=local_engine)
    put(lake, "image_profiles", {"image_id": image_id("c")}, engine=spark_engine)
    spark_engine.session.sql(f"UPDATE delta.`file://{uri}` SET mood = 'glad' WHERE image_id = '{image_id('b')}'")

    found = [get(engine, lake, "image_profiles", "image_id, mood") for engine in (local_engine, spark_engine)]
    assert found[0] == found[1]
    moods = {row["image_id"]: row["mood"] for row in found[0]}
    assert moods == {image_id("a"): None, image_id("b"): "glad", image_id("c"): None}


@pytest.mark.parametrize(
    ("name", "type_", "nullable", "message"),
    [
        ("perceptual_hash", "double", True, r"perceptual_hash of table .* is of type double .* must be bigint"),
        ("Sharpness", "double", True, r"has a column Sharpness, which Spark does not tell from sharpness"),
        ("owner", "string", False, r"further column owner that is NOT NULL"),
        ("perceptual_hash", "int64", False, r"perceptual_hash of table image_profiles is NOT NULL there"),
    ],
)
def test_what_cannot_be_brought_together_is_refused_before_any_write(lake, name, type_, nullable, message) -> None:
    import pyarrow as pa

    # One column is lacking as well: it must not be added on the way to the refusal.
    odd = pa.field(name, pa.type_for_alias(type_), nullable=nullable)
    make(lake, "image_profiles", without=("mode", "sharpness"), **{name: odd})

    for _ in range(2):
        with pytest.raises(DlassetsError, match=message):
            pin(lake, "image_profiles")

    assert "mode" not in columns(lake, "image_profiles")


def test_types_are_compared_through_lists_and_structs(lake) -> None:
    import pyarrow as pa

    make(lake, "predictions", top_k=pa.list_(pa.struct([("label", pa.int32()), ("name", pa.string())])))

    with pytest.raises(DlassetsError, match=r"array<struct<label:int,name:string>> there, and must be array<struct<la"):
        pin(lake, "predictions")


def test_of_two_runs_that_add_the_same_column_one_plans_again(lake, monkeypatch) -> None:
    pin(lake, "raw_images")
    table = raw_images_with(["camera"])
    both_looked = threading.Barrier(2, timeout=20)
    add = snapshots._add
    conflicts: list[int] = []

    def add_together(*arguments: Any) -> None:
        if not both_looked.broken and not conflicts:
            both_looked.wait()
        try:
            add(*arguments)
        except ConflictError:
            conflicts.append(1)
            raise

    monkeypatch.setattr(snapshots, "_add", add_together)
    found: list[int] = []
    runs = [threading.Thread(target=lambda: found.append(evolve(lake, table).version)) for _ in range(2)]
    for run in runs:
        run.start()
    for run in runs:
        run.join(30)

    assert (found, conflicts) == ([1, 1], [1])
    assert columns(lake, "raw_images") == [*RAW_IMAGES.names, "camera"]


def test_a_run_killed_before_its_columns_are_committed_leaves_the_table_as_it_was(engine, lake) -> None:
    put(lake, "raw_images", PHOTO, engine=engine)

    table = raw_images_with(["camera", "latitude"])
    with killed_at(snapshots, "_add"):
        evolve(lake, table)
    assert pin(lake, "raw_images").version == 1

    evolve(lake, table)
    assert get(engine, lake, "raw_images", "path, camera") == [{"path": "z/a.jpg", "camera": None}]
