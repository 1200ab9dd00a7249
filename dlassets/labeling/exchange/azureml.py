"""Azure Machine Learning's data labelling: JSON lines of image_url and label, its CSV, and its COCO export.

Source: https://learn.microsoft.com/azure/machine-learning/reference-automl-images-schema
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath

from dlassets.labeling.exchange.base import (
    JSON,
    Beginning,
    FileFormat,
    ForeignAnswer,
    ShownRequest,
    json_lines,
    records_of,
)
from dlassets.labeling.exchange.coco import read_coco
from dlassets.labeling.exchange.flat import answers_of


class AzureMachineLearning(FileFormat):
    """It says neither who labelled a photo nor when."""

    name = "azureml"
    title = "Azure Machine Learning's data labelling"
    suffixes = (".jsonl", ".json", ".csv")

    def recognises(self, beginning: Beginning) -> bool:
        names = {name.lower() for name in beginning.record}
        if "image_url" in names or {"url", "label", "labelconfidence"} <= names:
            return True
        return "images" in beginning.members and b"AmlDatastore://" in beginning.data

    def write(self, requests: Sequence[ShownRequest], classes: Mapping[int, str]) -> dict[str, bytes]:
        lines = ({"image_url": shown.place, "image_details": _details(shown)} for shown in requests)
        names = "".join(f"{name}\n" for _, name in sorted(classes.items()))
        return {"images.jsonl": json_lines(lines), "classes.txt": names.encode()}

    def read(self, chunks: Iterable[bytes], suffix: str) -> Iterator[ForeignAnswer]:
        """A `.json` file is its COCO export; all else are rows."""
        return read_coco(chunks) if suffix == JSON else answers_of(records_of(chunks, suffix), label_may_lack=True)


def _details(shown: ShownRequest) -> dict[str, str | int] | None:
    suffix = PurePosixPath(shown.place).suffix.removeprefix(".").lower()
    if shown.width is None or shown.height is None:
        return None
    return {"format": suffix, "width": shown.width, "height": shown.height}
