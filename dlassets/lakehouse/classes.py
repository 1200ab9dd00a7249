"""The classes that labels mean: a number and a name, each given once, as folders of labelled zones and people say them.

A folder `012.cat` is class 12, called cat. A folder `cat` is the class of that name, and has the next free number where
there is none. A number never changes and never goes to another name; what contradicts a class that is there is no
class, and is said.
"""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from dlassets.engines.base import Commit, Engine, Rows, Snapshot, Transaction, Written
from dlassets.errors import DlassetsError
from dlassets.images.folders import FolderClass, class_of_folder, clean, comparable
from dlassets.lakehouse.snapshots import transaction_version
from dlassets.lakehouse.tables import CLASSES
from dlassets.settings import LandingZone, Settings

BY_FOLDER = "folder "
_APP_ID = f"dlassets/{CLASSES.name}"


@dataclass(frozen=True)
class Class:
    """A row of `classes`."""

    label: int
    name: str
    aliases: list[str]
    since: dt.datetime
    said_by: str

    @property
    def has_name(self) -> bool:
        """Whether it has a name beside its number."""
        return self.name != str(self.label)

    @property
    def names(self) -> list[str]:
        return [self.name, *self.aliases] if self.has_name else []


@dataclass(frozen=True)
class Folder:
    """A folder of a labelled zone: what its name says, its oldest file, and whether a file of it is still there."""

    landing: str
    name: str
    said: FolderClass
    oldest: dt.datetime
    is_there: bool

    def __str__(self) -> str:
        return f"{self.landing}/{self.name}"


