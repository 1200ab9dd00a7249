"""Folders, zips and tars of photos made by others."""

from __future__ import annotations

import functools
import gzip
import io
import json
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import pytest

from dlassets.errors import DlassetsError
from dlassets.samples.unpack import unpack
from dlassets.settings import ArchiveSettings

TarMode = Literal["w", "w:gz"]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def make_folder(path: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def make_zip(path: Path, files: dict[str | zipfile.ZipInfo, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def make_tar(path: Path, files: dict[str, bytes], mode: TarMode = "w") -> Path:
    path.write_bytes(tar_bytes(files, mode))
    return path


def tar_bytes(files: dict[str, bytes], mode: TarMode) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


MAKERS: dict[str, Callable[..., Path]] = {
    "folder": make_folder,
    "zip": make_zip,
    "tar": make_tar,
    "tar.gz": functools.partial(make_tar, mode="w:gz"),
}


@pytest.mark.parametrize("kind", MAKERS)
def test_what_is_left_out_is_counted_and_named_and_photos_of_every_format_come_along(tmp_path, kind):
    files = {
        **{f"set/001.cat/{name}": b"a photo" for name in ("a.jpg", "b.HEIC", "c.heif", "d.avif", "e.jfif")},
        **{
            f"set/001.cat/{name}": b"none"
            for name in ("a.cr2", "b.NEF", "film.mp4", "notes.txt", "Thumbs.db", ".hidden")
        },
        "set/labels.csv": b"path,label",
    }
    taken = unpack(MAKERS[kind](tmp_path / f"set.{kind}", files), tmp_path / "out", formats=("JPEG", "HEIC"))

    assert taken.photos == len(contents(tmp_path / "out")) == 5
    assert taken.not_taken_in == (
        "2 files are RAW photos (.cr2, .nef): export them as JPEG or TIFF.",
        "1 file is AVIF (.avif), and AVIF is off: name it in ingest.formats, and these photos come in.",
        "1 file is a video (.mp4): save the frames that you want as JPEG.",
        "1 file is of no kind that is known as a photo (.txt).",
    )


def test_an_archive_in_an_archive_is_looked_into_and_one_in_a_folder_is_named(tmp_path):
    inner = make_zip(tmp_path / "inner.zip", {"001.cat/a.jpg": b"a photo"}).read_bytes()
    photos: dict[Any, bytes] = {"002.dog/b.jpg": b"a photo", "inner.zip": inner}

    of_zip = unpack(make_zip(tmp_path / "outer.zip", photos), tmp_path / "of_zip")
    of_folder = unpack(make_folder(tmp_path / "folder", photos), tmp_path / "of_folder")

    assert (of_zip.photos, of_zip.not_taken_in) == (2, ())
    assert (of_folder.photos, of_folder.not_taken_in) == (1, ("1 file is an archive (.zip): unpack it.",))


@pytest.mark.parametrize("kind", MAKERS)
def test_numbered_class_folders_keep_their_names_under_any_common_folder(tmp_path, kind):
    source = MAKERS[kind](
        tmp_path / f"set.{kind}",
        {
            "256_ObjectCategories/001.ak47/001_0001.jpg": b"one",
            "256_ObjectCategories/257.clutter/257_0001.JPG": b"broken photos come along",
            "256_ObjectCategories/001.ak47/RENAME2": b"no photo",
            "256_ObjectCategories/001.ak47/notes.txt": b"no photo",
            "256_ObjectCategories/001.ak47/greg/deeper.jpg": b"not in a class folder",
            "256_ObjectCategories/001.ak47/._001_0001.jpg": b"hidden",
            "__MACOSX/001.ak47/001_0001.jpg": b"hidden",
            "256_ObjectCategories/001.ak47/@eaDir/001_0001.jpg": b"a thumbnail",
            "#recycle/001.ak47/001_0001.jpg": b"thrown away",
            "preview.jpg": b"in no class folder",
        },
    )
    reported = []

    count = unpack(source, tmp_path / "out", lambda done, total: reported.append((done, total))).photos

    assert count == 2
    assert contents(tmp_path / "out") == {
        "001.ak47/001_0001.jpg": b"one",
        "257.clutter/257_0001.JPG": b"broken photos come along",
    }
    assert reported == [(0, 2), (1, 2), (2, 2)]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"001.ak47", "257.clutter"}


@pytest.mark.parametrize("kind", MAKERS)
def test_class_folders_without_numbers_are_numbered_by_name_over_all_parts_of_a_set(tmp_path, kind):
    source = MAKERS[kind](
        tmp_path / f"set.{kind}",
        {
            "all/train/shoes/1.jpg": b"train shoes",
            "all/train/dress/1.jpg": b"train dress",
            "all/test/dress/1.jpg": b"test dress",
            "all/test/dress/2.jpg": b"another",
            "all/cover.jpg": b"above the classes",
        },
    )

    assert unpack(source, tmp_path / "out").photos == 4

    assert contents(tmp_path / "out") == {
        "001.dress/all_train_dress_1.jpg": b"train dress",
        "001.dress/all_test_dress_1.jpg": b"test dress",
        "001.dress/2.jpg": b"another",
        "002.shoes/1.jpg": b"train shoes",
    }


def test_an_archive_within_an_archive_is_looked_into(tmp_path):
    """The layout of caltech-101.zip."""
    photos = {f"101_ObjectCategories/{name}/image_0001.jpg": name.encode() for name in ("accordion", "yin_yang")}
    source = make_zip(
        tmp_path / "caltech-101.zip",
        {
            "caltech-101/101_ObjectCategories.tar.gz": tar_bytes(photos, "w:gz"),
            "caltech-101/Annotations.tar": tar_bytes({"Annotations/accordion/annotation_0001.mat": b"m"}, "w"),
            "__MACOSX/caltech-101/._101_ObjectCategories.tar.gz": b"no archive",
        },
    )

    assert unpack(source, tmp_path / "out").photos == 2

    unpacked = {"001.accordion/image_0001.jpg": b"accordion", "002.yin_yang/image_0001.jpg": b"yin_yang"}
    assert contents(tmp_path / "out") == unpacked


def test_a_second_run_adds_what_is_missing_and_changes_nothing(tmp_path):
    source = make_zip(tmp_path / "set.zip", {"001.a/1.jpg": b"1", "001.a/2.jpg": b"2", "002.b/1.jpg": b"3"})
    out = make_folder(tmp_path / "out", {"001.a/1.jpg": b"my own", "notes.txt": b"mine"})

    assert unpack(source, out).photos == 3
    expected = {"001.a/1.jpg": b"my own", "001.a/2.jpg": b"2", "002.b/1.jpg": b"3", "notes.txt": b"mine"}
    assert contents(out) == expected
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*.jpg")}

    assert unpack(source, out).photos == 3
    assert contents(out) == expected
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.jpg")} == times


@pytest.mark.parametrize(
    "name", ["../001.a/1.jpg", "001.a/../../1.jpg", "/tmp/001.a/1.jpg", "..\\001.a\\1.jpg", "C:\\a\\1.jpg"]
)
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_member_that_points_outside_is_refused_and_nothing_unpacked(tmp_path, kind, name):
    source = MAKERS[kind](tmp_path / f"set.{kind}", {"001.a/0.jpg": b"fine", name: b"bad"})

    with pytest.raises(DlassetsError, match="points outside the archive"):
        unpack(source, tmp_path / "out")

    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, "zip"])
