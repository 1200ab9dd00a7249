"""CSV, as people fill it in and spreadsheets save it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from dlassets.labeling.exchange.base import Beginning, FileFormat, ForeignAnswer, ShownRequest
from dlassets.labeling.exchange.flat import answers_of
from dlassets.labeling.formats import request_list
from dlassets.storage.records import read_records


class Spreadsheet(FileFormat):
    name = "csv"
    title = "a spreadsheet's list"
    suffixes = (".csv", ".tsv", ".txt")

    def recognises(self, beginning: Beginning) -> bool:
        return beginning.suffix in self.suffixes

    def write(self, requests: Sequence[ShownRequest], classes: Mapping[int, str]) -> dict[str, bytes]:  # noqa: ARG002 - people see the classes where they see the photos
        return {"requests.csv": request_list([shown.request for shown in requests])}

    def read(self, chunks: Iterable[bytes], suffix: str) -> Iterator[ForeignAnswer]:
        return answers_of(read_records(chunks, suffix if suffix in self.suffixes else ".csv"))
