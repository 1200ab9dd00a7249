"""COCO: what an image's annotations say by their category.

Source: https://cocodataset.org/#format-data
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from dlassets.labeling.exchange.base import Beginning, FileFormat, ForeignAnswer, ShownRequest, class_name, json_file
from dlassets.labeling.exchange.flat import one_class
from dlassets.storage.records import as_text, read_members

# They stand apart from what is said of them, so all are held: some 500 bytes each.
MOST_IMAGES = 500_000


class Coco(FileFormat):
    """It says neither who labelled a photo nor when; and what a model thinks, it could not tell from an answer."""

    name = "coco"
    title = "COCO"
    suffixes = (".json",)

    def recognises(self, beginning: Beginning) -> bool:
        return bool({"images", "annotations"} & beginning.members.keys()) and "items" not in beginning.members

    def write(self, requests: Sequence[ShownRequest], classes: Mapping[int, str]) -> dict[str, bytes]:
        categories = [
            {"id": label, "name": class_name(label, classes), "supercategory": ""} for label in sorted(classes)
        ]
        images = [_image(number, shown) for number, shown in enumerate(requests, 1)]
        whole = {"info": {}, "licenses": [], "images": images, "annotations": [], "categories": categories}
        return {"instances.json": json_file(whole)}

    def read(self, chunks: Iterable[bytes], suffix: str) -> Iterator[ForeignAnswer]:  # noqa: ARG002 - it has one form
        return read_coco(chunks)


def _image(number: int, shown: ShownRequest) -> dict[str, Any]:
    image = {"id": number, "file_name": shown.place, "width": shown.width, "height": shown.height}
    told = {name: value for name, value in image.items() if value is not None}
    return {**told, "request_id": shown.request.request_id}


@dataclass
class _Read:
    """What a COCO file says: memory is of names and numbers, and of no annotation's shape."""

    names: dict[Any, str] = field(default_factory=dict)
    photos: dict[Any, tuple[str, str]] = field(default_factory=dict)  # file name and request
    said: dict[Any, tuple[Any, ...]] = field(default_factory=dict)

    def take(self, key: str, item: Any) -> str | None:
        """Take in one item of a list, and return what is wrong with it."""
        try:
            if key == "categories":
                return self._once(self.names, item["id"], as_text(item.get("name")) or str(item["id"]))
            if key == "images":
                photo = as_text(item.get("file_name") or item.get("coco_url")), as_text(item.get("request_id"))
                return self._once(self.photos, item["id"], photo)
            if key == "annotations":
                before = self.said.get(item["image_id"], ())
                self.said[item["image_id"]] = tuple({*before, item["category_id"]})
        except (TypeError, KeyError, AttributeError) as error:
            return f"is none of COCO's: {error!r}"
        return None

    @staticmethod
    def _once(known: dict[Any, Any], number: Any, value: Any) -> str | None:
        before = known.setdefault(number, value)
        return None if before == value else f"has the id {number} that another has"

    @property
    def is_full(self) -> bool:
        return max(len(self.photos), len(self.said), len(self.names)) > MOST_IMAGES


def read_coco(chunks: Iterable[bytes]) -> Iterator[ForeignAnswer]:
    """Yield what a COCO file says of each image. Its categories' numbers are its own: their names are the classes.

    Nothing is said of the images of a file with more than MOST_IMAGES: that is one problem.
    """
    read = _Read()
    for place, key, item, wrong in read_members(chunks):
        if problem := wrong or read.take(key, item):
            yield ForeignAnswer(place, problem=problem)
        if read.is_full:
            yield ForeignAnswer(place, problem=f"there are more than {MOST_IMAGES:,} images: export them in parts")
            return
    for number, (photo, request_id) in read.photos.items():
        said = read.said.pop(number, ())
        answer = ForeignAnswer(f"image {number}", photo, request_id)
        if unknown := [each for each in said if each not in read.names]:
            yield replace(answer, problem=f"has the category {unknown[0]}, which has no name")
        else:
            yield one_class(answer, [read.names[each] for each in said])
    for number in read.said:
        yield ForeignAnswer(f"image {number}", problem="is in annotations, and not in images")
