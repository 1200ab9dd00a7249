import os
import shutil
import socket
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlassets.storage.local_files import Links, decode_path, encode_path, list_local

NAMES = [
    name.encode() if isinstance(name, str) else name
    for name in (
        "a photo.jpg",
        " leading and trailing ",
        unicodedata.normalize("NFC", "café.jpg"),
        unicodedata.normalize("NFD", "café.jpg"),
        "写真 📷.jpg",
        "100%.jpg",
        "caf%C3%A9.jpg",
        "caf%E9.jpg",
        "a#b?c&d=e.jpg",
        'it\'s "quoted" `so`.jpg',
        "two\nlines.jpg",
        "tab\tand\rreturn.jpg",
        "back\\slash.jpg",
        "*[a-z]{1,2}.jpg",
        "-rf.jpg",
        "~.jpg",
        "no extension",
        "é" * 127 + "x",  # 255 bytes
        "x" * 255,
        "0.5‰ of it.jpg",
        "‰E9.jpg",
        "‰‰E9‰80‰7F.jpg",
        "\ufffd.jpg",
        b"caf\xe9.jpg",
        b"caf\xc3.jpg",
        b"\xff\xfe\x80\x81",
        b"\xed\xb2\x80.jpg",  # half a surrogate pair, as some systems write it
        "‰".encode() + b"\xe9",
    )
]


def tree(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    return folder


def names(folder: Path | str, failed: list[OSError] | None = None, allowed: tuple[str, ...] = ()) -> list[str]:
    return sorted(path for path, *_ in list_local(str(folder), [] if failed is None else failed, allowed))


def test_a_file_has_its_path_its_time_to_the_nanosecond_and_its_size(tmp_path):
    tree(tmp_path, "top.jpg", "001.a/one.jpg", "001.a/deep/two.jpg")
    os.utime(tmp_path / "top.jpg", ns=(1, 1_700_000_000_123_456_789))

    found = {path: (time, size) for path, time, size, _ in list_local(str(tmp_path), [])}

    assert found.keys() == {"top.jpg", "001.a/one.jpg", "001.a/deep/two.jpg"}
    assert found["top.jpg"] == (1_700_000_000_123_456_789, 7)
    assert found["001.a/deep/two.jpg"][1] == len("001.a/deep/two.jpg")
    assert names(f"{tmp_path}/") == names(tmp_path)


def test_it_finds_what_arrow_finds(photos):
    import pyarrow.fs as pafs

    infos = pafs.LocalFileSystem().get_file_info(pafs.FileSelector(str(photos), recursive=True))
    expected = [
        (os.path.relpath(i.path, photos), i.mtime_ns, i.size, None) for i in infos if i.type == pafs.FileType.File
    ]

    assert sorted(list_local(str(photos), [])) == sorted(expected)


def test_odd_names_of_files_and_folders_come_as_text_and_lead_back_to_the_file(tmp_path):
    import pyarrow as pa

    expected = set()
    for name in NAMES:
        for path in (name, b"d" + name[:254] + b"/" + name):
            file = tmp_path / os.fsdecode(path)
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(path)
            expected.add(path)

    listed = [path for path, *_ in list_local(str(tmp_path), [])]

    assert pa.array(listed, pa.string()).to_pylist() == listed
    assert {encode_path(path) for path in listed} == expected
    for path in map(encode_path, listed):
        assert (tmp_path / os.fsdecode(path)).read_bytes() == path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("café 100% ‰.jpg".encode(), "café 100% ‰.jpg"),
        (b"caf\xe9.jpg", "caf‰E9.jpg"),
        ("‰E9".encode(), "‰E2‰80‰B0E9"),
        ("‰7F ‰e9".encode(), "‰7F ‰e9"),
    ],
)
def test_only_what_is_no_text_is_written_otherwise(name, text):
    assert decode_path(name) == text
    assert encode_path(text) == name


