"""What lists beside photos say: written down for each list as it is read, and which photos of the lake that is of."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dlassets.engines.base import Commit, Engine, Snapshot, Written
from dlassets.engines.schema import text_column
from dlassets.errors import DlassetsError
from dlassets.images.folders import FolderClass
from dlassets.images.label_lists import Listed, ListRule, find_photos, read_list
from dlassets.lakehouse.tables import LISTED_LABELS
from dlassets.settings import Settings

# What stands for a photo where a file is no list.
_WHOLE = "the file"

Claim = tuple[str, FolderClass]


@dataclass
class Claims:
    """What lists say of the photos that are there: by path the list, the class that it says and since when.

    Of `listed` entries that say a class, `not_there` name photos that have not come. `problems` are of all others.
    """

    by_path: dict[str, tuple[Claim, dt.datetime]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    listed: int = 0
    not_there: list[str] = field(default_factory=list)


def take_in_lists(
    engine: Engine, table: Snapshot, files: Sequence[Mapping[str, Any]], rule: ListRule, commit: Commit
) -> tuple[Written, list[str]]:
    """Put what lists say in place of what they said before; return also of those that say nothing why.

    `files`, REPLACED_AT_ONCE at most, have path, landing, modificationTime, length and content. What a list said before
    keeps the time since when; all of it stands where its file is no list now.
    """
    import pyarrow as pa

    before = _said_before(engine, table, [file["path"] for file in files])
    rows, problems = [], []
    for file in files:
        as_read = {"list_path": file["path"], "rule": str(rule)}
        as_read |= {name: file[name] for name in ("landing", "modificationTime", "length")}
        said, problem = _said(file, rule, before[file["path"]])
        rows += [{**row, **as_read} for row in said]
        problems += [f"{file['path']} {problem}"] if problem else []
    new = engine.rows(pa.Table.from_pylist(rows, schema=LISTED_LABELS.schema))
    where = {"list_path": [file["path"] for file in files]}
    return engine.replace(new, LISTED_LABELS, table.uri, commit, where), problems


def _said(
    file: Mapping[str, Any], rule: ListRule, before: Sequence[dict[str, Any]]
) -> tuple[list[dict[str, Any]], str | None]:
    """Return the rows of a list, and why it says nothing, if so: then those of before."""
    written = file["modificationTime"]
    try:
        listed = read_list(file["content"], file["path"], rule)
    except DlassetsError as error:
        problem = f"cannot be used: {error}"
        kept = [row for row in before if row["photo"] != _WHOLE]
        return [*kept, {"photo": _WHOLE, "problem": problem, "said_at": written}], problem
    since = {(row["photo"], row["label"], row["label_name"]): row["said_at"] for row in before}
    return [_row(each, since, written) for each in listed], None


def _said_before(engine: Engine, table: Snapshot, paths: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    query = """
        SELECT listed.list_path, listed.photo, listed.label, listed.label_name, listed.problem, listed.said_at
        FROM listed_labels AS listed JOIN lists ON lists.path = listed.list_path
    """
    lists = engine.rows(text_column("path", paths))
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in engine.sql(query, {LISTED_LABELS.name: table, "lists": lists}).arrow().to_pylist():
        found[row["list_path"]].append(row)
    return found


def _row(listed: Listed, since: Mapping[Any, dt.datetime], written: dt.datetime) -> dict[str, Any]:
    label, name = listed.said or (None, None)
    said_at = since.get((listed.photo, label, name), written)
    return {"photo": listed.photo, "label": label, "label_name": name, "problem": listed.problem, "said_at": said_at}


def claims_of_lists(engine: Engine, tables: Mapping[str, Snapshot], settings: Settings) -> Claims:
    """Return what the lists of every zone that has some say of its photos. `tables` are raw_images and listed_labels.

    Of lists that say different classes of a photo the newest counts; one that says two of it says none.
    """
    claims = Claims()
    for name, zone in settings.landing.items():
        if zone.has_lists:
            _claim(claims, engine, tables, name, ignore_case=settings.labels.ignore_case)
    return claims


def classes_in_lists(engine: Engine, listed_labels: Snapshot, settings: Settings) -> list[tuple[Claim, dt.datetime]]:
    """Return every class that a list of a zone says, with its list and since when it says so of some photo."""
    zones = ", ".join(f"'{name}'" for name, zone in settings.landing.items() if zone.has_lists)
    if not zones:
        return []
    query = f"""
        SELECT list_path, label, label_name, MIN(said_at) AS since FROM listed_labels
        WHERE landing IN ({zones}) AND problem IS NULL GROUP BY list_path, label, label_name
    """  # noqa: S608 - checked names
    rows = engine.sql(query, {LISTED_LABELS.name: listed_labels}).arrow().to_pylist()
    return [((row["list_path"], FolderClass(row["label"], row["label_name"])), row["since"]) for row in rows]


def _claim(claims: Claims, engine: Engine, tables: Mapping[str, Snapshot], zone: str, *, ignore_case: bool) -> None:
    photos = engine.sql(
        f"SELECT path FROM raw_images WHERE landing = '{zone}'",  # noqa: S608 - a checked name
        {"raw_images": tables["raw_images"]},
    )
    listed = engine.sql(
        f"SELECT * FROM listed_labels WHERE landing = '{zone}' ORDER BY modificationTime, list_path, photo",  # noqa: S608
        {LISTED_LABELS.name: tables[LISTED_LABELS.name]},
    )
    rows = listed.arrow().to_pylist()
    paths = [path[len(zone) + 1 :] for path in photos.arrow()["path"].to_pylist()]
    folders = {row["list_path"]: row["list_path"][len(zone) + 1 :].rpartition("/")[0] for row in rows}
    named = [row for row in rows if row["problem"] is None]
    found = find_photos({(folders[row["list_path"]], row["photo"]) for row in named}, paths, ignore_case=ignore_case)
    claims.problems += [_entry(row, row["problem"]) for row in rows if row["problem"] is not None]
    said: dict[str, dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for row in named:
        claims.listed += 1
        of_it = found[folders[row["list_path"]], row["photo"]]
        if not of_it:
            claims.not_there.append(_entry(row, "has not come"))
        elif len(of_it) > 1:
            claims.problems.append(_entry(row, f"may be {' or '.join(sorted(of_it)[:2])}: give its folder, too"))
        else:
            said[of_it[0]][row["list_path"]].append(row)
    for path, by_list in said.items():
        newest = list(by_list.values())[-1]
        classes = {FolderClass(row["label"], row["label_name"]) for row in newest}
        if len(classes) > 1:
            claims.problems.append(_entry(newest[0], f"is {path}, of which the list says more than one class"))
        else:
            claim = newest[0]["list_path"], classes.pop()
            claims.by_path[f"{zone}/{path}"] = claim, max(row["said_at"] for row in newest)


def _entry(row: Mapping[str, Any], what: str) -> str:
    return f"{row['list_path']}: {row['photo']} {what}"
