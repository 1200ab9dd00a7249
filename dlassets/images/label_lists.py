"""Lists of labels that lie beside photos: what a CSV, JSON, Parquet, COCO or Label Studio file says, of which photo."""

from __future__ import annotations

import functools
import io
import json
import math
import posixpath
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from dlassets.errors import DlassetsError
from dlassets.images.folders import FolderClass, class_of_folder, clean, comparable, why_no_class
from dlassets.settings import LABEL_RULE, LandingZone
from dlassets.storage.records import READERS, as_text, read_records

# What the columns are called, where the settings do not say: the first of them that a list has.
PHOTO_COLUMNS = (
    *("file_name", "filename", "file", "path", "filepath", "file_path", "image", "image_path", "photo", "img"),
    *("image_id", "id"),
)
LABEL_COLUMNS = ("label", "class", "category", "choice", "label_name", "class_name", "category_name", "target")
NAME_COLUMNS = ("label_name", "class_name", "category_name")
# Label Studio's kinds of answer that are a class.
_CHOICES = ("choices", "rectanglelabels", "polygonlabels", "brushlabels", "ellipselabels", "keypointlabels")
# What Label Studio puts before the name of a file that was uploaded.
_UPLOADED = re.compile(r"^/?data/upload/(?:\d+/)?[0-9a-f]{8}-")
_FLOAT = re.compile(r"\d+\.0")
# Of one list so many are kept.
_MOST_PROBLEMS = 1000
_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,5}$")
_PHOTO_SUFFIX = re.compile(r"\.(jpe?g|png|bmp|gif|tiff?|webp|heic|heif|avif)$", re.IGNORECASE)


@dataclass(frozen=True)
class ListRule:
    """How a zone's lists are read: their columns, found by their names where these are empty, and the label's text."""

    photo_column: str = ""
    label_column: str = ""
    pattern: str = LABEL_RULE

    def __str__(self) -> str:
        return json.dumps([self.photo_column, self.label_column, self.pattern])

    @classmethod
    def of(cls, zone: LandingZone) -> ListRule | None:
        """Return a zone's rule; None where no list says its labels."""
        return cls(zone.photo_column, zone.label_column, zone.label_rule) if zone.has_lists else None


class Listed(NamedTuple):
    """What a list says of a photo, as it names that: its class, or why it says none."""

    photo: str
    said: FolderClass | None
    problem: str | None = None


class _Row(NamedTuple):
    """Where something stands in a list: a photo and its label, and a name beside it."""

    place: str
    photo: object
    label: object
    name: object = None


def read_list(data: bytes, name: str, rule: ListRule) -> list[Listed]:
    """Return what a list says of each photo, once each. Photos without a label are not in it.

    `name` tells the kind by its suffix. A photo of two classes has none, and what cannot be read of a list is a row
    that says so, under its place. Raises DlassetsError where the file is no list, or names no photo.
    """
    found: dict[str, Listed] = {}
    problems = 0
    for row in _rows(data, name, rule):
        listed = row if isinstance(row, Listed) else _listed(row, rule)
        if listed is None or (listed.problem is not None and problems >= _MOST_PROBLEMS):
            continue
        before = found.get(listed.photo, listed)
        if before.said != listed.said and before.problem is None:
            listed = Listed(
                listed.photo, None, f"is said to be {before.said or 'no class'} and {listed.said or 'no class'}"
            )
        found[listed.photo] = listed if before.problem is None else before
        problems += listed.problem is not None
    if not any(listed.said for listed in found.values()):
        why = next((f": {listed.photo} {listed.problem}" for listed in found.values()), "")
        raise DlassetsError(f"it gives no photo a class{why}")
    return list(found.values())


def find_photos(
    listed: Iterable[tuple[str, str]], paths: Iterable[str], *, ignore_case: bool = False
) -> dict[tuple[str, str], list[str]]:
    """Return which of `paths` each photo of a list is, by the list's folder and the photo's name there.

    Nearest first: the path from the list's folder, the path from the top, then any whose path ends as the name does,
    or that the name ends with. A name without a suffix is that of a photo with any. More than one path is too many.
    """
    same = functools.partial(_key, ignore_case=ignore_case)
    entries = {(folder, photo): (same(folder), same(photo)) for folder, photo in listed}
    names = {name for _, name in entries.values()}
    asked = {place for entry in entries.values() for place in _places(*entry)}
    there, ending = defaultdict(list), defaultdict(list)
    for path in paths:
        key = same(path)
        bare = _SUFFIX.sub("", key)
        for each in {key} if _PHOTO_SUFFIX.search(bare) else {key, bare}:
            if each in asked:
                there[each].append(path)
            for tail in _tails(each):
                if tail in names:
                    ending[tail].append(path)

    def found(folder: str, name: str) -> list[str]:
        beside, at_the_top, *tails = (there.get(place, []) for place in _places(folder, name))
        return next((paths for paths in (beside, at_the_top, ending.get(name, []), *tails) if paths), [])

    return {entry: found(*keys) for entry, keys in entries.items()}