@given(st.lists(st.one_of(st.binary(max_size=6), st.sampled_from(["‰".encode(), b"E9", b"80", b"\xe2\x80"]))))
def test_every_name_comes_back_as_it_was(parts):
    name = b"".join(parts)

    assert encode_path(decode_path(name)) == name
    decode_path(name).encode()  # text that every table takes


@given(st.text(st.characters(exclude_characters="‰", exclude_categories=["Cs"])))
def test_text_is_carried_as_it_is(text):
    assert decode_path(text.encode()) == text


def test_hidden_names_are_left_out_and_hidden_folders_not_entered(tmp_path, monkeypatch):
    tree(tmp_path, ".hidden", "_SUCCESS", "_temporary/0/part.jpg", ".git/a.jpg", "a/_b/c.jpg", "a/.d.jpg", "a/e_.jpg")
    entered, scandir = [], os.scandir

    def watched(path):
        entered.append(Path(path).name)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", watched)

    assert names(tmp_path) == ["a/e_.jpg"]
    assert entered == [tmp_path.name, "a"]


def test_links_to_files_and_folders_are_followed(tmp_path):
    tree(tmp_path, "archive/cats/1.jpg", "zone/own/2.jpg")
    (tmp_path / "zone/one.jpg").symlink_to("../archive/cats/1.jpg")
    (tmp_path / "zone/001.cats").symlink_to(tmp_path / "archive/cats")
    (tmp_path / "zone/again").symlink_to(tmp_path / "archive/cats")
    (tmp_path / "door").symlink_to("zone")

    expected = ["001.cats/1.jpg", "again/1.jpg", "one.jpg", "own/2.jpg"]
    allowed = (str(tmp_path / "archive"),)
    assert names(tmp_path / "zone", allowed=allowed) == expected
    assert names(tmp_path / "door", allowed=allowed) == expected


def test_links_that_lead_where_they_may_not_are_named_and_not_followed(tmp_path):
    tree(tmp_path, "archive/1.jpg", "zone/own/2.jpg", "zones/3.jpg")
    zone = tmp_path / "zone"
    (zone / "one.jpg").symlink_to("../archive/1.jpg")
    (zone / "all").symlink_to(tmp_path / "archive")
    (zone / "near").symlink_to(tmp_path / "zones")
    (zone / "own/again.jpg").symlink_to("2.jpg")
    archive = tmp_path / "archive"

    found = {path: leads_to for path, _, _, leads_to in list_local(str(zone), [])}

    assert found == {
        "own/2.jpg": None,
        "own/again.jpg": None,
        "one.jpg": f"{archive}/1.jpg",
        "all": f"{archive}/",
        "near": f"{tmp_path}/zones/",
    }
    links = Links(str(zone))
    listed = {path: (time, size, leads_to) for path, time, size, leads_to in list_local(str(zone), [])}
    assert {path: links.state(f"{zone}/{path}") for path in ("one.jpg", "own/2.jpg", "own/again.jpg")} == {
        path: listed[path] for path in ("one.jpg", "own/2.jpg", "own/again.jpg")
    }
    assert links.state(f"{zone}/all") == listed["all"]
    beyond = links.state(f"{zone}/all/1.jpg")
    assert beyond is not None
    assert beyond[2] == f"{archive}/1.jpg"
    assert links.state(f"{zone}/a\0b.jpg") is None


def test_a_link_to_the_processes_of_the_machine_ends_at_once(tmp_path):
    tree(tmp_path, "zone/1.jpg")
    (tmp_path / "zone/self").symlink_to("/proc/self")
    (tmp_path / "zone/root").symlink_to("/proc/self/root")
    (tmp_path / "zone/zero").symlink_to("/dev/zero")

    assert names(tmp_path / "zone") == ["1.jpg", "root", "self"]


