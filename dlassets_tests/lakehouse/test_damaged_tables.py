"""A table of which a file is gone, cut short or another's: one error that names it and says what to do."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest

from dlassets.engines import columns, delta_log
from dlassets.engines.base import Commit, Engine
from dlassets.engines.local import LocalEngine
from dlassets.errors import ConflictError, DlassetsError
from dlassets.intake.damage import damaged
from dlassets.lakehouse.photos import Photos
from dlassets.lakehouse.snapshots import pin
from dlassets.lakehouse.tables import LABELED_IMAGES
from dlassets.storage.databases import explained_databases
from dlassets.storage.lake import Lake
from dlassets_tests.flipping import flip_footer
from dlassets_tests.pipelines import Pipelines, failures
from dlassets_tests.programs import invoke
from dlassets_tests.tables import arrow, image_id, labelled, put

Fault = Callable[[Path], object]


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-20])


FAULTS: dict[str, Fault] = {
    "gone": Path.unlink,
    "empty": lambda file: file.write_bytes(b""),
    "cut short": cut,
    "another's": lambda file: file.write_bytes(os.urandom(2000)),
    "flipped": flip_footer,
}


@pytest.fixture
def table(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A table of four commits, each with a data file, as another process finds it."""
    for number in range(4):
        name = str(number)
        put(lake, "raw_images", {"path": f"z/{name}.jpg", "image_id": image_id(name), "content": name.encode()})
    for known in (columns._lately, delta_log._held, delta_log._newest):
        known.clear()
    return Path(lake.table("raw_images"))


def read(lake: Lake, engine: Engine | None = None, table: str = "raw_images") -> None:
    (engine or LocalEngine()).sql("SELECT path FROM photos", {"photos": pin(lake, table)}).arrow()


def read_bytes(lake: Lake) -> None:
    damaged(Photos(LocalEngine(), lake, pin(lake, "raw_images")), [f"z/{number}.jpg" for number in range(4)])


@pytest.mark.parametrize("reads", [read, read_bytes])
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_a_data_file_that_is_gone_or_damaged_is_said(lake, table, reads, fault) -> None:
    fault(min(table.glob("*/*.parquet")))

    with pytest.raises(
        DlassetsError,
        match=r"data file of raw_images is gone or damaged: .*part-.*dlassets restore raw_images --version",
    ):
        reads(lake)


@pytest.mark.parametrize(
    ("place", "fault"), [(0, "gone"), (2, "gone"), (0, "cut short"), (3, "cut short"), (1, "another's")]
)
def test_a_log_with_a_gap_or_a_damaged_commit_is_said(lake, table, place, fault) -> None:
    FAULTS[fault](sorted(table.glob("_delta_log/*.json"))[place])

    with pytest.raises(DlassetsError, match=r"log of the table at .*raw_images cannot be read: .*from a copy"):
        read(lake)
    said = invoke("history", "raw_images", DLASSETS_ROOT=lake.root)
    assert said.exit_code == 1
    assert said.output.startswith("error: The log of the table at")


def read_labels(lake: Lake, engine: Engine) -> None:
    read(lake, engine, "labeled_images")


def merge(lake: Lake, engine: Engine) -> None:
    rows = engine.rows(arrow("labeled_images", labelled("0", 2), labelled("1", 2)))
    engine.merge(rows, LABELED_IMAGES, lake.table("labeled_images"), Commit())


def compact(lake: Lake, engine: Engine) -> None:
    engine.maintain(LABELED_IMAGES, lake.table("labeled_images"))


@pytest.fixture
def labels(lake: Lake) -> Path:
    """Two data files."""
    for number in range(2):
        put(lake, "labeled_images", labelled(str(number), 1))
    return Path(lake.table("labeled_images"))


def said_of_damage(lake: Lake, engine: Engine, labels: Path, fault: Fault) -> None:
    file = min(labels.glob("*.parquet"))
    fault(file)

    for use in (read_labels, merge, compact):
        with pytest.raises(
            DlassetsError,
            match=rf"^A data file of labeled_images is gone or damaged: .*{file.name}.*dlassets restore labeled_images",
        ):
            use(lake, engine)


def test_it_is_said_alike_by_either_engine_of_a_read_a_merge_and_maintenance(lake, engine, labels) -> None:
    said_of_damage(lake, engine, labels, FAULTS["gone"])


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["empty", "cut short", "another's", "flipped"])
def test_so_it_is_of_every_damage(lake, engine, labels, fault) -> None:
    said_of_damage(lake, engine, labels, FAULTS[fault])


