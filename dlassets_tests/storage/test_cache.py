import os
from pathlib import Path

import pytest

from dlassets.storage.cache import cache_path, is_whole, keep_file, keep_folder


def test_the_cache_lies_where_the_user_s_caches_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert cache_path("a", "b") == tmp_path / ".cache" / "dlassets" / "a" / "b"

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    assert cache_path() == tmp_path / "caches" / "dlassets"


def test_a_folder_is_kept_whole_and_the_first_one_stays(tmp_path: Path) -> None:
    def fill(text: str, folder: Path) -> None:
        folder.mkdir()
        (folder / "one").write_text(text)
        assert not (tmp_path / "kept" / "two").exists()
        (folder / "two").write_text(text)

    def fail(folder: Path) -> None:
        fill("never", folder)
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        keep_folder(tmp_path / "kept", fail)
    assert list(tmp_path.iterdir()) == []

    keep_folder(tmp_path / "kept", lambda folder: fill("first", folder))
    keep_folder(tmp_path / "kept", Path.mkdir)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert {path.name: path.read_text() for path in (tmp_path / "kept").glob("[!.]*")} == {
        "one": "first",
        "two": "first",
    }


def test_of_files_those_that_were_written_last_are_kept(tmp_path: Path) -> None:
    for age, name in enumerate(("one", "two", "three", "two")):
        keep_file(tmp_path / name, name.encode() * age, 2)
        os.utime(tmp_path / name, (age, age))

    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"three": "threethree", "two": "twotwotwo"}


@pytest.mark.parametrize("damage", ["other bytes", None, "a file more"])
def test_a_folder_that_is_damaged_is_known_and_made_anew(tmp_path: Path, damage: str | None) -> None:
    def fill(folder: Path) -> None:
        folder.mkdir()
        (folder / "one").write_text("whole")

    kept = tmp_path / "kept"
    assert not is_whole(kept)
    keep_folder(kept, fill)
    assert is_whole(kept)
    if damage is None:
        (kept / "one").unlink()
    else:
        (kept / ("two" if "more" in damage else "one")).write_text(damage)

    assert not is_whole(kept)
    keep_folder(kept, fill)

    assert is_whole(kept)
    assert (kept / "one").read_text() == "whole"
    assert list(tmp_path.iterdir()) == [kept]
