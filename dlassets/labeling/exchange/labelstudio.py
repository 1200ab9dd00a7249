"""Label Studio's files: tasks to import with the model's guess, and its exports JSON, JSON-MIN and CSV.

Source: https://labelstud.io/guide/export and https://labelstud.io/guide/task_format
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from dlassets.images.label_lists import PHOTO_COLUMNS
from dlassets.labeling.exchange.base import (
    Beginning,
    FileFormat,
    ForeignAnswer,
    ShownRequest,
    json_file,
    records_of,
)
from dlassets.labeling.exchange.flat import answer_of, labels_in, one_class
from dlassets.labeling.formats import seconds_of, time_of
from dlassets.labeling.label_studio.interface import IMAGE, choices_of, interface_of, task_of
from dlassets.storage.records import as_text


class LabelStudioFiles(FileFormat):
    name = "labelstudio-file"
    title = "Label Studio's export"
    suffixes = (".json", ".csv", ".tsv")

    def recognises(self, beginning: Beginning) -> bool:
        names = beginning.record.keys()
        return {"data", "annotations"} <= names or {"annotation_id", "annotator", "lead_time"} <= names

    def write(self, requests: Sequence[ShownRequest], classes: Mapping[int, str]) -> dict[str, bytes]:
        choices = choices_of(classes, {})
        tasks = [_task(shown, choices) for shown in requests]
        return {"tasks.json": json_file(tasks), "label-config.xml": interface_of(choices).encode()}

    def read(self, chunks: Iterable[bytes], suffix: str) -> Iterator[ForeignAnswer]:
        for place, record in records_of(chunks, suffix):
            if isinstance(record, str):
                yield ForeignAnswer(place, problem=record)
            elif "data" in record:
                yield from _of_task(place, record)
            else:
                yield answer_of(place, record)


def _task(shown: ShownRequest, choices: Mapping[int, tuple[str, str]]) -> dict[str, Any]:
    request = shown.request
    return task_of(request, shown.place, choices, path=request.path, image_id=request.image_id)


def _of_task(place: str, task: Mapping[str, Any]) -> Iterator[ForeignAnswer]:
    """Yield what each annotation of a task says; of one without, that it is not answered yet."""
    place = f"task {task['id']}" if "id" in task else place
    data, annotations = task["data"], task.get("annotations") or []
    if not isinstance(data, dict) or not isinstance(annotations, list):
        yield ForeignAnswer(place, problem="is no task of Label Studio")
        return
    names = (IMAGE, *PHOTO_COLUMNS)
    photo = next((as_text(data[name]) for name in names if isinstance(data.get(name), str)), "")
    unanswered = ForeignAnswer(place, photo, as_text(data.get("request_id")), as_text(data.get("image_id")))
    if not annotations:
        yield unanswered
    for annotation in annotations:
        try:
            yield _answered(unanswered, annotation)
        except (TypeError, KeyError, AttributeError) as error:
            yield replace(unanswered, problem=f"has an annotation that is none: {error!r}")
        except ValueError as error:
            yield replace(unanswered, problem=f"has an annotation whose time {error}")


def _answered(unanswered: ForeignAnswer, annotation: Mapping[str, Any]) -> ForeignAnswer:
    time, took = as_text(annotation.get("updated_at") or annotation.get("created_at")), annotation.get("lead_time")
    labels = [label for result in annotation["result"] for label in labels_in(result["value"])]
    skipped = bool(annotation.get("was_cancelled"))
    answer = replace(
        unanswered,
        annotator=_who(annotation.get("completed_by")),
        answered_at=time_of(time) if time else None,
        seconds=None if took is None else seconds_of(as_text(took)),
        act="skipped" if skipped else "answered",
        problem=None if skipped or any(labels) else "was submitted without a class",
    )
    return one_class(answer, labels)


def _who(user: object) -> str | None:
    """Return a person as text: the address where the export has it, else the number."""
    if isinstance(user, dict):
        user = user.get("email") or user.get("username") or user.get("id")
    return as_text(user) or None
