"""A database is made by one of those that ask at once, and one that was killed while it made it leaves nothing."""

import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from dlassets.storage.databases import make_once, rows_of

NAMES = ("one.db", "below/two.db")


def write(database: Path, *values: int) -> None:
    database.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("CREATE TABLE made (value INTEGER)")
        connection.executemany("INSERT INTO made VALUES (?)", [[value] for value in values])


def is_whole(database: Path) -> bool:
    return rows_of(database, "made") == 2


def make(folder: Path) -> None:
    for name in NAMES:
        write(folder / name, 1, 2)


def made(folder: Path) -> bool:
    return make_once(folder, NAMES, is_whole, make)


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.db*"))


def test_what_is_there_whole_is_left_and_the_rest_is_made(tmp_path) -> None:
    write(tmp_path / "one.db", 3, 4)
    before = (tmp_path / "one.db").stat().st_ino

    assert made(tmp_path)
    assert not made(tmp_path)
    assert names(tmp_path) == sorted(NAMES)
    assert (tmp_path / "one.db").stat().st_ino == before


def test_what_one_left_that_was_killed_after_it_was_done_is_deleted(tmp_path) -> None:
    assert made(tmp_path)
    (tmp_path / ".new-left").mkdir()
    write(tmp_path / ".new-left" / "one.db", 1)

    assert not made(tmp_path)
    assert names(tmp_path) == sorted(NAMES)


def test_a_half_made_one_is_replaced_and_its_journal_is_not_played_into_the_new_one(tmp_path) -> None:
    write(tmp_path / "one.db", 1)
    journal = tmp_path / "one.db-wal"
    journal.write_bytes(b"of the old one")

    assert made(tmp_path)
    assert is_whole(tmp_path / "one.db")
    assert names(tmp_path) == sorted(NAMES)


def test_one_of_many_at_once_makes_it(tmp_path) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(made, [tmp_path / "lake"] * 8)) == [False] * 7 + [True]


KILLED = """
import os, signal, sys
from pathlib import Path
from dlassets.storage.databases import make_once

def make(folder):
    (folder / "one.db").write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)

make_once(Path(sys.argv[1]), ["one.db"], Path.exists, make)
"""


def test_a_process_killed_while_it_makes_it_leaves_nothing_that_counts(tmp_path) -> None:
    assert subprocess.run([sys.executable, "-c", KILLED, tmp_path], check=False).returncode == -9
    assert not (tmp_path / "one.db").exists()
    assert names(tmp_path), "it was killed before it began"

    assert made(tmp_path)
    assert names(tmp_path) == sorted(NAMES)


def test_no_rows_are_counted_where_there_is_no_such_table_or_file_and_what_is_no_database_is_said(tmp_path) -> None:
    write(tmp_path / "one.db", 1)
    (tmp_path / "other").write_text("a text, and far more than a header of a hundred bytes " * 9)

    assert rows_of(tmp_path / "none.db", "made") == 0
    assert rows_of(tmp_path / "one.db", "others") == 0
    with pytest.raises(sqlite3.DatabaseError, match="not a database"):
        rows_of(tmp_path / "other", "made")
