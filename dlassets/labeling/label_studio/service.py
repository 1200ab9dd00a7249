"""Labelling in Label Studio: requests are tasks of a project, answers their annotations.

Nothing that is remembered here says what was sent: the project itself is asked, by request ids, before anything is
added, and afterwards. So a run that is killed anywhere, or does not hear that it has succeeded, doubles no task.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

from dlassets.errors import DlassetsError
from dlassets.images.decode import as_jpeg, viewable
from dlassets.labeling.label_studio.hints import Hints
from dlassets.labeling.label_studio.http import (
    Address,
    LabelStudioError,
    LabelStudioHttp,
    NotThereError,
    UncertainError,
)
from dlassets.labeling.label_studio.interface import chosen_in, score_of, task_of
from dlassets.labeling.label_studio.own import address_of
from dlassets.labeling.label_studio.project import (
    BYTES_AT_ONCE,
    PHOTOS_AT_ONCE,
    Photo,
    Project,
    Task,
    changed_since,
    request_id_in,
)
from dlassets.labeling.layout import suffix_of
from dlassets.labeling.services import NOTHING_KNOWN, Answer, Batch, Known, LabelingService, Refusal, Request, Standing
from dlassets.lakehouse.tables import OPEN
from dlassets.settings import LabelStudioSettings
from dlassets.storage.files import read_whole, write_whole
from dlassets.storage.lake import Lake

# What is in a request is read again for so long: of several servers of one database, one's clock may be behind.
_OVERLAP = timedelta(minutes=5)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Tasks whose annotations are in memory at once, and those that one request adds.
_READ_AT_ONCE = _ADDED_AT_ONCE = 200
# How often tasks are added of which it is not known whether they were.
_ATTEMPTS = 3
_SHOWN_BY_BROWSERS = {".jpg", ".png", ".gif", ".bmp", ".webp"}
_MOST_LOOKED_AT = 16
_looked_at: dict[tuple[Address, str], Project] = {}
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


class LabelStudioService(LabelingService):
    """A project of Label Studio: of the settings' server, or of the lake's own.

    Photos are uploaded there: it needs to reach no storage of the lake's. Requests that are closed leave it, but for
    those that somebody has answered or skipped there. Refusals are not shown: it has no place for them in its community
    edition, and lets nobody answer without a class.
    """

    name = "labelstudio"

    def __init__(self, settings: LabelStudioSettings, lake: Lake, webhook_secret: str | None = None) -> None:
        self._settings, self._lake, self._webhook_secret = settings, lake, webhook_secret
        self._opened: Project | None = None

    @property
    def project(self) -> Project:
        return self._opened or self._open()

    def _open(self) -> Project:
        """Return the project where it is now: a server of the lake's own may answer elsewhere since its last start."""
        address = address_of(self._settings, self._lake)
        if self._opened is None or self._opened.http.address != address:
            self._opened = Project(LabelStudioHttp(address), self._settings.project)
        return self._opened

    def send(self, batch: Batch, photos: Iterable[tuple[str, bytes]]) -> dict[str, str]:
        requests = {request.request_id: request for request in batch.requests}
        if strange := [id_ for id_ in requests if not _PLAIN.fullmatch(id_)]:
            raise DlassetsError(f"{strange[0]!r} cannot be a file's name: use letters, digits, '_' and '-'.")
        choices = self._open().made(batch.classes)
        tasks = self._tasks_of(requests)
        for attempt in range(_ATTEMPTS):
            lacking = [request for request in requests.values() if request.request_id not in tasks]
            if not lacking:
                break
            try:
                self._add(batch.id, lacking, choices, self._uploaded(lacking, photos))
            except UncertainError:
                if attempt + 1 == _ATTEMPTS:
                    raise
            tasks = self._tasks_of(requests)
        if missing := sorted(requests.keys() - tasks.keys()):
            raise LabelStudioError(f"{len(missing)} tasks of {batch.id} are not in Label Studio: {missing[:5]}.")
        for request_id, task in tasks.items():
            self._reopen(task, requests[request_id].answers_wanted or 1)
        return {request_id: str(task.id) for request_id, task in tasks.items()}

    def photos(self, among: Collection[str] | None = None) -> set[str]:
        if not self._open().is_there:
            return set()
        uploaded = self.project.photos().keys()
        if among is not None:
            return self.project.tasks_of(among).keys() & uploaded
        return {task.request_id for task in self.project.tasks() if task.request_id in uploaded}

    def lost(self, request_ids: Collection[str]) -> set[str]:
        if not request_ids:
            return set()
        return self.project.without_task(request_ids) if self._open().is_there else set(request_ids)

    def each_answer(self, known: Known = NOTHING_KNOWN) -> Iterator[Answer]:
        if not self._open().is_there:
            return
        since = known.since(self.name, self._place)
        changed = self.project.tasks(*changed_since(_EPOCH if since is None else since - _OVERLAP))
        while some := list(islice(changed, _READ_AT_ONCE)):
            yield from self._answers(some, known)

    def answers_digest(self) -> str:
        project = self._open_for_looks()
        if not project.is_there:
            return ""
        try:
            touched, newest = project.state()
        except NotThereError:  # somebody has deleted it: what comes in its place is another
            _looked_at.clear()
            raise
        return hashlib.sha256(f"{touched} {newest}".encode()).hexdigest()[:16] if touched else ""

    def show_refusals(self, refusals: Sequence[Refusal]) -> None:
        """Show nothing: the table human_labels and its check have them."""

    def show_classes(self, classes: Mapping[int, str]) -> None:
        if self._open().is_there:
            self.project.show_classes(classes)

    def ask_for_hints(self) -> None:
        if not self._open().is_there:
            return
        url, secret = self._settings.hint_url, self._webhook_secret
        try:
            self.project.send_hints(None if url is None or secret is None else Hints.to(url, secret))
        except LabelStudioError as error:
            raise LabelStudioError(
                f"Label Studio sends no hint that somebody has answered: {error} Answers are found all the same, at "
                "the usual looks. Where labeling.label_studio.hint_url is an address of its own machine or of a "
                "private network, start it with SSRF_PROTECTION_ENABLED=false, as make labelstudio does once that is "
                "set."
            ) from error

    def show_standing(self, batches: Iterable[tuple[str, Sequence[Standing]]], state: str) -> None:
        if not self._open().is_there:
            return
        shown = {"project": self.project.address, "state": state}
        if self._shown() == shown:
            return
        waiting: dict[str, list[Task]] = defaultdict(list)
        for task in self.project.tasks(("total_annotations", "equal", "Number", 0)):
            if task.request_id is not None:
                waiting[task.request_id].append(task)
        closed, doubles = [], []
        for _, standings in batches:
            for standing in standings:
                tasks = waiting.get(standing.request.request_id, [])
                if standing.status != OPEN:
                    closed += tasks
                else:
                    doubles += [task for task in tasks[1:] if task.is_untouched]
        self._take_away(closed, doubles)
        write_whole(self._record, json.dumps(shown))

    def _open_for_looks(self) -> Project:
        """Return the project as the last look of this process has found it: a sensor looks again and again."""
        opened = self._open()
        if len(_looked_at) > _MOST_LOOKED_AT:
            _looked_at.clear()
        return _looked_at.setdefault((opened.http.address, self._settings.project), opened)

    def _take_away(self, closed: Sequence[Task], doubles: Sequence[Task]) -> None:
        """Take tasks from what waits: they are deleted, but one that was skipped is kept as one that is done."""
        untouched = [task for task in closed if task.is_untouched]
        self.project.delete_untouched([*untouched, *doubles])
        for task in closed:
            if not task.is_untouched and not task.is_done:
                self.project.change(task, is_labeled=True)
        if untouched:
            photos = self.project.photos()
            gone = {task.request_id for task in untouched if task.request_id is not None}
            left = self.project.tasks_of(gone)
            self.project.delete_photos([photo for id_ in gone - left.keys() for photo in photos.get(id_, [])])

    def _tasks_of(self, request_ids: Collection[str]) -> dict[str, Task]:
        """Return the task of each request that has one. Of several, those that nobody has touched are deleted."""
        kept: dict[str, Task] = {}
        doubles: list[Task] = []
        for request_id, tasks in self.project.tasks_of(request_ids).items():
            first = next((task for task in tasks if not task.is_untouched), tasks[0])
            kept[request_id] = first
            doubles += [task for task in tasks if task is not first]
        self.project.delete_untouched(doubles)
        return kept

    def _reopen(self, task: Task, wanted: int) -> None:
        """Have so many people asked: what was closed and is asked again is as new."""
        if task.overlap != wanted:
            self.project.change(task, overlap=wanted)
        if task.is_done and not task.annotations:
            self.project.change(task, is_labeled=False)

    def _uploaded(self, requests: Sequence[Request], photos: Iterable[tuple[str, bytes]]) -> Mapping[str, Photo]:
        """Return the photo of each request, by its id; those that are not there yet are uploaded."""
        there = self.project.photos()
        wanted = {request.request_id for request in requests}
        if wanted - there.keys():
            chosen = ((id_, photo) for id_, photo in photos if id_ in wanted and id_ not in there)
            for some in _loads(_as_file(id_, photo) for id_, photo in chosen):
                self.project.upload(some)
            there = self.project.photos()
        if missing := sorted(wanted - there.keys()):
            raise LabelStudioError(f"{len(missing)} photos are not in Label Studio: {missing[:5]}.")
        return {id_: there[id_][0] for id_ in wanted}

    def _add(
        self,
        batch_id: str,
        requests: Sequence[Request],
        choices: Mapping[int, tuple[str, str]],
        photos: Mapping[str, Photo],
    ) -> None:
        ordered = sorted(requests, key=lambda r: (score_of(r), r.request_id))
        tasks = [task_of(each, photos[each.request_id].address, choices, batch=batch_id) for each in ordered]
        for start in range(0, len(tasks), _ADDED_AT_ONCE):
            self.project.add(tasks[start : start + _ADDED_AT_ONCE])

    def _answers(self, changed: Sequence[Task], known: Known) -> Iterator[Answer]:
        """Yield what people say of tasks now, and that they say nothing any more where they did before."""
        exported = self.project.annotations([task.id for task in changed])
        said = {id_: self._said_in(row) for id_, row in exported.items()}
        yield from (answer for answers in said.values() for answer in answers)
        asked = {task.request_id: exported[task.id] for task in changed if task.request_id and task.id in exported}
        standing = known.standing(self.name, self._place, asked.keys())
        lacking = {id_ for id_ in asked if not _stands(standing.get(id_, {}), said[asked[id_]["id"]])}
        for request_id, everywhere in self._said_in_any(lacking).items():
            yield from self._changed(asked[request_id], everywhere, standing[request_id])

    def _said_in_any(self, request_ids: Collection[str]) -> dict[str, list[Answer]]:
        """Return what is said now of requests, in whichever of their tasks: two runs may have sent one."""
        ids = {task.id: id_ for id_, tasks in self.project.tasks_of(request_ids).items() for task in tasks}
        rows = self.project.annotations(list(ids))
        found: dict[str, list[Answer]] = {id_: [] for id_ in sorted(request_ids)}
        for task_id, request_id in ids.items():
            found[request_id] += self._said_in(rows[task_id]) if task_id in rows else []
        return found

    def _changed(
        self, row: Mapping[str, Any], said: Sequence[Answer], before: Mapping[str | None, datetime]
    ) -> Iterator[Answer]:
        """Yield what became of answers that stand in the lake and not in Label Studio: deleted, emptied or skipped.

        Where the same person has an older annotation left, that is their answer again.
        """
        newest = _newest(said)
        changed_at = _time(row["updated_at"])
        for annotator, answered_at in before.items():
            left = newest.get(annotator)
            if left is None:
                yield self._said(row, annotator, None, changed_at, act="taken_back")
            elif left.answered_at < answered_at:
                yield self._said(row, annotator, left.label, changed_at)

    def _said_in(self, row: Mapping[str, Any]) -> list[Answer]:
        ordered = sorted(row["annotations"], key=lambda annotation: (annotation["updated_at"], annotation["id"]))
        return [self._answer(row, annotation) for annotation in ordered]

    def _answer(self, row: Mapping[str, Any], annotation: Mapping[str, Any]) -> Answer:
        chosen = chosen_in(annotation["result"])
        by = annotation["completed_by"]
        problem = None
        if not annotation["was_cancelled"] and len(chosen) != 1:
            problem = "chooses several classes: choose one" if chosen else "chooses no class: choose one, or skip"
        return self._said(
            row,
            self.project.people.get(by, f"user {by}"),
            chosen[0] if len(chosen) == 1 and not annotation["was_cancelled"] else None,
            _time(annotation["updated_at"]),
            act="skipped" if annotation["was_cancelled"] else "answered",
            problem=problem,
            seconds=_seconds(annotation["lead_time"]),
        )

    def _said(
        self, row: Mapping[str, Any], annotator: str | None, label: str | None, at: datetime, **more: Any
    ) -> Answer:
        origin = f"{self.project.address}/data?task={row['id']}"
        return Answer(
            request_id_in(row) or origin,
            label,
            annotator,
            at,
            origin,
            file=f"{self.name}:{row['id']}",
            seen_at=at,
            service=self.name,
            **more,
        )

    @property
    def _place(self) -> str:
        """What the origins of this project's answers are LIKE: a lake's own server has had whatever port was free."""
        address = self.project.address
        if self._settings.url is None:
            address = re.sub(r":\d+/", ":%/", address, count=1)
        return f"{address}/%"

    @property
    def _record(self) -> str:
        return f"{self._lake.labelstudio}/shown.json"

    def _shown(self) -> object:
        """Return what was shown last of where requests stand, and in which project."""
        try:
            return json.loads(read_whole(self._record))
        except (FileNotFoundError, ValueError):
            return None


