"""Which request or photo another service's file means, by whatever name it has for it."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING

from dlassets.engines.base import Engine, Snapshot
from dlassets.images.label_lists import find_photos, path_of
from dlassets.labeling.exchange.base import ForeignAnswer
from dlassets.lakehouse.tables import WAITING

if TYPE_CHECKING:
    import pyarrow as pa

_IMAGE_ID = re.compile(r"[0-9a-f]{64}")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/]*/*")
_LONGEST_SHOWN = 200


@dataclass(frozen=True)
class Target:
    """What an answer is about: a request, else a photo of which nobody was asked; else why there is none."""

    request_id: str = ""
    image_id: str = ""
    problem: str | None = None


@dataclass(frozen=True)
class Known:
    """The requests and photos there are. Names are looked up in tables and nowhere else: no file is opened by one."""

    engine: Engine
    label_requests: Snapshot
    raw_images: Snapshot

    def targets(self, answers: Sequence[ForeignAnswer]) -> list[Target]:
        """Return what each answer is about; of many at a time, since each time all photos' names are gone through."""
        found = [self._by_name(answer) for answer in answers]
        others = [answer for answer, target in zip(answers, found, strict=True) if target is None]
        looked_up = iter(self._by_photo(others) if others else [])
        return [target or next(looked_up) for target in found]

    def _by_name(self, answer: ForeignAnswer) -> Target | None:
        """Return the request that an answer names, also where its photo's file is called as the request is."""
        known = self._requests.ids
        if answer.request_id in known:
            return Target(answer.request_id)
        return Target(stem) if (stem := _stem(answer.photo)) in known else None

    def _by_photo(self, answers: Sequence[ForeignAnswer]) -> list[Target]:
        names = {answer.photo: _names_of(answer.photo) for answer in answers}
        wanted = {("", name) for names_of in names.values() for name in names_of}
        found = find_photos(wanted, chain(self._requests.by_path, self._paths()))
        known = self._image_ids({path for paths in found.values() for path in paths})
        there = self._there({image_id for answer in answers for image_id in _image_ids_of(answer)})
        targets = []
        for answer in answers:
            image_id = next((each for each in _image_ids_of(answer) if each in there), None)
            paths = next((found["", name] for name in names[answer.photo] if found["", name]), [])
            if _IMAGE_ID.fullmatch(answer.image_id):  # other bytes than those are another photo, whatever it is called
                paths = []
            about = {self._requests.of_photo(path, known.get(path)) for path in paths}
            if image_id is not None:
                targets.append(self._requests.of_image(image_id))
            elif len(about) == 1:
                targets.append(about.pop())
            else:
                targets.append(_unknown(answer, paths))
        return targets

    @cached_property
    def _requests(self) -> _Requests:
        query = f"""
            SELECT request_id, path, image_id FROM label_requests
            ORDER BY CASE WHEN {WAITING} THEN 1 ELSE 0 END, requested_at, request_id
        """  # noqa: S608 - constants
        requests = _Requests({}, {}, {})
        for batch in self.engine.sql(query, {self.label_requests.name: self.label_requests}).batches():
            for row in batch.to_pylist():  # what waits, and what was asked last, stands in place of the others
                requests.ids[row["request_id"]] = row["image_id"]
                requests.by_path[row["path"]] = requests.by_image[row["image_id"]] = row["request_id"]
        return requests

    @cached_property
    def _photos(self) -> pa.Table:
        return self.engine.sql("SELECT path, image_id FROM raw_images", {self.raw_images.name: self.raw_images}).arrow()

    def _paths(self) -> Iterator[str]:
        for batch in self._photos.to_batches(max_chunksize=10_000):
            yield from batch["path"].to_pylist()

    def _image_ids(self, paths: set[str]) -> dict[str, str]:
        import pyarrow as pa
        import pyarrow.compute as pc

        rows = self._photos.filter(pc.is_in(self._photos["path"], pa.array(sorted(paths), pa.string())))
        return dict(zip(rows["path"].to_pylist(), rows["image_id"].to_pylist(), strict=True))

    def _there(self, image_ids: set[str]) -> set[str]:
        """Return those of the images that the lake has, or has asked about."""
        import pyarrow as pa
        import pyarrow.compute as pc

        column = self._photos["image_id"]
        found = column.filter(pc.is_in(column, pa.array(sorted(image_ids), pa.string()))).to_pylist()
        return {*found, *(image_ids & self._requests.by_image.keys())}


@dataclass(frozen=True)
class _Requests:
    """What was asked: the image of each request, and the request about each path and image."""

    ids: dict[str, str]
    by_path: dict[str, str]
    by_image: dict[str, str]

    def of_photo(self, path: str, image_id: str | None) -> Target:
        """Return what a path means: what was asked about it, also if it had other bytes then, else what lies there."""
        request_id = self.by_path.get(path)
        return self.of_image(image_id) if request_id is None and image_id is not None else Target(request_id or "")

    def of_image(self, image_id: str) -> Target:
        request_id = self.by_image.get(image_id)
        return Target(image_id=image_id) if request_id is None else Target(request_id)


def _names_of(photo: str) -> list[str]:
    """Return what a photo may be called in the lake, nearest first: its path, as it is and unquoted, and its name."""
    path = path_of(photo)
    raw = _URL.sub("", photo).lstrip("/")
    return list(dict.fromkeys(name for name in (path, raw, posixpath.basename(path)) if name not in {"", "."}))


def _stem(photo: str) -> str:
    return posixpath.splitext(posixpath.basename(path_of(photo)))[0]


def _image_ids_of(answer: ForeignAnswer) -> list[str]:
    names = (answer.image_id, _stem(answer.photo))
    return [name for name in names if _IMAGE_ID.fullmatch(name)]


def _unknown(answer: ForeignAnswer, paths: Sequence[str]) -> Target:
    called = answer.photo or answer.request_id or answer.image_id
    if not called:
        return Target(problem="names no photo")
    if paths:
        some = " and ".join(sorted(paths)[:2])
        message = (
            f"{called[:_LONGEST_SHOWN]} may be any of {len(paths)} photos of the lake, {some}: name it by its path"
        )
        return Target(problem=message)
    return Target(problem=f"names no photo of the lake: {called[:_LONGEST_SHOWN]}")
