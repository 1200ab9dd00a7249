"""SageMaker Ground Truth: augmented manifests, an input one to ask with, an output one with the answers.

Source: https://docs.aws.amazon.com/sagemaker/latest/dg/sms-data-output.html
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from dlassets.labeling.exchange.base import (
    JSON_LINES,
    Beginning,
    FileFormat,
    ForeignAnswer,
    ShownRequest,
    class_name,
    json_file,
    json_lines,
    records_of,
)
from dlassets.labeling.exchange.flat import one_class
from dlassets.labeling.formats import time_of
from dlassets.storage.records import as_text

_METADATA = "-metadata"
_TYPE = "groundtruth/image-classification"


class GroundTruth(FileFormat):
    """The manifest says not who labelled a photo. What a line of the input had besides comes back in the output."""

    name = "groundtruth"
    title = "SageMaker Ground Truth's manifest"
    suffixes = (".manifest", ".jsonl", ".json")

    def recognises(self, beginning: Beginning) -> bool:
        return "source-ref" in beginning.record

    def write(self, requests: Sequence[ShownRequest], classes: Mapping[int, str]) -> dict[str, bytes]:
        lines = (
            {
                "source-ref": shown.place,
                "request-id": shown.request.request_id,
                "predicted-class": class_name(shown.request.predicted_label, classes),
                "predicted-confidence": round(shown.request.confidence, 4),
            }
            for shown in requests
        )
        labels = [{"label": name} for _, name in sorted(classes.items())]
        return {
            "input.manifest": json_lines(lines),
            "label-categories.json": json_file({"document-version": "2018-11-28", "labels": labels}),
        }

    def read(self, chunks: Iterable[bytes], suffix: str) -> Iterator[ForeignAnswer]:  # noqa: ARG002 - lines, whatever it is called
        for place, record in records_of(chunks, JSON_LINES):
            if isinstance(record, str):
                yield ForeignAnswer(place, problem=record)
            else:
                yield from _answers(place, record)


def _answers(place: str, record: Mapping[str, Any]) -> Iterator[ForeignAnswer]:
    """Yield what each labelling job says of a photo; of one that no job has come to, that it is not answered yet."""
    photo, request_id = as_text(record.get("source-ref")), as_text(record.get("request-id"))
    jobs = [name.removesuffix(_METADATA) for name in record if name.endswith(_METADATA)]
    if not jobs:
        yield ForeignAnswer(place, photo, request_id)
    for job in jobs:
        metadata = record[job + _METADATA]
        if not isinstance(metadata, dict):
            yield ForeignAnswer(place, photo, request_id, problem=f"{job}{_METADATA} is no object")
            continue
        try:
            time = as_text(metadata.get("creation-date"))
            answered_at = time_of(time) if time else None
        except ValueError as error:
            yield ForeignAnswer(place, photo, request_id, problem=f"creation-date {error}")
            continue
        problem = _why_no_answer(job, record, metadata)
        answer = ForeignAnswer(place, photo, request_id, answered_at=answered_at, problem=problem)
        yield one_class(answer, _names(metadata))


def _why_no_answer(job: str, record: Mapping[str, Any], metadata: Mapping[str, Any]) -> str | None:
    kind = as_text(metadata.get("type")) or _TYPE
    if not kind.startswith(_TYPE):
        return f"{job} is of {kind[:60]}, and not of {_TYPE}"
    if (failure := as_text(metadata.get("failure-reason"))) or job not in record:
        return f"{job} has no label: {failure[:200] or 'the job gave none'}"
    if as_text(metadata.get("human-annotated")).lower() == "no":
        return f"{job} is of the service's own model (human-annotated: no), and nobody has looked at it"
    if not any(_names(metadata)):
        # The number in its place counts the classes of that job, which are no numbers of ours.
        return f"{job}{_METADATA} has no class-name"
    return None


def _names(metadata: Mapping[str, Any]) -> list[str]:
    """Return the classes that a job has chosen: one by its name, of a job of several each one's."""
    several = metadata.get("class-map")
    return (
        [as_text(name) for name in several.values()]
        if isinstance(several, dict)
        else [as_text(metadata.get("class-name"))]
    )
