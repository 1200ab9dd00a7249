"""What a batch of files is on its way in: checked, hashed, and with where and when it came."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dlassets.engines.schema import Column, Table, arrow_type
from dlassets.images.folders import LabelRule, folder_of
from dlassets.images.validate import Reason, validate_files
from dlassets.lakehouse.content import Keeper
from dlassets.lakehouse.tables import CAPTURE, QUARANTINED_FILES, RAW_IMAGES, raw_images_with
from dlassets.settings import IngestSettings, LandingZone
from dlassets.storage.lake import Lake

if TYPE_CHECKING:
    import pyarrow as pa

# A file that could not be read is tried again by the first run after so long, twice as long each time.
_FIRST_WAIT, _LONGEST_WAIT, _MOST_DOUBLINGS = dt.timedelta(minutes=1), dt.timedelta(days=1), 11

# What only a file that is no usable image has a value for.
_REFUSED_COLUMNS = tuple(column for column in QUARANTINED_FILES.columns if column.name not in RAW_IMAGES.names)
LIST_COLUMNS = (*QUARANTINED_FILES.columns, Column("content", "binary", "The list's bytes."))


@dataclass(frozen=True)
class Arrival:
    """One batch's way in: the zone and its settings, the limits that files keep to, and the lake that they go to."""

    landing: str
    zone: LandingZone
    limits: IngestSettings
    lake: Lake
    batch_id: str
    tries: Mapping[str, int] = field(default_factory=dict)  # how often these paths could not be read before
    load_date: dt.date = field(default_factory=lambda: dt.datetime.now(dt.UTC).date())

    @property
    def table(self) -> Table:
        return raw_images_with(self.limits.capture)

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns of a checked file: those of the table, and what only a file that is no usable image has."""
        return (*self.table.columns, *_REFUSED_COLUMNS)


def check_files(batch: pa.RecordBatch, arrival: Arrival) -> pa.RecordBatch:
    """Kernel: files validated, hashed and put where their bytes are kept, with where and when they came in."""
    import pyarrow as pa

    limits, rule = arrival.limits, LabelRule.of(arrival.zone)
    checked = validate_files(
        batch,
        label_rule=rule,
        max_file_bytes=limits.max_file_bytes,
        max_pixels=limits.max_pixels,
        formats=limits.formats,
    )
    columns = _arrived(checked, arrival)
    columns["folder"] = pa.array([folder_of(path) for path in checked["path"].to_pylist()], pa.string())
    columns |= _captured(arrival.table, checked)
    columns |= Keeper(limits.storage, arrival.lake, arrival.zone.uri).keep(checked)
    return pa.RecordBatch.from_pydict({column.name: columns[column.name] for column in arrival.columns})


def check_lists(batch: pa.RecordBatch, arrival: Arrival) -> pa.RecordBatch:
    """Kernel: lists of labels with their bytes, with where and when they came in."""
    import pyarrow as pa

    checked = validate_files(batch, max_file_bytes=arrival.limits.max_file_bytes, max_pixels=None)
    columns = _arrived(checked, arrival)
    return pa.RecordBatch.from_pydict({column.name: columns[column.name] for column in LIST_COLUMNS})


def _arrived(checked: pa.RecordBatch, arrival: Arrival) -> dict[str, pa.Array]:
    """Return the columns of checked files, with where and when they came in and whether they are tried again."""
    import pyarrow as pa

    rows = checked.num_rows
    return {
        **{name: checked[name] for name in checked.schema.names},
        "landing": pa.repeat(pa.scalar(arrival.landing), rows),
        "load_date": pa.repeat(pa.scalar(arrival.load_date, pa.date32()), rows),
        "batch_id": pa.repeat(pa.scalar(arrival.batch_id), rows),
        "dropped_at": pa.nulls(rows, arrow_type("timestamp")),
        **{name: pa.nulls(rows, pa.string()) for name in ("stage", "code_version")},
        **_tried_again(checked, arrival.tries),
    }


def _tried_again(checked: pa.RecordBatch, tries: Mapping[str, int]) -> dict[str, pa.Array]:
    """Return tries, retry_at and detail: what could not be read says nothing of the file, and is tried again later.

    What is off is tried again once it is on.
    """
    import pyarrow as pa

    now = dt.datetime.now(dt.UTC)
    rows: list[tuple[int | None, dt.datetime | None, str | None]] = []
    for path, reason, detail in zip(*(checked[name].to_pylist() for name in ("path", "reason", "detail")), strict=True):
        tried = tries.get(path, 0) + 1
        if reason != Reason.UNREADABLE:
            rows.append((tried if reason == Reason.FORMAT_OFF else None, None, detail))
            continue
        retry_at = now + min(_FIRST_WAIT * 2 ** min(tried - 1, _MOST_DOUBLINGS), _LONGEST_WAIT)
        said = f"{detail} (tried {tried} times, and again after {retry_at:%Y-%m-%d %H:%M} UTC)"
        rows.append((tried, retry_at, said))
    tried_times, retried, details = zip(*rows, strict=True) if rows else ((), (), ())
    return {
        "tries": pa.array(tried_times, pa.int32()),
        "retry_at": pa.array(retried, arrow_type("timestamp")),
        "detail": pa.array(details, pa.string()),
    }


def _captured(table: Table, checked: pa.RecordBatch) -> dict[str, pa.Array]:
    """Return what cameras wrote down, for those columns of it that the table has; null for what is no image."""
    import pyarrow as pa

    wanted = [column for column in CAPTURE if column.name in table.names]
    if not wanted:
        return {}
    from dlassets.images.capture import capture

    pairs = zip(checked["content"], checked["reason"], strict=True)
    rows = [{} if reason.is_valid else capture(content.as_py()) for content, reason in pairs]
    return {c.name: pa.array([row.get(c.name) for row in rows], table.schema.field(c.name).type) for c in wanted}