def _places(folder: str, name: str) -> list[str]:
    """Return the paths that a photo of this name in a list may have, nearest first."""
    return [posixpath.normpath(posixpath.join(folder, name)), name, *list(_tails(name))[1:]]


def _tails(path: str) -> Iterator[str]:
    """Yield a path, and what is left of it without its first folders."""
    yield path
    at = path.find("/")
    while at >= 0:
        yield path[at + 1 :]
        at = path.find("/", at + 1)


def _key(path: str, *, ignore_case: bool) -> str:
    return path if path.isascii() and not ignore_case else comparable(path, ignore_case=ignore_case)


def _listed(row: _Row, rule: ListRule) -> Listed | None:
    """Return what a row says; None where it has no label."""
    photo = path_of(as_text(row.photo)) if isinstance(row.photo, str | int | None) else ""
    labels = {label_text(label) for label in each_label(row.label)} - {""}
    if not labels:
        return None
    if not photo:
        return Listed(row.place, None, f"has the label {min(labels)!r} and no photo")
    if len(labels) > 1:
        return Listed(photo, None, f"is said to be {' and '.join(sorted(labels))}")
    label = labels.pop()
    said = class_of_folder(label, rule.pattern)
    if said is None:
        why = (rule.pattern == LABEL_RULE and why_no_class(label)) or "gives no class"
        return Listed(photo, None, f"has the label {label!r}, which {why} by the zone's label_rule")
    name = clean(as_text(row.name))
    return Listed(photo, FolderClass(said.label, name) if name and said.name is None else said)


def label_text(label: object) -> str:
    """Return a label as text; whole numbers that went through a column of floats are whole again."""
    if isinstance(label, float) and not math.isfinite(label):
        return ""
    text = as_text(label)
    return text.removesuffix(".0") if _FLOAT.fullmatch(text) else text


def each_label(label: object) -> Iterable[object]:
    """Return the labels in a cell: Label Studio writes one as text, and several as JSON."""
    if isinstance(label, str) and label.startswith('{"choices"'):
        try:
            label = json.loads(label)["choices"]
        except (ValueError, TypeError, KeyError):
            return [label]
    return label if isinstance(label, list) else [label]


def path_of(text: str) -> str:
    """Return the path in what a list calls a photo: a path of any system, or the URL that a program gave it."""
    with suppress(ValueError):  # no URL, for all that it looks like one
        if "?d=" in text:  # Label Studio's files on disk
            text = parse_qs(urlsplit(text).query).get("d", [""])[0]
        elif "://" in text:
            text = unquote(urlsplit(text).path)
    path = _UPLOADED.sub("", text).replace("\\", "/")
    return re.sub(r"^(?:\.{0,2}/)+", "", posixpath.normpath(re.sub(r"^[A-Za-z]:", "", path))) if path else ""


def _rows(data: bytes, name: str, rule: ListRule) -> Iterator[_Row | Listed]:
    suffix = PurePosixPath(name).suffix.lower()
    if suffix == ".parquet":
        yield from _of_parquet(data, rule)
    elif suffix == ".json" and data.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
        yield from _of_object(_loaded(data), rule)
    elif suffix in READERS:
        yield from _of_records(data, suffix, rule)
    else:
        raise DlassetsError(f"a list is one of {', '.join([*READERS, '.parquet'])}")


def _of_records(data: bytes, suffix: str, rule: ListRule) -> Iterator[_Row | Listed]:
    columns: _Columns | None = None
    lacking: DlassetsError | None = None
    for place, record in read_records([data], suffix):
        if isinstance(record, str):
            yield Listed(place, None, record)
            continue
        if _is_task(record):
            yield from _of_task(record, rule)
            continue
        try:
            columns = columns or _Columns.of(record, rule)
        except DlassetsError as error:  # what has no label may lack its name, too
            lacking = lacking or error
        else:
            yield columns.row(place, record)
    if columns is None and lacking is not None:
        raise lacking


