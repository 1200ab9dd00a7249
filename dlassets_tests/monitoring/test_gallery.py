"""The gallery as a person opens it: what is shown, how much of it, and that it is written for a reason alone."""

import io
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from dlassets.engines.base import Commit, Engine
from dlassets.engines.local import LocalEngine
from dlassets.errors import DlassetsError
from dlassets.images.folders import folder_of
from dlassets.lakehouse.classes import update_classes
from dlassets.monitoring.gallery import Gallery, queries, write_gallery
from dlassets.monitoring.gallery.page import in_bytes
from dlassets.settings import LandingZone, Settings
from dlassets.storage.lake import Lake
from dlassets_tests.tables import NOON, image_id, pins, put

ZONES = {name: LandingZone(uri=name, labelled=name == "labeled") for name in ("labeled", "unlabeled")}


def jpeg(colour: str = "red", size: tuple[int, int] = (96, 64)) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, colour).save(out, "JPEG")
    return out.getvalue()


def image(path: str, *, content: str | None = None, perceptual_hash: int | None = None, **profile) -> tuple[dict, dict]:
    """Return a row of raw_images and one of image_profiles: sound, and like no other."""
    name = image_id(content or path)
    unlike = int(name[:16], 16) - 2**63 if perceptual_hash is None else perceptual_hash
    raw = {"path": path, "image_id": name, "landing": path.partition("/")[0], "folder": folder_of(path)}
    sound = {"width": 400, "height": 300, "channels": 3, "mode": "RGB", "brightness": 120.0, "sharpness": 300.0}
    own = {"image_id": name, "thumbnail": jpeg(), "perceptual_hash": unlike}
    return raw | {"length": 34_500}, sound | own | profile


def fill(lake: Lake, *images: tuple[dict, dict]) -> None:
    put(lake, "raw_images", *(raw for raw, _ in images))
    put(lake, "image_profiles", *{row["image_id"]: row for _, row in images}.values())


def write(engine: Engine, lake: Lake, zones: dict[str, LandingZone] = ZONES) -> Gallery:
    settings = Settings(landing=zones)
    update_classes(
        LocalEngine(), pins(lake, "raw_images", "deleted_files", "listed_labels", "classes"), settings, Commit()
    )
    names = ("raw_images", "deleted_files", "listed_labels", "classes", "image_profiles", "quarantined_files")
    return write_gallery(engine, lake, pins(lake, *names), settings)