def test_links_and_devices_are_refused(tmp_path, kind):
    if kind == "zip":
        link = zipfile.ZipInfo("001.a/1.jpg")
        link.external_attr = 0o120777 << 16
        make_zip(tmp_path / "set", {link: b"/etc/hostname"})
    else:
        with tarfile.open(tmp_path / "set", "w") as archive:
            member = tarfile.TarInfo("001.a/1.jpg")
            member.type, member.linkname = kind, "/etc/hostname"
            archive.addfile(member)

    with pytest.raises(DlassetsError, match="is a link or a device"):
        unpack(tmp_path / "set", tmp_path / "out")


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_of_an_archive_that_ends_early_no_part_of_a_class_is_left(tmp_path, mode):
    noise = bytes(range(256)) * 400
    whole = tar_bytes({"001.a/1.jpg": noise, "002.b/1.jpg": noise, "002.b/2.jpg": noise}, mode)
    (tmp_path / "set.tar").write_bytes(whole[: len(whole) * 5 // 6])

    with pytest.raises(DlassetsError, match="damaged"):
        unpack(tmp_path / "set.tar", tmp_path / "out")

    assert not (tmp_path / "out/002.b").exists()


def test_a_photo_damaged_in_a_zip_stops_it_before_its_class_appears(tmp_path):
    source = make_zip(
        tmp_path / "set.zip", {"001.a/1.jpg": b"whole", "002.b/1.jpg": b"whole", "002.b/2.jpg": b"damaged"}
    )
    source.write_bytes(source.read_bytes().replace(b"damaged", b"dAmaged"))

    with pytest.raises(DlassetsError, match=r"cannot be read .*damaged"):
        unpack(source, tmp_path / "out")

    assert contents(tmp_path / "out") == {"001.a/1.jpg": b"whole"}
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["001.a"]


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize(
    "files", [{}, {"readme.txt": b"text"}, {"a.jpg": b"no class"}, {"001.a/readme.txt": b"no photo"}]
)
def test_a_source_without_photos_in_class_folders_is_refused(tmp_path, kind, files):
    (tmp_path / "set.folder").mkdir()
    source = MAKERS[kind](tmp_path / f"set.{kind}", files)

    with pytest.raises(DlassetsError, match=r"nothing that says their classes\. Put each class's photos"):
        unpack(source, tmp_path / "out")


CAT_AND_DOG = {"001.cat/a.jpg": b"1", "001.cat/b.jpg": b"2", "002.dog/c.jpg": b"3", "002.dog/d.jpg": b"4"}
PHOTOS = {f"{name}.jpg": content for name, content in zip("abcd", (b"1", b"2", b"3", b"4"), strict=True)}
COCO = {
    "images": [{"id": n, "file_name": f"{name}.jpg"} for n, name in enumerate("abcd")],
    "annotations": [{"image_id": n, "category_id": n // 2} for n in range(4)],
    "categories": [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}],
}
TASKS = [
    {
        "data": {"image": f"/data/upload/1/0a1b2c3d-{name}.jpg"},
        "annotations": [{"result": [{"value": {"choices": [said]}}]}],
    }
    for name, said in zip("abcd", ("cat", "cat", "dog", "dog"), strict=True)
]


def under(folder: str, more: Mapping[str, bytes | str]) -> dict[str, bytes]:
    """Return the four photos in a folder, and what else a set holds."""
    return {f"{folder}{name}": content for name, content in PHOTOS.items()} | {
        name: content.encode() if isinstance(content, str) else content for name, content in more.items()
    }


@pytest.mark.parametrize(
    ("files", "said_by"),
    [
        ({"cat/a.jpg": b"1", "cat/b.jpg": b"2", "dog/c.jpg": b"3", "dog/d.jpg": b"4"}, "their folders"),
        (
            {"train/cat/a.jpg": b"1", "val/cat/b.jpg": b"2", "train/dog/c.jpg": b"3", "val/dog/d.jpg": b"4"},
            "their folders",
        ),
        (under("", {"labels.csv": "id,label\na,cat\nb,cat\nc,dog\nd,dog\n"}), "the list labels.csv"),
        (
            under("images/", {"images.csv": "image,kids,label\na,1,cat\nb,1,cat\nc,0,dog\nd,0,dog\n"}),
            "the list images.csv",
        ),
        (under("images/", {"annotations/all.json": json.dumps(COCO)}), "the list annotations/all.json"),
        (under("", {"export.json": json.dumps(TASKS), "about.json": "{}"}), "the list export.json"),
        (
            under(
                "data/train/",
                {
                    "data/train/metadata.jsonl": "\n".join(
                        json.dumps({"file_name": f"{name}.jpg", "label": said})
                        for name, said in zip("abcd", ("cat", "cat", "dog", "dog"), strict=True)
                    )
                },
            ),
            "the list data/train/metadata.jsonl",
        ),
    ],
)
def test_any_usual_layout_says_the_same_classes(tmp_path, files, said_by):
    taken = unpack(make_zip(tmp_path / "set.zip", files), tmp_path / "out")

    assert contents(tmp_path / "out") == CAT_AND_DOG
    assert taken.understood == f"4 photos of 2 classes, by {said_by}: 001.cat 2, 002.dog 2."


def test_file_names_of_a_class_and_a_number_say_it(tmp_path):
    names = ("cat.0", "cat.1", "dog.0", "dog.1", "IMG_0001", "IMG_0002")
    make_folder(tmp_path / "set", {f"train/{name}.jpg": name.encode() for name in names})

    taken = unpack(tmp_path / "set", tmp_path / "out")

    assert set(contents(tmp_path / "out")) == {
        *("001.cat/cat.0.jpg", "001.cat/cat.1.jpg", "002.dog/dog.0.jpg", "002.dog/dog.1.jpg")
    }
    assert taken.understood == (
        "4 photos of 2 classes, by their file names: 001.cat 2, 002.dog 2. "
        "2 other photos have no class and are left out."
    )


def test_a_list_of_few_of_the_photos_does_not_stand_above_their_folders(tmp_path):
    files = {
        "cat/a.jpg": b"1",
        "cat/b.jpg": b"2",
        "dog/c.jpg": b"3",
        "dog/d.jpg": b"4",
        "x.csv": b"image,label\na,bird\n",
    }

    unpack(make_folder(tmp_path / "set", files), tmp_path / "out")

    assert contents(tmp_path / "out") == CAT_AND_DOG


def test_numbers_that_a_list_gives_are_the_classes_own(tmp_path):
    listed = {"labels.csv": "path,label\na.jpg,7.cat\nb.jpg,cat\nc.jpg,3\nd.jpg,dog\n"}

    taken = unpack(make_folder(tmp_path / "set", under("", listed)), tmp_path / "out")

    assert set(contents(tmp_path / "out")) == {"007.cat/a.jpg", "007.cat/b.jpg", "003/c.jpg", "008.dog/d.jpg"}
    assert taken.photos == 4


def test_a_missing_source_and_a_file_that_is_no_archive_are_refused(tmp_path):
    with pytest.raises(DlassetsError, match="does not exist"):
        unpack(tmp_path / "absent.zip", tmp_path / "out")
    (tmp_path / "text.zip").write_text("no archive")
    with pytest.raises(DlassetsError, match="neither a folder nor a zip nor a tar"):
        unpack(tmp_path / "text.zip", tmp_path / "out")


def test_classes_without_a_number_among_numbered_ones_and_two_of_one_number_are_refused(tmp_path):
    make_folder(tmp_path / "some", {"001.a/1.jpg": b"1", "b/1.jpg": b"2"})
    with pytest.raises(DlassetsError, match=r"others do not \(b\)"):
        unpack(tmp_path / "some", tmp_path / "out")

    make_folder(tmp_path / "set", {"one/001.a/1.jpg": b"1", "two/1.b/1.jpg": b"2"})
    with pytest.raises(DlassetsError, match=r"two classes of one number, 001\.a and 1\.b"):
        unpack(tmp_path / "set", tmp_path / "out")

    make_folder(tmp_path / "there", {"001.other/1.jpg": b"0"})
    with pytest.raises(DlassetsError, match=r"two classes of one number, 001\.a and 001\.other"):
        unpack(tmp_path / "set" / "one", tmp_path / "there")


def test_a_number_too_large_for_a_label_is_a_name_like_any_other(tmp_path):
    make_zip(tmp_path / "set.zip", {f"{'9' * 30}/1.jpg": b"1"})
    make_zip(tmp_path / "hostile.zip", {f"{'9' * 5000}/1.jpg": b"1"})

    unpack(tmp_path / "set.zip", tmp_path / "out")

    assert contents(tmp_path / "out") == {f"001.{'9' * 30}/1.jpg": b"1"}
    with pytest.raises(DlassetsError, match="could not be unpacked"):
        unpack(tmp_path / "hostile.zip", tmp_path / "other")


def test_a_place_that_cannot_be_written_is_one_clear_error_and_the_folder_itself_is_refused(tmp_path):
    source = make_folder(tmp_path / "set", {"001.a/1.jpg": b"1"})
    (tmp_path / "file").touch()

    with pytest.raises(DlassetsError, match="could not be unpacked to"):
        unpack(source, tmp_path / "file" / "below")
    with pytest.raises(DlassetsError, match="lies in"):
        unpack(source, source / "out")


SMALL = ArchiveSettings(max_members=20, max_bytes=10_000_000)


def refuse_by(setting: str, source: Path, out: Path, limits: ArchiveSettings = SMALL) -> None:
    with pytest.raises(DlassetsError, match=f"nothing of it was unpacked. .*archives.{setting}"):
        unpack(source, out, limits=limits)
    assert not out.exists()


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_more_members_or_bytes_than_allowed_are_refused_by_what_headers_declare(tmp_path, kind):
    many = MAKERS[kind](tmp_path / f"many.{kind}", {f"001.a/{number}.jpg": b"" for number in range(21)})
    large = MAKERS[kind](tmp_path / f"large.{kind}", {"001.a/1.jpg": bytes(6_000_000), "001.a/2.jpg": bytes(6_000_000)})

    refuse_by("max_members", many, tmp_path / "out")
    refuse_by("max_bytes", large, tmp_path / "out")


def test_a_zip_of_more_entries_than_it_says_or_than_allowed_makes_no_list_of_them(tmp_path, monkeypatch):
    source = make_zip(tmp_path / "many.zip", {f"001.a/{number}.jpg": b"" for number in range(2000)})
    monkeypatch.setattr(zipfile, "ZipFile", None)
    refuse_by("max_members", source, tmp_path / "out")
    content = source.read_bytes()
    end = content.rindex(b"PK\5\6")
    source.write_bytes(content[: end + 8] + b"\1\0\1\0" + content[end + 12 :])
    refuse_by("max_members", source, tmp_path / "out")


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_a_ratio_that_no_photo_has_is_refused(tmp_path, kind):
    source = tmp_path / f"bomb.{kind}"
    zeros = bytes(70 * 2**20)
    if kind == "zip":
        with zipfile.ZipFile(source, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("001.a/1.jpg", zeros)
    else:
        make_tar(source, {"001.a/1.jpg": zeros}, "w:gz")

    refuse_by("max_ratio", source, tmp_path / "out", ArchiveSettings())


def test_archives_in_archives_end_at_the_depth_allowed(tmp_path):
    inner = make_zip(tmp_path / "0.zip", {"001.a/1.jpg": b"1"})
    for depth in range(1, 4):
        inner = make_zip(tmp_path / f"{depth}.zip", {f"{depth - 1}.zip": inner.read_bytes()})

    assert unpack(tmp_path / "2.zip", tmp_path / "fine").photos == 1
    refuse_by("max_depth", tmp_path / "3.zip", tmp_path / "out")


def test_a_member_that_is_longer_than_its_header_says_is_refused_before_its_class_appears(tmp_path):
    with zipfile.ZipFile(tmp_path / "liar.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("001.a/1.jpg", bytes(50_000_000))
    content = (tmp_path / "liar.zip").read_bytes()
    (tmp_path / "liar.zip").write_bytes(
        content.replace((50_000_000).to_bytes(4, "little"), (1000).to_bytes(4, "little"))
    )

    with pytest.raises(DlassetsError, match="cannot be read"):
        unpack(tmp_path / "liar.zip", tmp_path / "out")

    assert contents(tmp_path / "out") == {}


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
def test_a_header_of_a_tar_that_is_itself_a_bomb_is_not_read(tmp_path, kind):
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = kind, 2**33
    with gzip.open(tmp_path / "bomb.tar.gz", "wb") as file:
        file.write(tar_bytes({"001.a/1.jpg": b"1"}, "w")[:1024])
        file.write(header.tobuf(tarfile.GNU_FORMAT))
        file.write(bytes(2**22))

    with pytest.raises(DlassetsError, match="a header that is larger than any name needs"):
        unpack(tmp_path / "bomb.tar.gz", tmp_path / "out")


def test_names_with_a_nul_and_headers_nested_without_end_are_our_errors(tmp_path):
    with tarfile.open(tmp_path / "nul.tar", "w") as archive:
        member = tarfile.TarInfo("001.a/1.jpg")
        member.pax_headers = {"path": "001.a/1\0.jpg"}
        archive.addfile(member)
    with pytest.raises(DlassetsError, match="has a NUL in it"):
        unpack(tmp_path / "nul.tar", tmp_path / "out")

    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 2
    (tmp_path / "deep.tar").write_bytes((header.tobuf(tarfile.GNU_FORMAT) + b"a".ljust(512, b"\0")) * 3000)
    with pytest.raises(DlassetsError, match=r"deep\.tar"):
        unpack(tmp_path / "deep.tar", tmp_path / "out")
