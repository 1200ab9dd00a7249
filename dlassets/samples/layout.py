"""What a set of photos that somebody else made says of their classes: by folders, a list beside them, or file names."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from dlassets.errors import DlassetsError
from dlassets.images.folders import FolderClass, LabelRule, class_folder, comparable, is_numbered, why_no_class
from dlassets.images.label_lists import ListRule, find_photos, read_list

# A class and a number: cat.0.jpg, Abyssinian_12.jpg.
NAME_RULE = r"(?:^|/)(?P<name>[^/]*?[^\W\d_][^/]*?)[._ -]+\d+\.\w+$"
# What cameras and programs call any photo.
_ANY_PHOTO = re.compile(
    r"(img|dscn?|dscf|pxl|p|pic|photos?|images?|picture|frame|mvi|gopr|dji|screenshot|scan|file|untitled)$",
    re.IGNORECASE,
)
_MOST_SHOWN = 10


@dataclass(frozen=True)
class Layout:
    """The class folder that each photo goes to, and what says so. Photos that are not among them have no class."""

    said_by: str
    folders: Mapping[PurePosixPath, str]

    def told(self, photos: int) -> str:
        """Return what was understood of so many photos, in a sentence."""
        counts = Counter(self.folders.values())
        classes = ", ".join(f"{name} {number:,}" for name, number in sorted(counts.items())[:_MOST_SHOWN])
        more = f" and {len(counts) - _MOST_SHOWN} more" if len(counts) > _MOST_SHOWN else ""
        left = photos - len(self.folders)
        without = f" {left:,} other photos have no class and are left out." if left else ""
        return f"{len(self.folders):,} photos of {len(counts)} classes, by {self.said_by}: {classes}{more}.{without}"


def understand(photos: Sequence[PurePosixPath], lists: Mapping[PurePosixPath, Callable[[], bytes]]) -> Layout | None:
    """Return what says the photos' classes; None where nothing does. `lists` are files that may be lists of labels.

    Folders that are numbered; else lists that say the class of half of the photos at least; else folders; else file
    names of a class and a number. Raises DlassetsError where some class folders are numbered and others are not.
    """
    folders = _by_folder(photos)
    if folders is not None and any(is_numbered(name) for name in {path.parent.name for path in folders.folders}):
        return folders
    listed = _by_lists(photos, lists)
    if listed is not None and 2 * len(listed.folders) >= len(photos):
        return listed
    found = [layout for layout in (folders, _by_name(photos), listed) if layout is not None]
    several = [layout for layout in found if len({*layout.folders.values()}) > 1]
    return next(iter(several or found), None)


def _by_folder(photos: Sequence[PurePosixPath]) -> Layout | None:
    names = _class_folders({path.parent for path in photos if len(path.parts) > 1})
    said = {path: names[path.parent] for path in photos if path.parent in names}
    return Layout("their folders", said) if said else None


def _class_folders(parents: set[PurePosixPath]) -> dict[PurePosixPath, str]:
    """The class folders among those that hold photos, and what they will be called."""
    numbered = {path for path in parents if is_numbered(path.name)}
    if numbered:
        beside = {path.parent for path in numbered}
        if strays := sorted(path.name for path in parents - numbered if path.parent in beside):
            raise DlassetsError(
                f"Some class folders begin with a number and others do not ({', '.join(strays[:5])}). "
                "Give every one a number, or none."
            )
        return {path: path.name for path in numbered}
    above = {folder for path in parents for folder in path.parents}
    classes = {path for path in parents - above if why_no_class(path.name, path.parts[:-1]) is None}
    numbers = _numbered(FolderClass(None, path.name) for path in classes)
    return {path: numbers[FolderClass(None, path.name)] for path in classes}


def _by_lists(photos: Sequence[PurePosixPath], lists: Mapping[PurePosixPath, Callable[[], bytes]]) -> Layout | None:
    said: dict[PurePosixPath, set[FolderClass]] = defaultdict(set)
    used = []
    for path, read in sorted(lists.items()):
        if claims := _claims(photos, path, read):
            used.append(str(path))
            for photo, each in claims:
                said[photo].add(each)
    agreed = {photo: classes.pop() for photo, classes in said.items() if len(classes) == 1}
    return _layout(f"the list {used[0]}" if len(used) == 1 else f"{len(used)} lists", agreed) if agreed else None


def _claims(
    photos: Sequence[PurePosixPath], path: PurePosixPath, read: Callable[[], bytes]
) -> list[tuple[PurePosixPath, FolderClass]]:
    """Return the class that a list says of each photo that is there; nothing where the file is no list."""
    try:
        listed = {each.photo: each.said for each in read_list(read(), path.name, ListRule()) if each.said is not None}
    except DlassetsError:  # another file of its kind
        return []
    folder = str(path.parent) if path.parent.name else ""
    found = find_photos([(folder, photo) for photo in listed], map(str, photos))
    return [(PurePosixPath(paths[0]), listed[photo]) for (_, photo), paths in found.items() if len(paths) == 1]


def _by_name(photos: Sequence[PurePosixPath]) -> Layout | None:
    rule = LabelRule(NAME_RULE, of_path=True)
    said = {path: found for path in photos if (found := rule.class_of(f"set/{path}")) is not None}
    counts = Counter(said.values())
    kept = {path: each for path, each in said.items() if counts[each] > 1 and not _ANY_PHOTO.match(each.name or "")}
    is_rule = len({*kept.values()}) > 1 and 2 * len(kept) >= len(photos)
    return _layout("their file names", kept) if is_rule else None


def _layout(said_by: str, said: Mapping[PurePosixPath, FolderClass]) -> Layout:
    numbers = _numbered(said.values())
    return Layout(said_by, {path: numbers[each] for path, each in said.items()})


def _numbered(classes: Iterable[FolderClass]) -> dict[FolderClass, str]:
    """Return the folder of each class: by its own number, or in the order of the names from the next free one on."""
    all_ = {*classes}
    names = {label: name for label, name in sorted(all_, key=str) if label is not None and name}
    folders = {each: class_folder(each.label, names.get(each.label)) for each in all_ if each.label is not None}
    first = max((each.label for each in all_ if each.label is not None), default=0) + 1
    known = {comparable(name): label for label, name in names.items()}
    bare = sorted({comparable(each.name or "") for each in all_ if each.label is None} - known.keys())
    number = known | {name: first + place for place, name in enumerate(bare)}
    return folders | {
        each: class_folder(number[comparable(each.name or "")], comparable(each.name or ""))
        for each in all_
        if each.label is None
    }
