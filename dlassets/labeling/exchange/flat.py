"""Records of a row a photo, whatever their columns are called: a spreadsheet's, Azure's, Label Studio's small ones."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from dlassets.images.label_lists import LABEL_COLUMNS, PHOTO_COLUMNS, each_label, label_text
from dlassets.labeling.exchange.base import ForeignAnswer
from dlassets.labeling.formats import act_of, seconds_of, time_of
from dlassets.storage.records import Entry, as_text

# Without numbers of the service's own, which photos may be called as well.
_PHOTOS = ("image_url", "url", *(name for name in PHOTO_COLUMNS if name not in {"image_id", "id"}))
# What the columns are called that say the photo, its request, its SHA-256, who answered, when, how long it took, and
# what became of it: of each the first that says something.
_OTHERS = (
    _PHOTOS,
    ("request_id", "request-id"),
    ("image_id",),
    ("annotator", "completed_by", "annotated_by", "worker", "worker_id", "user"),
    ("answered_at", "updated_at", "created_at"),
    ("seconds", "lead_time"),
    ("status",),
)


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
    columns = _columns_of(tuple(record))
    photo, request_id, image_id, annotator, time, took, status = (_first(record, names) for names in columns.others)
    if not (columns.label or label_may_lack or status):
        return ForeignAnswer(place, problem=f"has none of the columns {', '.join(LABEL_COLUMNS)}")
    try:
        answer = ForeignAnswer(
            place,
            photo.removeprefix("'"),  # which keeps a spreadsheet from taking it for a formula
            request_id,
            image_id,
            annotator=annotator or None,
            answered_at=time_of(time) if time else None,
            seconds=seconds_of(took) if took else None,
            act=act_of(status),
        )
    except ValueError as error:
        return ForeignAnswer(place, photo, request_id, image_id, problem=str(error))
    return one_class(answer, labels_in(record[columns.label]) if columns.label else ())


class _Columns(NamedTuple):
    """Which columns of a record say what, by the names that they have there."""

    label: str | None
    others: tuple[tuple[str, ...], ...]


@functools.lru_cache(maxsize=64)
def _columns_of(names: tuple[str, ...]) -> _Columns:
    spelled = {name.lower(): name for name in names}
    found = [tuple(spelled[name] for name in usual if name in spelled) for usual in (LABEL_COLUMNS, *_OTHERS)]
    return _Columns(next(iter(found[0]), None), tuple(found[1:]))


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


def _first(record: Mapping[str, Any], names: Iterable[str]) -> str:
    """Return the first of these columns that says something, as text; of numbers, NaN says nothing."""
    for name in names:
        value = record[name]
        if not (isinstance(value, float) and math.isnan(value)) and (text := as_text(value)):
            return text
    return ""