@pytest.mark.slow
@pytest.mark.spark
def test_what_spark_alone_finds_in_a_log_is_said_as_the_rest_is(lake, spark_engine) -> None:
    for number in range(2):
        put(lake, "labeled_images", labelled(str(number), 1), engine=spark_engine)
    pinned, log = pin(lake, "labeled_images"), Path(lake.table("labeled_images"), "_delta_log")
    commit = log / f"{1:020}.json"
    commit.write_text(commit.read_text().replace("WRITE", "write"))  # its checksum is in a file beside it

    with pytest.raises(DlassetsError, match=r"^The log of the table at .*labeled_images cannot be read: .*from a copy"):
        spark_engine.sql("SELECT path FROM photos", {"photos": pinned}).arrow()

    shutil.rmtree(log)
    with pytest.raises(DlassetsError, match=r"^The log of the table at .*labeled_images cannot be read: .*from a copy"):
        spark_engine.sql("SELECT path FROM photos", {"photos": pinned}).arrow()


@pytest.mark.spark
@pytest.mark.parametrize(
    ("said", "kind", "message"),
    [
        (
            "An error occurred while calling o1.save.\n: org.apache.spark.SparkException: Job aborted.\n"  # noqa: ISC004
            "\tat org.apache.spark.Some.thing(Some.scala:7)\nCaused by: java.io.IOException: No space left on device",
            DlassetsError,
            "^/lake/tables/x could not be written: No space left on device. Check that the place .* Then run again",
        ),
        (
            "[DELTA_CONCURRENT_APPEND.WITHOUT_HINT] Files were added by a concurrent update.",
            ConflictError,
            "^Another run changed /lake/tables/x at the same moment",
        ),
    ],
)
def test_spark_s_pages_are_one_line_of_ours(said, kind, message) -> None:
    from pyspark.errors import PySparkException

    from dlassets.engines.spark import explained_spark

    with pytest.raises(kind, match=message), explained_spark("/lake/tables/x"):
        raise PySparkException(said)


@pytest.mark.spark
def test_rows_that_pyspark_has_no_room_to_hand_over_are_said() -> None:
    from dlassets.engines.spark import explained_spark

    with pytest.raises(DlassetsError, match=r"in spark.local.dir .*No space left"), explained_spark():
        raise OSError(28, "No space left on device")


@pytest.mark.spark
def test_what_nothing_is_known_of_in_spark_s_pages_is_raised_as_it_is() -> None:
    from pyspark.errors import PySparkException

    from dlassets.engines.spark import explained_spark

    with pytest.raises(PySparkException, match="another"), explained_spark():
        raise PySparkException("[DELTA_REPLACE_WHERE_MISMATCH] another")


@pytest.mark.parametrize("place", [2, 4])
def test_a_commit_that_a_power_cut_emptied_is_said_and_not_read_as_no_change(lake, table, place) -> None:
    sorted(table.glob("_delta_log/*.json"))[place].write_bytes(b"")

    with pytest.raises(DlassetsError, match=rf"log of the table at .*raw_images .*: 0+{place}.json is empty"):
        read(lake)


def test_an_emptied_commit_from_before_a_checkpoint_keeps_nobody_from_the_rows(lake, table) -> None:
    delta_log.open_table(str(table)).create_checkpoint()
    commits = sorted(table.glob("_delta_log/*.json"))
    commits[2].write_bytes(b"")

    read(lake)
    with pytest.raises(DlassetsError, match=r"0002\.json"):
        list(delta_log.commits(str(table), 4))


def test_a_table_whose_log_is_gone_is_not_made_anew_over_its_data(lake, table) -> None:
    shutil.rmtree(table / "_delta_log")

    with pytest.raises(DlassetsError, match=r"log of the table at .*raw_images .*there are data files, and no commit"):
        read(lake)
    assert not (table / "_delta_log").exists()


def test_a_table_that_another_run_has_just_made_has_not_lost_its_log(table) -> None:
    delta_log.refuse_lost_log(str(table))


def test_a_run_of_dagster_says_it_as_well(empty: Pipelines) -> None:
    for number in range(3):
        put(empty.lake, "labeled_images", labelled(str(number), 1))
    cut(sorted(Path(empty.lake.table("labeled_images"), "_delta_log").glob("*.json"))[1])
    for known in (columns._lately, delta_log._held, delta_log._newest):
        known.clear()

    (said,) = failures(empty.run_only(dg.AssetSelection.assets("labeled_images"))).values()

    assert said.startswith("DlassetsError: dlassets.errors.DlassetsError: The log of the table at")


@pytest.mark.parametrize(
    ("said", "remedy"),
    [
        ("(sqlite3.OperationalError) database is locked [SQL: …]", "Another process is writing to it"),
        ("(sqlite3.OperationalError) attempt to write a readonly database", "Look at whose"),
        ("(sqlite3.DatabaseError) file is not a database", "from a copy"),
        ("(sqlite3.OperationalError) database or disk is full", "Make room"),
    ],
)
def test_what_sqlite_says_through_others_is_said_with_the_remedy(said, remedy) -> None:
    with pytest.raises(DlassetsError, match=f"cannot be used: .*{remedy}"), explained_databases():
        raise RuntimeError("MLflow failed") from OSError(said)


def test_what_nothing_is_known_of_is_raised_as_it_is() -> None:
    with pytest.raises(RuntimeError, match=r"^another$"), explained_databases():
        raise RuntimeError("another")
