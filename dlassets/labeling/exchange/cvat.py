"""CVAT: its XML 1.1 for images, of which the tags are the classes, and its Datumaro JSON.

Source: https://docs.cvat.ai/docs/dataset_management/formats/format-cvat and …/format-datumaro
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any
from xml.parsers import expat
from xml.sax.saxutils import escape, quoteattr

from dlassets.labeling.exchange.base import JSON, Beginning, FileFormat, ForeignAnswer, ShownRequest, json_file
from dlassets.labeling.exchange.flat import one_class
from dlassets.storage.lines import LONGEST_LINE
from dlassets.storage.records import as_text, read_members

_XML = ".xml"
# Elements of CVAT lie in one another six deep.
_DEEPEST = 20
_LONGEST_NAME = 1000
_SHAPES = {"box", "polygon", "polyline", "points", "cuboid", "ellipse", "mask", "skeleton"}


class Cvat(FileFormat):
    """It says not when a photo was tagged, and who by the task's assignee alone."""

    name = "cvat"
    title = "CVAT's export"
    suffixes = (_XML, JSON)

    def recognises(self, beginning: Beginning) -> bool:
        if "items" in beginning.members:
            return True
        return beginning.data.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<") and b"<annotations" in beginning.data

    def write(self, requests: Sequence[ShownRequest], classes: Mapping[int, str]) -> dict[str, bytes]:
        """Without the model's guesses as tags: CVAT could not tell one from a person's answer."""
        labels = [{"name": name, "type": "tag", "attributes": []} for _, name in sorted(classes.items())]
        return {"labels.json": json_file(labels), "annotations.xml": _annotations(requests, classes).encode()}

    def read(self, chunks: Iterable[bytes], suffix: str) -> Iterator[ForeignAnswer]:
        return _read_datumaro(chunks) if suffix == JSON else _read_xml(chunks)


def _annotations(requests: Sequence[ShownRequest], classes: Mapping[int, str]) -> str:
    names = "".join(
        f"\n        <label><name>{escape(name)}</name><type>tag</type><attributes></attributes></label>"
        for _, name in sorted(classes.items())
    )
    images = "".join(f"\n  <image {_attributes(number, shown)}></image>" for number, shown in enumerate(requests))
    return f"""<?xml version="1.0" encoding="utf-8"?>
<annotations>
  <version>1.1</version>
  <meta>
    <task>
      <size>{len(requests)}</size>
      <mode>annotation</mode>
      <labels>{names}
      </labels>
    </task>
  </meta>{images}
</annotations>
"""


def _attributes(number: int, shown: ShownRequest) -> str:
    told = {"id": number, "name": PurePosixPath(shown.place).name, "width": shown.width, "height": shown.height}
    return " ".join(f"{name}={quoteattr(str(value))}" for name, value in told.items() if value is not None)


class _NoCvatError(ValueError):
    """The file is none of CVAT's, or harmful: why."""


@dataclass
class _Image:
    """An image while its element is read: what its tags say, and whether it has shapes besides."""

    answer: ForeignAnswer
    labels: list[str] = field(default_factory=list)
    by_model: list[str] = field(default_factory=list)
    has_shapes: bool = False

    def said(self, annotator: str | None) -> ForeignAnswer:
        problem = None
        if not self.labels and self.by_model:
            problem = f"has the tag {self.by_model[0][:60]} of a model (source auto), and nobody has looked at it"
        elif not self.labels and self.has_shapes:
            problem = "has shapes and no tag: its class is a tag"
        return one_class(replace(self.answer, annotator=annotator, problem=problem), self.labels)