class _Columns(NamedTuple):
    photo: str
    label: str
    name: str | None

    @classmethod
    def of(cls, names: Collection[str], rule: ListRule) -> _Columns:
        """Return which of these columns are read. Raises DlassetsError where there is none for photos or labels."""
        photo = _column(names, rule.photo_column, PHOTO_COLUMNS, "photo_column")
        label = _column(names, rule.label_column, LABEL_COLUMNS, "label_column")
        spelled = {name.lower(): name for name in names}
        beside = next((spelled[name] for name in NAME_COLUMNS if name in spelled and spelled[name] != label), None)
        return cls(photo, label, None if rule.label_column else beside)

    def row(self, place: str, record: Mapping[str, Any]) -> _Row:
        return _Row(place, record.get(self.photo), record.get(self.label), self.name and record.get(self.name))


def _column(names: Collection[str], wanted: str, usual: Sequence[str], setting: str) -> str:
    spelled = {name.lower(): name for name in names}
    found = next((spelled[name] for name in ((wanted.lower(),) if wanted else usual) if name in spelled), None)
    if found is None:
        missing = f"is no column {wanted}" if wanted else f"is none of {', '.join(usual)}"
        raise DlassetsError(
            f"among its columns ({', '.join(sorted(names)[:20])}) {missing}: say which in the zone's {setting}"
        )
    return found


def _of_parquet(data: bytes, rule: ListRule) -> Iterator[_Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(io.BytesIO(data)) as file:
            columns = _Columns.of(file.schema_arrow.names, rule)
            for batch in file.iter_batches(columns=[name for name in columns if name]):
                yield from (columns.row("a row", record) for record in batch.to_pylist())
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DlassetsError(f"it is no Parquet file that can be read: {error}") from error


def _loaded(data: bytes) -> dict[str, Any]:
    try:
        return dict(json.loads(data))
    except (ValueError, RecursionError) as error:
        raise DlassetsError(f"it is not JSON: {error}") from error


def _of_object(whole: Mapping[str, Any], rule: ListRule) -> Iterator[_Row | Listed]:
    """Yield what a JSON file says that is one object: COCO's, a Label Studio task, a record, or labels by photo."""
    if {"images", "annotations"} <= whole.keys():
        yield from _of_coco(whole)
    elif _is_task(whole):
        yield from _of_task(whole, rule)
    elif all(_PHOTO_SUFFIX.search(name) for name in whole):
        yield from (_Row(name, name, label) for name, label in whole.items())
    else:
        yield _Columns.of(whole, rule).row("item 1", whole)


def _of_coco(whole: Mapping[str, Any]) -> Iterator[_Row | Listed]:
    """Yield the classes of COCO's images. Its categories' numbers are those of this file alone: names are the classes.

    Source: https://cocodataset.org/#format-data
    """
    try:
        names = {category["id"]: category.get("name") or category["id"] for category in whole.get("categories", [])}
        files = {image["id"]: image["file_name"] for image in whole["images"]}
        for annotation in whole["annotations"]:
            file, category = files.get(annotation["image_id"]), annotation["category_id"]
            if file is None:
                yield Listed(f"image {annotation['image_id']}", None, "is in annotations, and not in images")
            else:
                yield _Row(f"image {annotation['image_id']}", file, names.get(category, category))
    except (TypeError, KeyError, AttributeError) as error:
        raise DlassetsError(f"it has images and annotations, and is no COCO file: {error!r}") from error


def _is_task(record: Mapping[str, Any]) -> bool:
    return isinstance(record.get("data"), dict) and isinstance(record.get("annotations"), list)


def _of_task(task: Mapping[str, Any], rule: ListRule) -> Iterator[_Row | Listed]:
    """Yield the class that people gave a photo in a task of Label Studio, as its JSON export has it.

    Source: https://labelstud.io/guide/export
    """
    place = f"task {task.get('id')}"
    try:
        photo = task["data"][_column(task["data"], rule.photo_column, PHOTO_COLUMNS, "photo_column")]
        answers = [answer for answer in task["annotations"] if not answer.get("was_cancelled")]
        values = [result["value"] for answer in answers for result in answer["result"]]
        choices = {choice for value in values for kind in _CHOICES for choice in value.get(kind, [])}
    except DlassetsError as error:
        yield Listed(place, None, str(error))
    except (TypeError, KeyError, AttributeError) as error:
        yield Listed(place, None, f"is none of Label Studio's: {error!r}")
    else:
        yield _Row(place, photo, sorted(choices))