def _as_file(request_id: str, photo: bytes) -> tuple[str, bytes]:
    """Return a photo as browsers show it, and the name of its file."""
    shown = viewable(photo)
    if suffix_of(shown) not in _SHOWN_BY_BROWSERS:
        shown = as_jpeg(shown)
    return request_id + suffix_of(shown), shown


def _loads(photos: Iterator[tuple[str, bytes]]) -> Iterator[list[tuple[str, bytes]]]:
    """Yield photos as requests carry them: not too many, and not too large together."""
    load: list[tuple[str, bytes]] = []
    size = 0
    for name, photo in photos:
        if load and (len(load) == PHOTOS_AT_ONCE or size + len(photo) > BYTES_AT_ONCE):
            yield load
            load, size = [], 0
        load.append((name, photo))
        size += len(photo)
    if load:
        yield load


def _newest(said: Sequence[Answer]) -> dict[str | None, Answer]:
    """Return the newest answer of each person that is one."""
    answers = sorted((a for a in said if a.act == "answered" and a.problem is None), key=lambda a: a.answered_at)
    return {answer.annotator: answer for answer in answers}


def _stands(before: Mapping[str | None, datetime], said: Sequence[Answer]) -> bool:
    """Whether each person's answer of before still is, or has been followed by another."""
    newest = _newest(said)
    return all(annotator in newest and at <= newest[annotator].answered_at for annotator, at in before.items())


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def _seconds(lead_time: object) -> float | None:
    is_time = isinstance(lead_time, (int, float)) and math.isfinite(lead_time) and lead_time >= 0
    return float(lead_time) if is_time else None  # type: ignore[arg-type]