class _Reader:
    """What expat calls for each element. Nothing is kept of an image that is done."""

    def __init__(self) -> None:
        self.done: list[ForeignAnswer] = []
        self._open: list[str] = []
        self._image: _Image | None = None
        self._assignee: str | None = None
        self._text = ""
        self.parser = expat.ParserCreate()
        self.parser.buffer_text = True
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._characters
        self.parser.StartDoctypeDeclHandler = self._doctype

    def _start(self, name: str, attributes: Mapping[str, str]) -> None:
        if not self._open and name != "annotations":
            raise _NoCvatError(f"is none of CVAT's: it begins with <{name[:60]}>")
        self._open.append(name)
        if len(self._open) > _DEEPEST:
            raise _NoCvatError(f"has elements in one another, more than {_DEEPEST} deep")
        self._text = ""
        inside = self._open[1:]
        if inside == ["image"]:
            place = f"line {self.parser.CurrentLineNumber}"
            self._image = _Image(ForeignAnswer(place, as_text(attributes.get("name"))))
        elif inside == ["image", "tag"] and self._image is not None:
            label = as_text(attributes.get("label"))
            (self._image.by_model if attributes.get("source") == "auto" else self._image.labels).append(label)
        elif len(inside) == 2 and name in _SHAPES and self._image is not None:  # noqa: PLR2004 - in an image
            self._image.has_shapes = True
        elif inside == ["track"]:
            place = f"line {self.parser.CurrentLineNumber}"
            self.done.append(ForeignAnswer(place, problem="is a track of a video: CVAT for images is what can be read"))

    def _end(self, _: str) -> None:
        if self._open[-3:] == ["task", "assignee", "username"]:
            self._assignee = as_text(self._text) or None
        if self._open[1:] == ["image"] and self._image is not None:
            self.done.append(self._image.said(self._assignee))
            self._image = None
        self._open.pop()

    def _characters(self, text: str) -> None:
        if self._open[-1] == "username":
            self._text = (self._text + text)[:_LONGEST_NAME]

    def _doctype(self, *_: object) -> None:
        # Without one no entity can be defined: none that grows, and none that reads another file.
        raise _NoCvatError("has a DOCTYPE, which CVAT does not write, and which is not read")


def _read_xml(chunks: Iterable[bytes]) -> Iterator[ForeignAnswer]:
    """Yield what the images' tags say, as they are read: memory is of one element, none longer than LONGEST_LINE."""
    reader, length = _Reader(), 0
    try:
        for chunk in chunks:
            length += len(chunk)
            reader.parser.Parse(chunk, False)
            if length - max(reader.parser.CurrentByteIndex, 0) > LONGEST_LINE + len(chunk):
                raise _NoCvatError(f"has an element that is longer than {LONGEST_LINE} bytes")  # noqa: TRY301
            yield from reader.done
            reader.done.clear()
        reader.parser.Parse(b"", True)
        problem = None
    except expat.ExpatError as error:
        problem = f"is not XML: {expat.ErrorString(error.code)}"
    except _NoCvatError as error:
        problem = str(error)
    yield from reader.done
    if problem is not None:
        yield ForeignAnswer(f"line {reader.parser.CurrentLineNumber}", problem=problem)


def _read_datumaro(chunks: Iterable[bytes]) -> Iterator[ForeignAnswer]:
    """Yield what the items' labels say. The classes stand before the items, as CVAT writes them."""
    names: list[str] = []
    for place, key, value, wrong in read_members(chunks):
        if wrong is not None:
            yield ForeignAnswer(place, problem=wrong)
        elif key == "categories":
            names = _label_names(value)
        elif key == "items":
            yield _of_item(place, value, names)


def _label_names(categories: object) -> list[str]:
    try:
        return [as_text(label["name"]) for label in categories["label"]["labels"]]  # type: ignore[index]
    except (TypeError, KeyError):
        return []


def _of_item(place: str, item: Any, names: Sequence[str]) -> ForeignAnswer:
    try:
        image = item.get("image") or item.get("media") or {}
        photo = as_text(image.get("path")) or as_text(item["id"])
        labels = [each["label_id"] for each in item["annotations"] if each["type"] == "label"]
        unknown = [label for label in labels if not 0 <= label < len(names)]
    except (TypeError, KeyError, AttributeError) as error:
        return ForeignAnswer(place, problem=f"is none of Datumaro's: {error!r}")
    problem = f"has the label_id {unknown[0]}, which is none of the labels before the items" if unknown else None
    known = [names[label] for label in labels if label not in unknown]
    return one_class(ForeignAnswer(place, photo, problem=problem), known)
