"""One project of Label Studio: its interface, photos, tasks and annotations."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any, Literal, NamedTuple, TypeVar

from dlassets.labeling.label_studio.hints import HEADER, Hints
from dlassets.labeling.label_studio.http import LabelStudioError, LabelStudioHttp, NotThereError
from dlassets.labeling.label_studio.interface import REQUEST_ID, choices_in, choices_of, interface_of

# Tasks a request asks for, or sends: their ids stand in an address, which servers take up to some thousand signs of.
_AT_ONCE = 200
# Photos a request carries: more than 100 files are refused.
PHOTOS_AT_ONCE, BYTES_AT_ONCE = 50, 16 * 2**20
# A photo's name there is the server's 8 hexadecimal digits and ours.
_UPLOADED = re.compile(r"[0-9a-f]{8}-(?P<request_id>[^.]+)\.\w+", re.ASCII)
_TIME = "%Y-%m-%dT%H:%M:%S.%fZ"

_T = TypeVar("_T")
Filter = tuple[str, str, str, object]
_TOUCHED: tuple[Filter, ...] = (
    ("total_annotations", "greater", "Number", 0),
    ("cancelled_annotations", "greater", "Number", 0),
)
UNTOUCHED: tuple[Filter, ...] = (
    ("total_annotations", "equal", "Number", 0),
    ("cancelled_annotations", "equal", "Number", 0),
)


class Task(NamedTuple):
    """A task as the list of them has it; `request_id` is None for one that was not made here."""

    id: int
    request_id: str | None
    overlap: int
    is_done: bool
    annotations: int
    skips: int

    @property
    def is_untouched(self) -> bool:
        return not self.annotations and not self.skips


class Photo(NamedTuple):
    """A photo that was uploaded: its id, and the address that tasks show it by."""

    id: int
    address: str


class Project:
    """The project of this title. Looking makes none: `made` does, where there is none yet."""

    def __init__(self, http: LabelStudioHttp, title: str) -> None:
        self.http, self._title = http, title
        self._id: int | None = None

    @property
    def address(self) -> str:
        return f"{self.http.url}/projects/{self._number}"

    @property
    def is_there(self) -> bool:
        return self._id is not None or self._found()

    def made(self, classes: Mapping[int, str]) -> dict[int, tuple[str, str]]:
        """Return alias and name of each class, by label, of the project with these classes.

        Make the project where it is not there, and bring its interface up to the classes. Raises LabelStudioError.
        An interface that somebody has made for something else is left alone, and is an error.
        """
        if not self.is_there:
            try:
                told = {"title": self._title, "label_config": interface_of(choices_of(classes, {})), **_SETTINGS}
                self._id = int(self.http.post("/api/projects/", told)["id"])
            except LabelStudioError:
                if not self._found():  # else another run was first
                    raise
        return self.show_classes(classes)

    def show_classes(self, classes: Mapping[int, str]) -> dict[int, tuple[str, str]]:
        """Bring the interface up to the classes; return alias and name of each, by label."""
        shown = choices_in(self.http.get(self._path())["parsed_label_config"] or {})
        if shown is None:
            raise LabelStudioError(
                f"The project {self._title} of Label Studio asks something else than one class a photo, and is left "
                "alone. Set labeling.label_studio.project to another title."
            )
        wanted = choices_of(classes, shown)
        if wanted != shown:
            self.http.patch(self._path(), {"label_config": interface_of(wanted)})
        return wanted

    def tasks(self, *where: Filter) -> Iterator[Task]:
        """Yield the tasks that all of some conditions hold for, in the order of their ids.

        Each page begins behind the last task of the one before: tasks that change, come or go meanwhile shift nothing.
        """
        last = 0
        while True:
            page = self._page([*where, ("id", "greater", "Number", last)], _AT_ONCE)
            yield from (_task(row) for row in page["tasks"])
            if len(page["tasks"]) < _AT_ONCE:
                return
            last = page["tasks"][-1]["id"]

    def tasks_of(self, request_ids: Collection[str]) -> dict[str, list[Task]]:
        """Return the tasks of requests, the oldest first: one each, but where two runs have sent it."""
        found: dict[str, list[Task]] = defaultdict(list)
        for some in _parts(sorted(request_ids)):
            for task in self.tasks((f"data.{REQUEST_ID}", "in_list", "List", some)):
                if task.request_id is not None:
                    found[task.request_id].append(task)
        return found

    def without_task(self, request_ids: Collection[str]) -> set[str]:
        """Return those of the requests that have no task. To count them takes a quarter of what a list of them does."""
        lacking: set[str] = set()
        for some in _parts(sorted(request_ids)):
            where = (f"data.{REQUEST_ID}", "in_list", "List", some)
            if self._page([where], 1)["total"] != len(some):
                lacking |= set(some) - {task.request_id for task in self.tasks(where) if task.request_id}
        return lacking

    def state(self) -> tuple[int, str]:
        """Return how many tasks anybody has answered or skipped, and when one of them changed last."""
        page = self._page(_TOUCHED, 1, conjunction="or", ordering=["-tasks:updated_at"])
        return page["total"], page["tasks"][0]["updated_at"] if page["tasks"] else ""

    def photos(self) -> dict[str, list[Photo]]:
        """Return the photos that this user has uploaded, by request id."""
        photos: dict[str, list[Photo]] = defaultdict(list)
        for row in self.http.get(self._path("file-uploads"), all="true"):
            if (named := _UPLOADED.fullmatch(PurePosixPath(row["file"]).name)) is not None:
                photos[named["request_id"]].append(Photo(row["id"], f"/data/{row['file']}"))
        return photos

    def upload(self, photos: Iterable[tuple[str, bytes]]) -> None:
        """Upload photos, by the names of files that they are to have."""
        files = [(name, (name, content)) for name, content in photos]
        self.http.post(self._path("import"), files=files, commit_to_project="false")

    def delete_photos(self, photos: Collection[Photo]) -> None:
        for some in _parts(list(photos)):
            self.http.delete(self._path("file-uploads"), {"file_upload_ids": [photo.id for photo in some]})

    def add(self, tasks: Sequence[Mapping[str, Any]]) -> None:
        """Add tasks, all or none. Raises UncertainError where that is not known."""
        self.http.post(self._path("import"), list(tasks))

    def delete_untouched(self, tasks: Iterable[Task]) -> None:
        """Delete tasks, but for those that somebody has answered or skipped: the server itself looks."""
        for some in _parts(sorted(task.id for task in tasks)):
            chosen = {"selectedItems": {"all": True, "excluded": []}}
            body = chosen | _query([("id", "in_list", "List", some), *UNTOUCHED])
            self.http.post("/api/dm/actions/", body, id="delete_tasks", project=self._number)

    def change(self, task: Task, **told: Any) -> None:
        self.http.patch(f"/api/tasks/{task.id}/", told)

    def annotations(self, tasks: Sequence[int]) -> dict[int, dict[str, Any]]:
        """Return tasks as they are exported, with their annotations, by id."""
        exported: dict[int, dict[str, Any]] = {}
        for some in _parts(tasks):
            asked = {"exportType": "JSON", "download_all_tasks": "true", "ids[]": some}
            exported |= {row["id"]: row for row in self.http.get(self._path("export"), **asked)}
        return exported

    def send_hints(self, hints: Hints | None) -> None:
        """Have the server send a hint whenever people answer, to one address; None: to none any more."""
        ours = [each for each in self.http.get(_WEBHOOKS, project=self._number) if HEADER in each["headers"]]
        for each in ours if hints is None else ours[1:]:
            self.http.delete(f"{_WEBHOOKS}{each['id']}/")
        if hints is None:
            return
        wanted = {**_HINTS, "url": hints.url, "headers": {HEADER: hints.key}}
        if not ours:
            self.http.post(_WEBHOOKS, {"project": self._number, **wanted})
        elif {name: ours[0][name] for name in wanted} | {"actions": sorted(ours[0]["actions"])} != wanted:
            self.http.patch(f"{_WEBHOOKS}{ours[0]['id']}/", wanted)

    @cached_property
    def people(self) -> dict[int, str]:
        """The address of each person's mail, which is their name here, by their number there."""
        return {row["id"]: row["email"] for row in self.http.get("/api/users/")}

    def _found(self) -> bool:
        page = self.http.get("/api/projects/", title=self._title, include="id,title", page_size=1000)
        if not isinstance(page, dict) or "results" not in page:
            raise LabelStudioError(
                f"What answers at {self.http.url} is no Label Studio: set labeling.label_studio.url to its address."
            )
        ids = [int(row["id"]) for row in page["results"] if row["title"] == self._title]
        self._id = min(ids, default=None)
        return self._id is not None

    @property
    def _number(self) -> int:
        if self._id is None and not self._found():
            raise NotThereError(f"Label Studio has no project {self._title} that this user sees.")
        return int(self._id)  # type: ignore[arg-type]

    def _path(self, *parts: str) -> str:
        return "/".join(["/api/projects", str(self._number), *(parts or [""])])

    def _page(
        self,
        where: Sequence[Filter],
        size: int,
        conjunction: Literal["and", "or"] = "and",
        ordering: Sequence[str] = (),
    ) -> Any:
        query = _query(where, conjunction) | {"ordering": list(ordering)}
        return self.http.get("/api/tasks", project=self._number, page_size=size, query=json.dumps(query))


