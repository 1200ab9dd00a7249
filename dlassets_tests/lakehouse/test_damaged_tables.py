"""A table of which a file is gone, cut short or another's: one error that names it and says what to do."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from dlassets.engines import columns, delta_log
from dlassets.engines.local import LocalEngine
from dlassets.errors import DlassetsError
from dlassets.intake.damage import damaged, photos_of
from dlassets.lakehouse.snapshots import pin
from dlassets.storage.databases import explained_databases
from dlassets.storage.lake import Lake
from dlassets_tests.programs import invoke
from dlassets_tests.tables import image_id, put

Fault = Callable[[Path], object]


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-20])


FAULTS = {
    "gone": Path.unlink,
    "empty": lambda file: file.write_bytes(b""),
    "cut short": cut,
    "another's": lambda file: file.write_bytes(os.urandom(2000)),
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


def read(lake: Lake) -> None:
    LocalEngine().sql("SELECT path FROM photos", {"photos": pin(lake, "raw_images")}).arrow()


def read_bytes(lake: Lake) -> None:
    damaged(photos_of(LocalEngine(), lake), [f"z/{number}.jpg" for number in range(4)])


@pytest.mark.parametrize("reads", [read, read_bytes])
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_a_data_file_that_is_gone_or_damaged_is_said(lake, table, reads, fault) -> None:
    fault(min(table.glob("*/*.parquet")))

    with pytest.raises(
        DlassetsError, match=r"data file of raw_images is gone or damaged: .*part-.*dlassets restore raw_images --version"
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
