"""What was scored and what was wrong as Markdown with the photos in it, small enough for an asset's metadata."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from dlassets.images.data_uri import data_uri
from dlassets.monitoring.labeling_report.measures import Measure
from dlassets.monitoring.outcomes import BINS, Row, Scored
from dlassets.monitoring.views.bought import Bought
from dlassets.monitoring.views.comparison import Comparison

# Letters that the pictures of one text may take: metadata lie in Dagster's database with each run.
ROOM = 40_000
_CLASSES, _BAR, _NAME = 20, 30, 200


def classes(scored: Scored) -> str:
    """Return a table of the classes predicted, the commonest first."""
    shown = [(plain(name), f"{photos:,}", f"{mean:.3f}") for name, photos, mean in scored.classes[:_CLASSES]]
    if others := scored.classes[_CLASSES:]:
        photos = sum(number for _, number, _ in others)
        mean = sum(number * mean for _, number, mean in others) / photos
        shown.append((f"{len(others):,} other classes", f"{photos:,}", f"{mean:.3f}"))
    return _table(("predicted", "photos", "mean confidence"), shown)


def confidence(scored: Scored) -> str:
    """Return a histogram of confidence, the surest first."""
    most = max([*scored.by_confidence, 1])
    rows = [
        (f"{place / BINS:.1f} to {(place + 1) / BINS:.1f}", f"{photos:,}", "█" * -(-_BAR * photos // most))
        for place, photos in enumerate(scored.by_confidence)
    ]
    return _table(("confidence", "photos", ""), [row for row in reversed(rows) if row[1] != "0"])


def comparison(found: Comparison) -> str:
    """Return how two versions differ: sentences, and a table of which class one takes for which."""
    text = [*found.sentences]
    if found.pairs:
        titles = ("photos", f"version {found.a.version} says", f"version {found.b.version} says")
        rows = [(f"{pair.photos:,}", plain(pair.name_a), plain(pair.name_b)) for pair in found.pairs]
        text.append(_table(titles, rows))
    return "\n\n".join(text)


def served(rows: Sequence[Row]) -> str:
    """Return how many answers each version gave to requests, and how many of those with a label were right."""
    counts = ("answers", "judged", "correct")
    shown = [(str(row["model_version"]), plain(row["role"]), *(f"{row[name]:,}" for name in counts)) for row in rows]
    return _table(("version", "role", "answers", "labelled since", "right"), shown)


def bought(found: Bought) -> str:
    """Return what people's answers say of each version, and what they were worth."""
    titles = ("version", "labels of people", "test photos", "people's photos", "by chance", "chosen", "per 100 labels")
    rows = [
        (
            str(version.model.version),
            "" if version.labels is None else f"{version.labels.value:,.0f} of {version.labels.count:,}",
            *map(_share, (version.test, version.people, version.random, version.chosen)),
            "" if version.gain is None else _ends(version.gain, "{:+.3f}"),
        )
        for version in found.versions
    ]
    return _table(titles, rows) if rows else "Nothing that people answered tells of a version yet."


def _share(measure: Measure | None) -> str:
    return "" if measure is None else f"{_ends(measure, '{:.3f}')} of {measure.count:,}"


def _ends(measure: Measure, form: str) -> str:
    ends = "" if measure.interval is None else f" ({' to '.join(map(form.format, measure.interval))})"
    return f"{form.format(measure.value)}{ends}"


def photos(
    rows: Sequence[Row], thumbnails: Mapping[str, bytes], columns: Mapping[str, str], page_of: Callable[[str], str]
) -> str:
    """Return a table of photos, each seen as far as there is room, with `columns` of its row under these names.

    `page_of` gives the address of a photo's page, to which its path is a link.
    """
    left, table = ROOM, []
    for row in rows:
        thumbnail = thumbnails.get(row["image_id"])
        seen = "" if thumbnail is None else f"![]({data_uri(thumbnail)})"
        if len(seen) > left:
            seen = ""
        left -= len(seen)
        cells = {name: _cell(row[name]) for name in columns}
        if "path" in cells:
            cells["path"] = f"[{cells['path']}]({page_of(row['path'])})"
        table.append((seen, *cells.values()))
    return _table(("", *columns.values()), table)


def plain(text: str) -> str:
    """Return a text so that Markdown shows every letter of it and takes none for a sign of its own."""
    return re.sub(r"\b_|_\b|[^\w ./-]", lambda found: f"&#{ord(found[0])};", text[:_NAME])


def _cell(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else plain("" if value is None else str(value))


def _table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
