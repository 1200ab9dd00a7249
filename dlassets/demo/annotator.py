"""The played annotator: answers requests from the true classes, through the files that a person would use."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from dlassets.storage.files import files_under, is_there, move_file, write_whole

NAME = "demo"


@dataclass(frozen=True)
class OpenRequest:
    """A request that people have not answered: its id, batch and image."""

    request_id: str
    batch_id: str
    image_id: str


def answer(open_requests: Sequence[OpenRequest], truth: Mapping[str, str], requests: str, answers: str) -> int:
    """Answer every request whose class is known: every second by moving its photo, the others in a list.

    Returns how many were answered now. What a killed run has answered already is left as it is.
    """
    known = [request for request in open_requests if request.image_id in truth]
    moved = sum(_move(request, truth[request.image_id], requests, answers) for request in known[::2])
    return moved + _list(known[1::2], truth, answers)


def _move(request: OpenRequest, folder: str, requests: str, answers: str) -> bool:
    for name in files_under(f"{requests}/{request.batch_id}"):
        if name.startswith(f"{request.request_id}."):
            move_file(f"{requests}/{request.batch_id}/{name}", f"{answers}/{folder}/{name}")
            return True
    return False


def _list(open_requests: Iterable[OpenRequest], truth: Mapping[str, str], answers: str) -> int:
    by_batch: dict[str, list[list[str]]] = {}
    for request in open_requests:
        row = [request.request_id, truth[request.image_id], NAME]
        by_batch.setdefault(request.batch_id, []).append(row)
    written = 0
    for batch, rows in by_batch.items():
        path = f"{answers}/{batch}.csv"
        if not is_there(path):
            text = io.StringIO(newline="")
            csv.writer(text).writerows([["request_id", "label", "annotator"], *rows])
            write_whole(path, text.getvalue())
            written += len(rows)
    return written