_WEBHOOKS = "/api/webhooks/"
# A hint says what has happened and nothing of it.
_HINTS = {
    "is_active": True,
    "send_payload": False,
    "send_for_all_actions": False,
    "actions": ["ANNOTATIONS_CREATED", "ANNOTATIONS_DELETED", "ANNOTATION_CREATED", "ANNOTATION_UPDATED"],
}
# Of a project that is made here. People see what the model thinks, and the least sure first.
_SETTINGS = {
    "sampling": "Uncertainty sampling",
    "show_collab_predictions": True,
    "enable_empty_annotation": False,
    "show_skip_button": True,
    "skip_queue": "REQUEUE_FOR_OTHERS",
    "expert_instruction": "Choose the class that the photo shows. Skip it where you cannot tell.",
}


def changed_since(time: datetime) -> tuple[Filter, ...]:
    """Return the condition that a person has changed a task's answers since: those that were only added have nobody."""
    since = time.astimezone(UTC).strftime(_TIME)
    return ("updated_at", "greater", "Datetime", since), ("updated_by", "empty", "List", "false")


def request_id_in(row: Mapping[str, Any]) -> str | None:
    """Return the request that a task is about; None for a task that was not made here."""
    request_id = row["data"].get(REQUEST_ID)
    return request_id if isinstance(request_id, str) else None


def _task(row: Mapping[str, Any]) -> Task:
    counts = row["total_annotations"], row["cancelled_annotations"]
    return Task(row["id"], request_id_in(row), row["overlap"], row["is_labeled"], *counts)


def _parts(things: Sequence[_T]) -> Iterator[list[_T]]:
    return (list(things[start : start + _AT_ONCE]) for start in range(0, len(things), _AT_ONCE))


def _query(where: Sequence[Filter], conjunction: Literal["and", "or"] = "and") -> dict[str, Any]:
    items = [
        {"filter": f"filter:tasks:{column}", "operator": operator, "type": kind, "value": value}
        for column, operator, kind, value in where
    ]
    return {"filters": {"conjunction": conjunction, "items": items}}