def test_folders_that_all_link_to_each_other_are_listed_once_a_link(tmp_path):
    folders = [f"{number:02}" for number in range(12)]
    for folder in folders:
        tree(tmp_path, f"{folder}/1.jpg")
        for other in folders:
            (tmp_path / folder / f"to {other}").symlink_to(f"../{other}")

    assert len(names(tmp_path)) == 12 + 12 * 11


def test_links_never_lead_in_circles(tmp_path):
    tree(tmp_path, "zone/a/1.jpg", "zone/b/2.jpg", "outside/3.jpg")
    zone = tmp_path / "zone"
    (zone / "self").symlink_to("self")
    (zone / "a/here").symlink_to(".")
    (zone / "a/up").symlink_to("..")
    (zone / "a/b").symlink_to("../b")
    (zone / "b/a").symlink_to("../a")
    (zone / "out").symlink_to(tmp_path / "outside")
    (tmp_path / "outside/in").symlink_to(zone)
    (tmp_path / "outside/around").symlink_to(tmp_path / "outside")

    allowed = (str(tmp_path / "outside"),)
    assert names(zone, allowed=allowed) == ["a/1.jpg", "a/b/2.jpg", "b/2.jpg", "b/a/1.jpg", "out/3.jpg"]


def test_links_that_lead_nowhere_and_what_is_no_file_are_left_out(tmp_path, monkeypatch):
    tree(tmp_path, "a.jpg")
    (tmp_path / "gone").symlink_to("nothing")
    (tmp_path / "through a file").symlink_to("a.jpg/b")
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("one")
    (tmp_path / "long").symlink_to("x" * 300)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "to the pipe").symlink_to("pipe")
    (tmp_path / "empty folder").mkdir()
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")  # a path to one has 107 bytes at most

        assert names(tmp_path) == ["a.jpg"]


def test_a_hundred_folders_deep(tmp_path):
    path = "/".join(["deep"] * 100) + "/photo.jpg"
    tree(tmp_path, path)

    assert names(tmp_path) == [path]


def test_what_vanishes_while_it_is_listed_is_left_out(tmp_path):
    tree(tmp_path, "sub/a.jpg", *[f"{i}.jpg" for i in range(9)])
    found = list_local(str(tmp_path), [])
    first = next(found)[0]
    for i in range(9):
        (tmp_path / f"{i}.jpg").unlink()
    shutil.rmtree(tmp_path / "sub")

    assert first.endswith(".jpg")
    assert list(found) == []


def test_a_folder_that_becomes_a_file_meanwhile_is_left_out(tmp_path):
    tree(tmp_path, "0.jpg", "sub/a.jpg")
    found = list_local(str(tmp_path), [])
    next(found)
    shutil.rmtree(tmp_path / "sub")
    (tmp_path / "sub").touch()

    assert [path for path, *_ in found if path != "sub"] == []


def test_a_folder_that_cannot_be_listed_is_told_and_the_others_are_listed(tmp_path, monkeypatch):
    tree(tmp_path, "open/a.jpg", "shut/b.jpg")
    refuse(monkeypatch, "shut")
    failed: list[OSError] = []

    assert names(tmp_path, failed) == ["open/a.jpg"]
    assert [str(error.filename) for error in failed] == [str(tmp_path / "shut")]


def refuse(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Have a folder refuse to be listed, to root as well."""
    scandir = os.scandir

    def refusing(path):
        if path.endswith(name):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is shut for root")
def test_a_folder_without_permission_is_told(tmp_path):
    tree(tmp_path, "shut/b.jpg")
    (tmp_path / "shut").chmod(0)
    failed: list[OSError] = []
    try:
        assert names(tmp_path, failed) == []
        assert failed
    finally:
        (tmp_path / "shut").chmod(0o700)


def test_a_zone_that_is_not_there_or_is_a_file_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        names(tmp_path / "absent")
    tree(tmp_path, "file")
    with pytest.raises(NotADirectoryError):
        names(tmp_path / "file")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(OSError, match="symbolic links"):
        names(tmp_path / "loop")
