"""The classes that labels mean: a number and a name, each given once, as folders of labelled zones and people say them.

A folder `012.cat` is class 12, called cat. A folder `cat` is the class of that name, and has the next free number where
there is none. A number never changes and never goes to another name; what contradicts a class that is there is no
class, and is said.

A class that a person has merged into another is that other from then on: its number and its names mean it, in folders,
lists and answers, and `with_classes_in_force` says it of rows in which the old one was written down.
"""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from dlassets.engines.base import Commit, Engine, Rows, Snapshot, Transaction, Written
from dlassets.engines.schema import Table, arrow_type
from dlassets.errors import DlassetsError
from dlassets.images.folders import FolderClass, LabelRule, class_of_folder, clean, comparable
from dlassets.lakehouse.listed_labels import claims_of_lists, classes_in_lists
from dlassets.lakehouse.snapshots import transaction_version
from dlassets.lakehouse.tables import CLASSES, LISTED_LABELS
from dlassets.settings import Settings

# What comes before the name of the place that named a class: a folder, what a path says, or a list's entry.
BY_FOLDER, BY_PATH, BY_LIST = "folder ", "path ", "list "
# The label that its place says of a row of `raw_images` AS images: see `labels_said`.
SAID = """
    LEFT JOIN class_folders ON class_folders.landing = images.landing AND class_folders.folder = images.folder
    LEFT JOIN class_paths ON class_paths.path = images.path
"""
SAID_LABEL, SAID_NAME = (f"COALESCE(class_paths.{name}, class_folders.{name})" for name in ("label", "label_name"))
# Since when, and by what: a list, or the place itself.
SAID_AT = "COALESCE(class_paths.said_at, images.modificationTime)"
SAID_BY = "CASE WHEN class_paths.said_at IS NULL THEN 'folder' ELSE 'list' END"
_APP_ID = f"dlassets/{CLASSES.name}"


@dataclass(frozen=True)
class Class:
    """A row of `classes`."""

    label: int
    name: str
    aliases: list[str]
    since: dt.datetime
    said_by: str
    merged_into: int | None = None
    merged_at: dt.datetime | None = None
    merged_by: str | None = None

    @property
    def is_merged(self) -> bool:
        return self.merged_into is not None

    @property
    def in_force(self) -> int:
        """The class that this one is: another, where it was merged into that."""
        return self.label if self.merged_into is None else self.merged_into

    @property
    def has_name(self) -> bool:
        """Whether it has a name beside its number."""
        return self.name != str(self.label)

    @property
    def names(self) -> list[str]:
        return [self.name, *self.aliases] if self.has_name else []


@dataclass(frozen=True)
class Folder:
    """A folder of a labelled zone: what its name says, its oldest file, and whether a file of it is still there.

    Or a class that paths or a list say: then `name` is what they say of it, and `landing` the list's path.
    """

    landing: str
    name: str
    said: FolderClass
    oldest: dt.datetime
    is_there: bool
    by: str = BY_FOLDER

    def __str__(self) -> str:
        return f"{self.landing}/{self.name}"

    def joined(self, other: Folder) -> Folder:
        """Return both as one."""
        return replace(self, oldest=min(self.oldest, other.oldest), is_there=self.is_there or other.is_there)


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

    `tables` are raw_images, deleted_files, listed_labels and classes. None new, no new version.
    """
    decided = _decided(engine, tables, settings)
    return _write(engine, tables[CLASSES.name], decided.changed, commit), decided.problems


def labels_said(engine: Engine, tables: Mapping[str, Snapshot], settings: Settings) -> dict[str, Rows]:
    """Return the tables of SAID: label and label_name by landing and folder, and by path where paths or lists say them.

    Those are classes of `classes`; what has come since that was written has no label yet.
    """
    import pyarrow as pa

    known = classes_of(engine, tables[CLASSES.name])
    said = _said(engine, tables, settings)
    for path, ((list_path, class_), since) in claims_of_lists(engine, tables, settings).by_path.items():
        said.paths[path] = (list_path, str(class_)), since
    labels = decide(known, said.folders, ignore_case=settings.labels.ignore_case).labels
    labelled = {place: (labels[place], known[labels[place]].name) for place in labels if labels[place] in known}
    folders = [(folder.landing, folder.name) for folder in said.folders if folder.by == BY_FOLDER]
    by_folder = [(*place, *labelled[place]) for place in folders if place in labelled]
    by_path = [(path, *labelled[place], since) for path, (place, since) in said.paths.items() if place in labelled]
    text, number, time = pa.string(), pa.int64(), arrow_type("timestamp")
    kinds = {"landing": text, "folder": text, "path": text, "label": number, "label_name": text, "said_at": time}

    def rows(values: Sequence[tuple[Any, ...]], *names: str) -> Rows:
        schema = pa.schema([(name, kinds[name]) for name in names])
        return engine.rows(pa.Table.from_pylist([dict(zip(names, row, strict=True)) for row in values], schema))

    return {
        "class_folders": rows(by_folder, "landing", "folder", "label", "label_name"),
        "class_paths": rows(by_path, "path", "label", "label_name", "said_at"),
    }


def problems_of_folders(engine: Engine, tables: Mapping[str, Snapshot], settings: Settings) -> list[str]:
    """Return what is said of each folder whose photos have no label, since it contradicts a class."""
    return _decided(engine, tables, settings).problems


def classes_of(engine: Engine, classes: Snapshot) -> dict[int, Class]:
    """Return every class by its label, in order."""
    query = f"SELECT {', '.join(CLASSES.names)} FROM classes ORDER BY label"  # noqa: S608 - the table's own columns
    rows = engine.sql(query, {CLASSES.name: classes}).arrow().to_pylist()
    return {row["label"]: Class(**row) for row in rows}


def known_classes(engine: Engine, classes: Snapshot) -> dict[int, str]:
    """Return the name of every class by its label, but of those that were merged into others."""
    return {label: each.name for label, each in classes_of(engine, classes).items() if not each.is_merged}


def merged_classes(engine: Engine, classes: Snapshot) -> dict[int, Class]:
    """Return the class that each one is by now which was merged into another, by the label that it had."""
    known = classes_of(engine, classes)
    return {label: known[each.in_force] for label, each in known.items() if each.is_merged}


# SQL over `classes`: what a class is that was merged into another.
_MERGED = """
    SELECT old.label, old.merged_into, other.name
    FROM classes AS old JOIN classes AS other ON other.label = old.merged_into
