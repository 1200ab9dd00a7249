"""Records of a row a photo, whatever their columns are called: a spreadsheet's, Azure's, Label Studio's small ones."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from dlassets.images.label_lists import LABEL_COLUMNS, PHOTO_COLUMNS, each_label, label_text
from dlassets.labeling.exchange.base import ForeignAnswer
from dlassets.labeling.formats import ACTS, seconds_of, time_of
from dlassets.lakehouse.tables import SKIPPED, TAKEN_BACK
from dlassets.storage.records import Entry, as_text

_REQUEST = ("request_id", "request-id")
# Without numbers of the service's own, which photos may be called as well.
_PHOTOS = ("image_url", "url", *(name for name in PHOTO_COLUMNS if name not in {"image_id", "id"}))
_ANNOTATORS = ("annotator", "completed_by", "annotated_by", "worker", "worker_id", "user")
_TIMES = ("answered_at", "updated_at", "created_at")
_SECONDS = ("seconds", "lead_time")


def answers_of(entries: Iterable[Entry], *, label_may_lack: bool = False) -> Iterator[ForeignAnswer]:
    """Yield what each row says, in whatever order and under whatever usual names its columns are.

    A row without a column for the label is a problem, unless `label_may_lack`: then it is not answered yet.
    """
    for place, record in entries:
        if isinstance(record, str):
            yield ForeignAnswer(place, problem=record)
        else:
            yield answer_of(place, record, label_may_lack=label_may_lack)


def answer_of(place: str, record: Mapping[str, Any], *, label_may_lack: bool = False) -> ForeignAnswer:
    row = {name.lower(): value for name, value in record.items()}
    label_column = next((name for name in LABEL_COLUMNS if name in row), None)
    if label_column is None and not label_may_lack and not row.get("status"):
        return ForeignAnswer(place, problem=f"has none of the columns {', '.join(LABEL_COLUMNS)}")
    labels = labels_in(row.get(label_column)) if label_column else []
    photo, request_id, image_id = (_first(row, names) for names in (_PHOTOS, _REQUEST, ("image_id",)))
    act = ACTS.get(as_text(row.get("status")).lower())
    try:
        time, took = _first(row, _TIMES), _first(row, _SECONDS)
        return one_class(
            ForeignAnswer(
                place,
                photo.removeprefix("'"),  # which keeps a spreadsheet from taking it for a formula
                request_id,
                image_id,
                annotator=_first(row, _ANNOTATORS) or None,
                answered_at=time_of(time) if time else None,
                seconds=seconds_of(took) if took else None,
                act=act or "answered",
                problem=None if act else f"has the status {as_text(row['status'])[:60]!r}: {SKIPPED} or {TAKEN_BACK}",
            ),
            labels,
        )
    except ValueError as error:
        return ForeignAnswer(place, photo, request_id, image_id, problem=str(error))


def one_class(answer: ForeignAnswer, labels: Iterable[str]) -> ForeignAnswer:
    """Return the answer with the one class that it says: with none it is no answer yet, with two it says nothing."""
    said = sorted({*labels} - {""})
    if answer.problem is not None or answer.act != "answered" or not said:
        return answer
    if len(said) > 1:
        return replace(answer, problem=f"is said to be {' and '.join(label[:60] for label in said[:3])}")
    return replace(answer, label=said[0])


def labels_in(value: object) -> list[str]:
    """Return the classes in a value: text, a number, a list of them, or Label Studio's {"choices": […]}."""
    if isinstance(value, dict):
        return labels_in(value.get("choices"))
    found = each_label(value)
    if isinstance(found, list) and any(isinstance(each, dict) for each in found):
        return [label for each in found for label in labels_in(each)]
    return [label_text(each) for each in found]


def _first(row: Mapping[str, Any], names: Iterable[str]) -> str:
    """Return the first of these columns that says something, as text; of numbers, NaN says nothing."""
    texts = (as_text(row.get(name)) for name in names if not _is_nothing(row.get(name)))
    return next(filter(None, texts), "")


def _is_nothing(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)