@dataclass
class Decided:
    """The classes there are then, which of them are new or named anew, each folder's label, and what is no class."""

    classes: dict[int, Class]
    changed: list[Class] = field(default_factory=list)
    labels: dict[tuple[str, str], int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def update_classes(
    engine: Engine,
    tables: Mapping[str, Snapshot],
    settings: Settings,
    commit: Commit,
) -> tuple[Written, list[str]]:
    """Write down the classes that folders say and nobody has said before; return what contradicts the others, too.

    `tables` are raw_images, deleted_files and classes. None new, no new version.
    """
    decided = _decided(engine, tables, settings)
    return _write(engine, tables[CLASSES.name], decided.changed, commit), decided.problems


def labels_of_folders(engine: Engine, tables: Mapping[str, Snapshot], settings: Settings) -> Rows:
    """Return landing, folder, label and label_name of every folder that says a class of `classes`."""
    import pyarrow as pa

    known = classes_of(engine, tables[CLASSES.name])
    labels = _decided(engine, tables, settings).labels
    rows = [
        {"landing": landing, "folder": folder, "label": label, "label_name": known[label].name}
        for (landing, folder), label in labels.items()
        if label in known
    ]
    types = {"landing": pa.string(), "folder": pa.string(), "label": pa.int64(), "label_name": pa.string()}
    return engine.rows(pa.Table.from_pylist(rows, pa.schema(types)))


def problems_of_folders(engine: Engine, tables: Mapping[str, Snapshot], settings: Settings) -> list[str]:
    """Return what is said of each folder whose photos have no label, since it contradicts a class."""
    return _decided(engine, tables, settings).problems


def classes_of(engine: Engine, classes: Snapshot) -> dict[int, Class]:
    """Return every class by its label, in order."""
    query = f"SELECT {', '.join(CLASSES.names)} FROM classes ORDER BY label"  # noqa: S608 - the table's own columns
    rows = engine.sql(query, {CLASSES.name: classes}).arrow().to_pylist()
    return {row["label"]: Class(**row) for row in rows}


def known_classes(engine: Engine, classes: Snapshot) -> dict[int, str]:
    """Return the name of every class by its label."""
    return {label: each.name for label, each in classes_of(engine, classes).items()}


def name_class(
    engine: Engine, classes: Snapshot, name: str, said_by: str, label: int | None = None, *, ignore_case: bool = False
) -> Class:
    """Add a class, or give the one of that label another name. Raises DlassetsError for a name that another has."""
    known, name = classes_of(engine, classes), clean(name)
    if not name or name.isdigit():
        raise DlassetsError(f"{name!r} is no name for a class: a name is not empty, and no number alone.")
    same = functools.partial(comparable, ignore_case=ignore_case)
    taken = _by_name(known, same).get(same(name))
    if taken is not None and taken != label:
        raise DlassetsError(f"{name} is class {taken} already. A name belongs to one class.")
    number = _next(known) if label is None else label
    named = _named(known.get(number), number, name, dt.datetime.now(dt.UTC), said_by)
    _write(engine, classes, [named], Commit({"asset": CLASSES.name}))
    return named


def decide(known: Mapping[int, Class], folders: Sequence[Folder], *, ignore_case: bool = False) -> Decided:
    """Decide the class of every folder: first of those with number and name, the oldest first; then of bare numbers, so
    that `1` beside `001.cat` is cat; then of bare names, by the alphabet.
    """
    decided, same = Decided(dict(known)), functools.partial(comparable, ignore_case=ignore_case)
    there = {(folder.said.label, same(folder.said.name or "")) for folder in folders if folder.is_there}
    for folder in sorted(folders, key=_turn):
        _Deciding(decided, there, same).take(folder)
    return decided


def _turn(folder: Folder) -> tuple[Any, ...]:
    number, name = folder.said
    if number is None:
        return 2, name, str(folder)
    return (0 if name else 1), folder.oldest, str(folder)


@dataclass
class _Deciding:
    """One folder's turn. `there` are the number and name of each folder that has files."""

    decided: Decided
    there: set[tuple[int | None, str]]
    same: Callable[[str], str]

    def take(self, folder: Folder) -> None:
        number, name = folder.said
        label = self._numbered(folder, number, name) if number is not None else self._named(folder, name or "")
        if label is not None:
            self.decided.labels[folder.landing, folder.name] = label

    def _named(self, folder: Folder, name: str) -> int | None:
        label = self._label_of(name)
        if label is None and folder.is_there:
            label = self._add(_next(self.decided.classes), name, folder)
        return label

    def _numbered(self, folder: Folder, number: int, name: str | None) -> int | None:
        known = self.decided.classes.get(number)
        if known is not None and (name is None or not folder.is_there or self._label_of(name) == number):
            return number
        if name is None:
            return self._add(number, str(number), folder)
        if (other := self._label_of(name)) is not None:
            self._refuse(folder, f"{name} is class {other} already")
        elif known is not None and self._is_used(known):
            self._refuse(folder, f"class {number} is {known.name} already")
        else:
            return self._add(number, name, folder)
        return None

    def _add(self, label: int, name: str, folder: Folder) -> int:
        named = _named(self.decided.classes.get(label), label, name, folder.oldest, f"{BY_FOLDER}{folder}")
        self.decided.classes[label] = named
        self.decided.changed = [each for each in self.decided.changed if each.label != label] + [named]
        return label

    def _refuse(self, folder: Folder, why: str) -> None:
        if folder.is_there:
            self.decided.problems.append(f"{folder}: {why}")

    def _is_used(self, known: Class) -> bool:
        """Whether a person named the class, or a folder that is there still does; else its folder was renamed."""
        by_person = known.has_name and not known.said_by.startswith(BY_FOLDER)
        by_folder = {(number, self.same(name)) for name in known.names for number in (known.label, None)}
        return by_person or bool(by_folder & self.there)

    def _label_of(self, name: str) -> int | None:
        return _by_name(self.decided.classes, self.same).get(self.same(name))


def _named(known: Class | None, label: int, name: str, since: dt.datetime, said_by: str) -> Class:
    """Return a class that is new, or has another name now."""
    aliases = [] if known is None else [before for before in known.names if before != name]
    return Class(label, name, aliases, since, said_by)


def _by_name(classes: Mapping[int, Class], same: Callable[[str], str]) -> dict[str, int]:
    return {same(name): label for label, each in classes.items() for name in each.names}


def _next(labels: Iterable[int]) -> int:
    return max(labels, default=0) + 1


def _decided(engine: Engine, tables: Mapping[str, Snapshot], settings: Settings) -> Decided:
    query = """
        SELECT images.landing, images.folder, MIN(images.modificationTime) AS oldest,
            MAX(CASE WHEN gone.path IS NULL THEN 1 ELSE 0 END) AS is_there
        FROM raw_images AS images
        LEFT JOIN deleted_files AS gone ON gone.path = images.path AND gone.returned_at IS NULL
        GROUP BY images.landing, images.folder
    """
    rows = engine.sql(query, {name: tables[name] for name in ("raw_images", "deleted_files")}).arrow().to_pylist()
    folders = [folder for row in rows if (folder := _folder(row, settings.landing)) is not None]
    return decide(classes_of(engine, tables[CLASSES.name]), folders, ignore_case=settings.labels.ignore_case)


def _folder(row: Mapping[str, Any], zones: Mapping[str, LandingZone]) -> Folder | None:
    zone = zones.get(row["landing"])
    said = class_of_folder(row["folder"], zone.label_rule) if zone is not None and zone.labelled else None
    return None if said is None else Folder(row["landing"], row["folder"], said, row["oldest"], bool(row["is_there"]))


def _write(engine: Engine, classes: Snapshot, changed: Sequence[Class], commit: Commit) -> Written:
    import pyarrow as pa

    rows = pa.Table.from_pylist([vars(each) for each in changed], schema=CLASSES.schema)
    # Of two runs that give the same number at once, one is refused and decides anew.
    transaction = Transaction(_APP_ID, transaction_version(classes, _APP_ID) + 1)
    return engine.merge(engine.rows(rows), CLASSES, classes.uri, replace(commit, transaction=transaction))