"""
# Types of what a row of a wide table has besides, which nobody compares.
_WIDE = {"binary", "array<float>"}
# The columns that hold a class, with those that hold its name.
_NAMES = {
    "label": "label_name",
    "predicted_label": "predicted_name",
    "suggested_label": "suggested_name",
    "known_label": "known_name",
}


def with_classes_in_force(table: Table) -> str:
    """Return SQL over a table and `classes` for its narrow columns, in which a class that was merged is the other.

    A name goes with its class, where the table has it. Whatever compares what models, people and folders said reads it
    through this: what they said stays written as it was.
    """
    names = {name: label for label, name in _NAMES.items()}
    columns, joins = [], []
    for column in (column.name for column in table.columns if column.type not in _WIDE):
        if column in _NAMES:
            joins.append(f"LEFT JOIN ({_MERGED}) AS of_{column} ON of_{column}.label = said.{column}")
            columns.append(f"COALESCE(of_{column}.merged_into, said.{column}) AS {column}")
        elif column in names:
            columns.append(f"COALESCE(of_{names[column]}.name, said.{column}) AS {column}")
        else:
            columns.append(f"said.{column}")
    return f"SELECT {', '.join(columns)} FROM {table.name} AS said {' '.join(joins)}"  # noqa: S608 - the table's columns


def merge_classes(engine: Engine, classes: Snapshot, label: int, into: int, merged_by: str) -> Class:
    """Have one class be another from now on, and return that. Raises DlassetsError where that cannot be.

    What was merged into the first before is the other, too. Its number never goes to another class.
    """
    known = classes_of(engine, classes)
    for number in (label, into):
        if number not in known:
            raise DlassetsError(f"{number} is no class: `dlassets classes` shows them.")
    old, now = known[label], known[into]
    if label == into:
        raise DlassetsError(f"{label} cannot be merged into itself: name the class that it is to be.")
    if old.is_merged:
        raise DlassetsError(f"Class {label} was merged into {old.merged_into} already, by {old.merged_by}.")
    if now.is_merged:
        circle = ", so that would go in a circle" if now.merged_into == label else f": merge into {now.merged_into}"
        raise DlassetsError(f"Class {into} is none any more, it was merged into {now.merged_into}{circle}.")
    merged = replace(old, merged_into=into, merged_at=dt.datetime.now(dt.UTC), merged_by=merged_by)
    before = [replace(each, merged_into=into) for each in known.values() if each.merged_into == label]
    _write(engine, classes, [merged, *before], Commit({"asset": CLASSES.name}))
    return now


def name_class(
    engine: Engine, classes: Snapshot, name: str, said_by: str, label: int | None = None, *, ignore_case: bool = False
) -> Class:
    """Add a class, or give the one of that label another name. Raises DlassetsError for a name that another has."""
    known, name = classes_of(engine, classes), clean(name)
    if not name or name.isdigit():
        raise DlassetsError(f"{name!r} is no name for a class: a name is not empty, and no number alone.")
    same = functools.partial(comparable, ignore_case=ignore_case)
    if label in known and known[label].is_merged:
        raise DlassetsError(f"Class {label} was merged into {known[label].merged_into}: rename that.")
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
        if known is not None and (name is None or not folder.is_there or self._label_of(name) == known.in_force):
            return known.in_force
        if name is None:
            return self._add(number, str(number), folder)
        if (other := self._label_of(name)) is not None:
            self._refuse(folder, f"{name} is class {other} already")
        elif known is not None and self._is_used(known):
            is_now = f", merged into {known.merged_into}," if known.is_merged else ""
            self._refuse(folder, f"class {number} is {known.name}{is_now} already")
        else:
            return self._add(number, name, folder)
        return None

    def _add(self, label: int, name: str, folder: Folder) -> int:
        named = _named(self.decided.classes.get(label), label, name, folder.oldest, f"{folder.by}{folder}")
        self.decided.classes[label] = named
        self.decided.changed = [each for each in self.decided.changed if each.label != label] + [named]
        return label

    def _refuse(self, folder: Folder, why: str) -> None:
        if folder.is_there:
            self.decided.problems.append(f"{folder}: {why}")

    def _is_used(self, known: Class) -> bool:
        """Whether a person named the class, or a folder that is there still does; else its folder was renamed."""
        of_a_place = known.said_by.startswith((BY_FOLDER, BY_PATH, BY_LIST))
        by_person = known.is_merged or (known.has_name and not of_a_place)
        by_folder = {(number, self.same(name)) for name in known.names for number in (known.label, None)}
        return by_person or bool(by_folder & self.there)

    def _label_of(self, name: str) -> int | None:
        return _by_name(self.decided.classes, self.same).get(self.same(name))


def _named(known: Class | None, label: int, name: str, since: dt.datetime, said_by: str) -> Class:
    """Return a class that is new, or has another name now."""
    aliases = [] if known is None else [before for before in known.names if before != name]
    return Class(label, name, aliases, since, said_by)


def _by_name(classes: Mapping[int, Class], same: Callable[[str], str]) -> dict[str, int]:
    return {same(name): each.in_force for each in classes.values() for name in each.names}


def _next(labels: Iterable[int]) -> int:
    return max(labels, default=0) + 1


def _decided(engine: Engine, tables: Mapping[str, Snapshot], settings: Settings) -> Decided:
    folders = _said(engine, tables, settings).folders
    return decide(classes_of(engine, tables[CLASSES.name]), folders, ignore_case=settings.labels.ignore_case)


@dataclass
class _Said:
    """What says classes: folders; and of paths that have their own, the place that says it, and a list's time."""

    folders: list[Folder] = field(default_factory=list)
    paths: dict[str, tuple[tuple[str, str], dt.datetime | None]] = field(default_factory=dict)


