"""What a labelling service is: a place that photos are sent to and answers come back from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from dlassets.lakehouse.tables import LONGEST_SECONDS, OPEN

# What a person did with a request: `taken_back` is what they answered to it before.
Act = Literal["answered", "skipped", "taken_back"]


def is_duration(seconds: float | None) -> bool:
    """Whether this can be how long a person took: a number, from 0 on, and no more than a month."""
    return seconds is not None and 0 <= seconds <= LONGEST_SECONDS


@dataclass(frozen=True)
class Request:
    """One image that a person is asked about, with what the model thought of it.

    `answers_wanted` is how many people are to answer it (None: one); those of a higher `priority` are asked first.
    """

    request_id: str
    path: str
    image_id: str
    predicted_label: int
    predicted_name: str | None
    confidence: float
    answers_wanted: int | None = None
    priority: int | None = None


@dataclass(frozen=True)
class Batch:
    """Requests that are sent together, perhaps to others of the batch that were sent before.

    `classes` are the possible answers, name by label.
    """

    id: str
    requests: Sequence[Request]
    classes: Mapping[int, str]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a person answered to one request, as it was given: nothing is checked yet.

    `answered_at` is in UTC. Where nobody wrote it down (`dated` is False) it is the time of the file, which moves when
    the file is saved again. `origin` names the place it was read, for a person to find. What could not be read is an
    answer too: `problem` says why, `label` is None and `request_id` is the place. `file` is where it stands, with
    others: of the answers of one person to one request there that say no time, the last counts. `seen_at` is when the
    service itself saw what is in there: its one clock, where `answered_at` is of whatever computer people sit at.
    `service` is where it was given, and `seconds` how long the person took, where that was measured. An answer that was
    not asked for names its `photo`, by path or image_id, and has an empty `request_id`.
    """

    request_id: str
    label: str | None
    annotator: str | None
    answered_at: datetime
    origin: str
    dated: bool = True
    problem: str | None = None
    file: str = field(default="", compare=False)
    seen_at: datetime | None = field(default=None, compare=False)
    act: Act = "answered"
    service: str | None = None
    seconds: float | None = None
    photo: str | None = None


@dataclass(frozen=True)
class Known:
    """What `human_labels` has already of what services gave, for one that need not give all of it again.

    Both are asked about a service and a place of it: the answers whose `origin` is LIKE that text. `since` returns the
    newest time of those, None where there is none. `standing` returns of some requests the annotators whose answer
    there is accepted and not taken back, with the time of that answer, by request id.
    """

    since: Callable[[str, str], datetime | None] = lambda _, __: None
    standing: Callable[[str, str, Collection[str]], Mapping[str, Mapping[str | None, datetime]]] = lambda *_: {}


NOTHING_KNOWN = Known()


@dataclass(frozen=True)
class Refusal:
    """An answer that stands there and is refused: where it was read, what it says, and the reason."""

    file: str
    origin: str
    request_id: str
    answer: str | None
    annotator: str | None
    reason: str


@dataclass(frozen=True)
class Standing:
    """Where a request stands that was sent: open, answered or withdrawn.

    `answer` is the class that was answered, as a folder is called, and `annotator` who did. `reason` says why it was
    withdrawn or, of an open one, why its last answer was refused.
    """

    request: Request
    status: str = OPEN
    answer: str | None = None
    annotator: str | None = None
    reason: str | None = None


class LabelingService(ABC):
    """Sends photos to people, reads what they answered, and lets them know what became of it."""

    name: str

    @abstractmethod
    def send(self, batch: Batch, photos: Iterable[tuple[str, bytes]]) -> dict[str, str]:
        """Show the requests to people and return the service's own name for each, by request id.

        `photos` gives request id and bytes, in any order, and is read only as far as needed; read again, it gives them
        again. A batch that is there is added to. The same requests sent again are the same, by two runs at once as
        well: nothing stands there twice, and what a killed run left half done is completed. Raises DlassetsError where
        they cannot be sent.
        """

    @abstractmethod
    def photos(self, among: Collection[str] | None = None) -> set[str]:
        """Return the request ids whose photo people have: where it was laid out, or where they moved it.

        Where some are named, of those at least: a service need not look for others then.
        """

    def lost(self, request_ids: Collection[str]) -> set[str]:  # noqa: ARG002 - for those that lose some
        """Return those of the requests, which were sent, that are no longer there, so that they are to be sent again.

        None where what people take away is to stay away. Raises DlassetsError where that cannot be said.
        """
        return set()

    @abstractmethod
    def each_answer(self, known: Known = NOTHING_KNOWN) -> Iterator[Answer]:
        """Yield every answer given so far, in a stable order, as they are read: memory is not of all of them.

        What cannot be read is among them, with its problem, and so is what a later one in its `file` has replaced. What
        is `known` may be left out.
        """

    @abstractmethod
    def show_refusals(self, refusals: Sequence[Refusal]) -> None:
        """Tell people which of the answers that stand there are refused: these, and none that they were told of before.

        Raises DlassetsError where that cannot be.
        """

    @abstractmethod
    def show_standing(self, batches: Iterable[tuple[str, Sequence[Standing]]], state: str) -> None:
        """Show people where the requests of each batch stand, and take away from what waits those that are closed.

        `batches` has every batch's name with its requests, and is read only as far as needed: of one that `state` names
        all was shown once a call with it has come to its end. Raises DlassetsError where that cannot be.
        """

    def show_classes(self, classes: Mapping[int, str]) -> None:  # noqa: B027 - most show them with what they send
        """Let people choose among these classes, name by label, in what they were asked before as well.

        Raises DlassetsError where that cannot be.
        """

    def ask_for_hints(self) -> None:  # noqa: B027 - most have none to give
        """Have the service say at once when somebody has answered, where the settings want that; else no longer.

        Raises DlassetsError where that cannot be.
        """

    def answers(self) -> list[Answer]:
        """Return the answers that count of all given so far: to look at, since there may be millions."""
        answers = list(self.each_answer())
        last = {(answer.file, answer.request_id, answer.annotator): answer for answer in answers if not answer.dated}
        return [a for a in answers if a.dated or a is last[a.file, a.request_id, a.annotator]]

    @abstractmethod
    def answers_digest(self) -> str:
        """Return what changes whenever `answers` might, without reading one; empty where there is nothing to read."""


@dataclass(frozen=True)
class Services:
    """Where people are, side by side: requests go to all that are `asked`, answers come from all that are `read`."""

    asked: Sequence[LabelingService]
    read: Sequence[LabelingService]
