"""Files written in one step: there whole or not at all, on a disk and in a bucket."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dlassets.storage.files import listed, read_whole, write_lines_where_changed, write_whole
from dlassets.storage.local_files import decode_path
from dlassets.storage.stores import cached_filesystem_of
from dlassets_tests.disk import disk_full_after
from dlassets_tests.storage.s3 import S3
from dlassets_tests.storage.test_local_files import NAMES


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_what_is_written_is_read_again_in_place_of_what_was_there(tmp_path: Path, scheme: str) -> None:
    place = f"{scheme}{tmp_path}/a new/folder/ü%20#?.gz"
    write_whole(place, b"longer than the next")

    write_whole(place, "as text: ü\r\n")

    assert read_whole(place) == "as text: ü\r\n".encode()
    assert [file.read_bytes() for file in tmp_path.rglob("*.gz")] == [read_whole(place)]
    assert len(list((tmp_path / "a new" / "folder").iterdir())) == 1


@pytest.mark.parametrize("name", NAMES)
def test_any_name_that_a_disk_takes_is_written(tmp_path: Path, name: bytes) -> None:
    write_whole(f"{tmp_path}/{decode_path(name)}", b"by its name as text")
    assert [os.fsencode(path.name) for path in tmp_path.iterdir()] == [name]
    assert read_whole(f"{tmp_path}/{decode_path(name)}") == b"by its name as text"

    write_whole(tmp_path / os.fsdecode(name), b"by its path")
    assert [os.fsencode(path.name) for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / os.fsdecode(name)).read_bytes() == b"by its path"


def test_others_may_read_it_as_any_file_and_start_it_where_that_is_meant(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"")
    write_whole(tmp_path / "whole", b"")
    write_whole(tmp_path / "program", "#!/bin/sh\n", executable=True)

    assert (tmp_path / "whole").stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert os.access(tmp_path / "program", os.X_OK)
    assert not os.access(tmp_path / "whole", os.X_OK)


def test_on_a_full_disk_the_old_file_stays_and_nothing_is_left_behind(tmp_path: Path) -> None:
    write_whole(tmp_path / "file", b"old")

    with disk_full_after(1000), pytest.raises(OSError, match="File too large"):
        write_whole(tmp_path / "file", b"x" * 5000)

    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"file": b"old"}


def test_lines_are_written_whole_and_once(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "a.jsonl"

    def broken() -> Iterator[bytes]:
        yield b"1\n"
        raise KeyError

    written = [write_lines_where_changed(str(path), lines) for lines in ([b"1\n", b"2\n"], [b"1\n2\n"], [b"1\n2\n3\n"])]
    with pytest.raises(KeyError):
        write_lines_where_changed(str(path), broken())
    with disk_full_after(3), pytest.raises(OSError, match="too large"):
        write_lines_where_changed(str(path), [b"1\n", b"2\n", b"4\n"])

    assert written == [True, False, True]
    assert [(each.name, each.read_bytes()) for each in path.parent.iterdir()] == [("a.jsonl", b"1\n2\n3\n")]


def test_who_reads_while_others_write_sees_one_whole_file(tmp_path: Path) -> None:
    contents = [bytes([number]) * 200_000 for number in range(4)]
    place = str(tmp_path / "file")
    write_whole(place, contents[0])

    def write_often(content: bytes) -> None:
        for _ in range(50):
            write_whole(place, content)

    writers = [threading.Thread(target=write_often, args=(content,)) for content in contents]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        assert read_whole(place) in contents
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_in_a_bucket_as_well_by_a_store_that_is_opened_once(s3: S3, bucket: str) -> None:
    for scheme in ("s3", "s3a"):
        write_whole(f"{scheme}://{bucket}/a/b ü%20#.gz", f"by {scheme}")
        assert read_whole(f"{scheme}://{bucket}/a/b ü%20#.gz") == f"by {scheme}".encode()

    assert s3.client.get_object(Bucket=bucket, Key="a/b ü%20#.gz")["Body"].read() == b"by s3a"
    (first, path), (second, _) = (cached_filesystem_of(f"s3://{bucket}/{name}") for name in ("a/b", "c"))
    assert first is second
    assert path == f"{bucket}/a/b"


def test_a_folder_that_others_make_meanwhile_is_listed(tmp_path: Path) -> None:
    import pyarrow.fs as pafs

    folder = tmp_path / "tables"
    ended = threading.Event()

    def come_and_go() -> None:
        while not ended.is_set():
            folder.mkdir()
            folder.rmdir()

    other = threading.Thread(target=come_and_go)
    other.start()
    try:
        seen = [listed(pafs.LocalFileSystem(), str(folder), recursive=True) for _ in range(5_000)]
    finally:
        ended.set()
        other.join()
    assert not any(seen)