def _said(engine: Engine, tables: Mapping[str, Snapshot], settings: Settings) -> _Said:
    rules = {name: rule for name, zone in settings.landing.items() if (rule := LabelRule.of(zone)) is not None}
    said = _Said()
    for row in _of_zones(engine, tables, "folder", [name for name, rule in rules.items() if not rule.of_path]):
        found = class_of_folder(row["said"], rules[row["landing"]].pattern)
        if found is not None:
            said.folders.append(Folder(row["landing"], row["said"], found, row["oldest"], bool(row["is_there"])))
    in_paths: dict[tuple[str, str], Folder] = {}
    for row in _of_zones(engine, tables, "path", [name for name, rule in rules.items() if rule.of_path]):
        found = rules[row["landing"]].class_of(row["said"])
        if found is not None:
            one = Folder(row["landing"], str(found), found, row["oldest"], bool(row["is_there"]), by=BY_PATH)
            place = one.landing, one.name
            said.paths[row["said"]] = place, None
            in_paths[place] = one.joined(in_paths.get(place, one))
    said.folders += in_paths.values()
    for (list_path, class_), since in classes_in_lists(engine, tables[LISTED_LABELS.name], settings):
        said.folders.append(Folder(list_path, str(class_), class_, since, is_there=True, by=BY_LIST))
    return said


def _of_zones(engine: Engine, tables: Mapping[str, Snapshot], what: str, zones: Sequence[str]) -> list[dict[str, Any]]:
    """Return every folder, or every path, of some zones: its oldest file's time, and whether a file is still there."""
    if not zones:
        return []
    names = ", ".join(f"'{name}'" for name in zones)
    query = f"""
        SELECT images.landing, images.{what} AS said, MIN(images.modificationTime) AS oldest,
            MAX(CASE WHEN gone.path IS NULL THEN 1 ELSE 0 END) AS is_there
        FROM raw_images AS images
        LEFT JOIN deleted_files AS gone ON gone.path = images.path AND gone.returned_at IS NULL
        WHERE images.landing IN ({names})
        GROUP BY images.landing, images.{what}
    """  # noqa: S608 - one of two columns, and checked names
    rows: list[dict[str, Any]] = (
        engine.sql(query, {name: tables[name] for name in ("raw_images", "deleted_files")}).arrow().to_pylist()
    )
    return rows


def _write(engine: Engine, classes: Snapshot, changed: Sequence[Class], commit: Commit) -> Written:
    import pyarrow as pa

    rows = pa.Table.from_pylist([vars(each) for each in changed], schema=CLASSES.schema)
    # Of two runs that give the same number at once, one is refused and decides anew.
    transaction = Transaction(_APP_ID, transaction_version(classes, _APP_ID) + 1)
    return engine.merge(engine.rows(rows), CLASSES, classes.uri, replace(commit, transaction=transaction))