class Page(HTMLParser):
    """The page's sections: under each heading, the paths that its pictures show."""

    def __init__(self, found: Gallery) -> None:
        super().__init__()
        self.text = Path(found.page).read_text(encoding="utf-8")
        self.sections: dict[str, list[str]] = {}
        self.hovers: list[str] = []
        self.tags: list[str] = []
        self._heading: str | None = None
        self.feed(self.text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.tags.append(tag)
        if tag == "h3":
            self._heading = ""
        if tag == "figure":
            self.hovers.append(given["title"])
        if tag == "img":
            assert given["src"].startswith("data:image/jpeg;base64,")
            list(self.sections.values())[-1].append(given["alt"])

    def handle_data(self, data):
        if self._heading is not None:
            self._heading += data

    def handle_endtag(self, tag):
        if tag == "h3":
            self.sections[" ".join(self._heading.split())] = []
            self._heading = None


def test_pictures_are_shown_by_class_by_defect_and_by_near_duplicates(local_engine: Engine, lake: Lake) -> None:
    fill(
        lake,
        image("labeled/001.hat/a.jpg", perceptual_hash=0b1111),
        image("labeled/002.dress/b.jpg", perceptual_hash=0b0000),
        image("labeled/002.dress/copy.jpg", content="labeled/002.dress/b.jpg", perceptual_hash=0b0000),
        image("labeled/002.dress/blurred.jpg", sharpness=12.5),
        image("unlabeled/dark.jpg", brightness=20.0),
        image("unlabeled/bright.jpg", brightness=240.0),
        image("unlabeled/small.png", width=30, height=20),
        image("unlabeled/long.jpg", width=1000, height=300),
        image("unlabeled/grey.jpg", channels=1, mode="L"),
        image("unlabeled/palette.png", channels=1, mode="P"),
    )
    put(
        lake,
        "quarantined_files",
        {"path": "labeled/001.hat/<bad>.jpg", "reason": "not_an_image", "detail": "begins with b'<x>'", "length": 4},
        {"path": "labeled/other.jpg", "reason": "empty", "length": 0},
        {"path": "labeled/wanted by nobody.jpg", "reason": "empty", "dropped_at": NOON},
    )

    found = write(local_engine, lake)

    page = Page(found)
    in_order = {
        "1 hat 1": ["labeled/001.hat/a.jpg"],
        "2 dress 3": ["labeled/002.dress/b.jpg", "labeled/002.dress/blurred.jpg", "labeled/002.dress/copy.jpg"],
        "unlabeled: no label 6": [
            f"unlabeled/{n}" for n in ("bright.jpg", "dark.jpg", "grey.jpg", "long.jpg", "palette.png", "small.png")
        ],
        "blurred sharpness below 50: 1": ["labeled/002.dress/blurred.jpg"],
        "dark mean brightness below 50 of 255: 1": ["unlabeled/dark.jpg"],
        "overexposed mean brightness above 210 of 255: 1": ["unlabeled/bright.jpg"],
        "tiny shorter side below 112 pixels, half of what a model looks at: 1": ["unlabeled/small.png"],
        "extreme aspect ratio longer side more than 3 times the shorter: 1": ["unlabeled/long.jpg"],
        "greyscale stored without colours: 1": ["unlabeled/grey.jpg"],
        "3 files more than one label": [
            "labeled/001.hat/a.jpg",
            "labeled/002.dress/b.jpg",
            "labeled/002.dress/copy.jpg",
        ],
        "empty 1": [],
        "not_an_image 1": [],
    }
    assert {heading: sorted(paths) for heading, paths in page.sections.items()} == in_order
    assert (found.images, found.files, found.refused) == (9, 10, 2)
    assert (found.near_duplicate_groups, found.near_duplicate_files, found.across_classes) == (1, 3, 1)
    defects = ("blurred", "dark", "overexposed", "tiny", "extreme aspect ratio", "greyscale")
    assert found.defects == dict.fromkeys(defects, 1)
    assert "unlabeled/dark.jpg\n400 \u00d7 300 pixels, 34.5 kB\nbrightness 20, sharpness 300\nno label" in page.hovers
    assert found.contact_sheet is not None
    assert Image.open(io.BytesIO(found.contact_sheet)).size == (400, 160)


def test_both_engines_write_the_same_page(engine: Engine, lake: Lake) -> None:
    fill(lake, *(image(f"labeled/00{i % 3}.c/{i}.jpg", perceptual_hash=i % 7 << 20, sharpness=i) for i in range(60)))
    page = Path(write(LocalEngine(), lake).page)
    first = page.read_bytes()
    page.unlink()

    assert write(engine, lake).changed
    assert page.read_bytes() == first


def test_with_nothing_new_the_page_is_left_and_says_the_same(lake: Lake) -> None:
    fill(lake, image("labeled/001.hat/a.jpg"))
    first = write(LocalEngine(), lake)
    Path(first.page).write_text("as it was left")

    again = write(LocalEngine(), lake)

    assert (again.changed, Path(again.page).read_text()) == (False, "as it was left")
    assert replace(again, changed=True) == first


@pytest.mark.parametrize("table", ["raw_images", "image_profiles", "quarantined_files"])
def test_a_new_version_of_any_table_makes_a_new_page(lake: Lake, table: str) -> None:
    fill(lake, image("labeled/001.hat/a.jpg"))
    write(LocalEngine(), lake)
    put(lake, table, {"path": "labeled/001.hat/b.jpg", "image_id": image_id("b"), "reason": "empty"})

    assert write(LocalEngine(), lake).changed


def test_a_page_that_was_not_finished_is_written_anew(lake: Lake) -> None:
    fill(lake, image("labeled/001.hat/a.jpg"))
    whole = write(LocalEngine(), lake)
    summary = Path(whole.page).with_name("gallery.json")
    summary.write_text(summary.read_text()[:40])

    assert write(LocalEngine(), lake) == whole


def test_a_page_whose_writing_was_cut_short_never_stands_for_the_one_before(lake: Lake) -> None:
    fill(lake, image("labeled/001.hat/a.jpg"))
    first = write(LocalEngine(), lake)
    page, sheet = Path(first.page).read_bytes(), Path(first.page).with_name("contact_sheet.jpg")
    sheet.unlink()
    sheet.mkdir()  # the page is written, and what comes after it cannot be
    with pytest.raises(DlassetsError, match="cannot be written"):
        write(LocalEngine(), lake, {**ZONES, "labeled": LandingZone(uri="labeled", labelled=False)})
    sheet.rmdir()
    assert first.contact_sheet is not None
    sheet.write_bytes(first.contact_sheet)

    assert write(LocalEngine(), lake) == first
    assert Path(first.page).read_bytes() == page


def test_what_a_path_or_a_detail_says_is_text_and_never_markup(lake: Lake) -> None:
    path = "labeled/001.<script>alert(1)</script>/\"><img src=x onerror='a'>\n&amp;.jpg"
    fill(lake, image(path, sharpness=1.0))
    put(lake, "quarantined_files", {"path": path, "reason": "empty", "detail": "<script>"})

    page = Page(write(LocalEngine(), lake))

    assert "script" not in page.tags
    assert path in page.sections["blurred sharpness below 50: 1"]
    assert page.tags.count("img") == 2


def test_nothing_comes_from_elsewhere(lake: Lake) -> None:
    fill(lake, image("labeled/001.hat/a.jpg"))

    assert "http" not in Page(write(LocalEngine(), lake)).text.replace("http-equiv", "")


def test_however_many_images_the_page_is_small_and_says_how_many_there_are(lake: Lake) -> None:
    alike = [image(f"labeled/{i % 40}/{i}.jpg", perceptual_hash=0, sharpness=float(i % 45)) for i in range(3000)]
    fill(lake, *alike, *(image(f"unlabeled/{i}.jpg", perceptual_hash=i // 2 * 0x1234567) for i in range(200)))

    found = write(LocalEngine(), lake)

    page = Page(found)
    assert len(page.sections["7 8 of 75 shown"]) == 8
    assert len(page.sections["blurred sharpness below 50: 18 of 3,000 shown"]) == 18
    assert page.sections["3002 files more than one label 6 of 3,002 shown"]
    assert len(page.hovers) < 600
    assert Path(found.page).stat().st_size < 1_500_000


def test_more_classes_than_thumbnails_are_named_without_one(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queries, "CLASS_THUMBNAILS", 2)
    fill(lake, *(image(f"labeled/00{i}/a.jpg") for i in range(3)))

    sections = Page(write(LocalEngine(), lake)).sections

    headings = ("0 1", "1 1", "2 0 of 1 shown")
    assert [sections[heading] for heading in headings] == [["labeled/000/a.jpg"], ["labeled/001/a.jpg"], []]


def test_a_lake_without_images_has_a_page_that_says_so(local_engine: Engine, lake: Lake) -> None:
    found = write(local_engine, lake)

    assert (found.images, found.files, found.contact_sheet) == (0, 0, None)
    assert "There are no images yet." in Page(found).text
    assert not write(local_engine, lake).changed


def test_the_lake_may_be_given_as_a_uri(tmp_path: Path) -> None:
    lake = Lake.at(f"file://{tmp_path}/lake")
    fill(lake, image("labeled/001.hat/a.jpg"))

    found = write(LocalEngine(), lake)

    assert found.page == f"file://{tmp_path}/lake/reports/image_gallery/index.html"
    assert (tmp_path / "lake/reports/image_gallery/index.html").stat().st_size > 1000


def test_a_place_that_cannot_be_written_is_an_error_that_names_it(lake: Lake) -> None:
    fill(lake, image("labeled/001.hat/a.jpg"))
    Path(lake.root, "reports").write_text("a file where a folder should be")

    with pytest.raises(DlassetsError, match=r"image_gallery cannot be written: .*Check that the place"):
        write(LocalEngine(), lake)


@pytest.mark.parametrize(
    ("number", "said"), [(0, "0 B"), (999, "999 B"), (34_500, "34.5 kB"), (999_900, "1 MB"), (2.5e12, "2.5 TB")]
)
def test_numbers_of_bytes_are_said_as_people_do(number: float, said: str) -> None:
    assert in_bytes(number) == said
