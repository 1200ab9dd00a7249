"""Who is shown which photo next, and what becomes of their answers."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import cached_property

from dlassets.images.digest import image_id_of
from dlassets.labeling.page_answers import PAGE, Given, PageAnswers, Said
from dlassets.labeling.page_files import page_files
from dlassets.monitoring.views.open_requests import (
    READS,
    OpenRequest,
    OpenRequests,
    Word,
    open_requests,
    sent_request,
)
from dlassets.monitoring.views.photos import paths_of
from dlassets.monitoring.views.reading import Reading
from dlassets.settings import Settings
from dlassets.storage.lake import Lake

# How often the tables are asked whether they have moved.
LOOK_SECONDS = 1.0
# A photo in somebody's hand is nobody else's for so long. Browsers that are looked at ask more often.
LEASE_SECONDS = 150.0


@dataclass(frozen=True)
class Hand:
    """A person at a browser, and the requests that it holds: the one that is shown, and those that come next."""

    person: str
    browser: str
    holds: Collection[str] = ()


@dataclass(frozen=True)
class Progress:
    """How many requests need no answer any more, of all that people were asked; and how many one person answered."""

    answered: int
    of: int
    mine: int


@dataclass(frozen=True)
class Dealt:
    """Requests that are new in a hand, and which of those that it holds are still for it."""

    new: Sequence[OpenRequest]
    kept: Sequence[str]
    progress: Progress


@dataclass
class _Lease:
    """Which browsers hold a request, each until a time of this process's clock."""

    until: dict[str, float] = field(default_factory=dict)


class Queue:
    """The open requests of a lake, for many people at once. Safe in many threads.

    A restart forgets who holds what, and nothing else: what people answered and skipped is in their answers.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock, self._looking = threading.Lock(), threading.Lock()
        self._open = OpenRequests()
        self._versions: tuple[int | None, ...] = ()
        self._looked_at = float("-inf")
        self._leases: dict[str, _Lease] = {}

    @cached_property
    def _answers(self) -> PageAnswers:
        return PageAnswers(page_files(f"{Lake.at(self._settings.root).answers}/{PAGE}"))

    @property
    def classes(self) -> Mapping[int, str]:
        self._look()
        return self._open.classes

    def deal(self, hand: Hand, most: int) -> Dealt:
        """Return what a person is shown next: `most` further requests at most, none that they have answered.

        What they have skipped comes last. Raises DlassetsError.
        """
        self._look()
        with self._lock:
            self._answers.follow()
            self._let_go()
            kept = [name for name in hand.holds if self._is_for(name, hand)]
            new = self._new(hand, most)
            self._let_go(hand.browser)
            until = time.monotonic() + LEASE_SECONDS
            for name in (*kept, *(request.request_id for request in new)):
                self._leases.setdefault(name, _Lease()).until[hand.browser] = until
            return Dealt(new, kept, self._progress(hand.person))

    def take(self, browser: str, given: Sequence[Given]) -> tuple[list[str | None], Progress | None]:
        """Have the disk keep answers; return of each what is wrong with it, and None of one that was kept.

        And how far whoever gave the last has come.

        One to a request that is closed, or in another's hand, is an answer all the same. Raises DlassetsError where
        they cannot be kept.
        """
        self._look()
        problems = [self._problem(each) for each in given]
        with self._lock:
            self._answers.write([each for each, problem in zip(given, problems, strict=True) if problem is None])
            for each in given:
                if lease := self._leases.get(each.request_id):
                    lease.until.pop(browser, None)
            return problems, self._progress(given[-1].annotator) if given else None

    def photo(self, request_id: str) -> bytes | None:
        """Return the bytes of the photo that a request is about; None where there is none, or they are gone."""
        request = self._request(request_id)
        if request is None:
            return None
        reading = Reading(self._settings)
        content = reading.photo([request.path])
        if content is not None and image_id_of(content) == request.image_id:
            return content
        return reading.photo(paths_of(reading, request.image_id))

    def _look(self, *, at_once: bool = False) -> None:
        """Read the tables anew where they have moved: one thread does, and the others go on with what there is."""
        if not self._looking.acquire(blocking=at_once or not self._versions):
            return
        try:
            if not at_once and time.monotonic() - self._looked_at < LOOK_SECONDS:
                return
            reading = Reading(self._settings)
            versions = reading.versions(READS)
            if versions != self._versions:
                found = open_requests(reading)
                with self._lock:
                    self._open, self._versions = found, versions
            self._looked_at = time.monotonic()
        finally:
            self._looking.release()

    def _problem(self, given: Given) -> str | None:
        if self._request(given.request_id) is None:
            return "There is no such request."
        if given.act != "answered":
            return None
        if not self._open.has_class(given.label):
            self._look(at_once=True)
        return None if self._open.has_class(given.label) else f"There is no class {given.label}."

    def _request(self, request_id: str) -> OpenRequest | None:
        found = self._open.requests.get(request_id)
        return found or sent_request(Reading(self._settings), request_id)

    def _new(self, hand: Hand, most: int) -> list[OpenRequest]:
        """Return what comes into a hand; nothing that an answer to what is in it would be one to as well."""
        new: list[OpenRequest] = []
        held = {*hand.holds}
        for request in self._turns(hand):
            if len(new) >= most:
                break
            if held.isdisjoint(request.counted):
                new.append(request)
                held.add(request.request_id)
        return new

    def _turns(self, hand: Hand) -> Iterator[OpenRequest]:
        """Yield the requests that a person may be shown: in their order, and what they skipped, the oldest first."""
        skipped = []
        for name, request in self._open.requests.items():
            if self._is_for(name, hand):
                said = self._answers.of(name).get(hand.person)
                if said is None or said.act != "skipped":
                    yield request
                else:
                    skipped.append((said.answered_at, name))
        yield from (self._open.requests[name] for _, name in sorted(skipped))

    def _is_for(self, name: str, hand: Hand) -> bool:
        """Whether a request wants another answer, of this person, that no others are about to give.

        Where several are asked, nobody is asked about a photo again which they have answered about, to whichever
        request.
        """
        request = self._open.requests.get(name)
        if request is None:
            return False
        answered = self._people(request)
        held = {who for each in request.counted if each in self._leases for who in self._leases[each].until}
        return hand.person not in answered and len(answered) + len(held - {hand.browser}) < request.wanted

    def _people(self, request: OpenRequest) -> AbstractSet[str | None]:
        """Return who has answered a request: by what the tables have, or what they said here since."""
        return {who for name in request.counted for who in self._answered(name)}

    def _answered(self, name: str) -> AbstractSet[str | None]:
        words, said = self._open.words.get(name, {}), self._answers.of(name)
        if not words and not said:
            return frozenset()
        return {who for who in words.keys() | said.keys() if _is_answer(words.get(who), said.get(who or ""))}

    def _progress(self, person: str) -> Progress:
        """Return how far people have come; what is yet to be taken in counts."""
        open_ = self._open
        said = {*open_.words, *self._answers.requests}
        touched = {name for each in said for name in open_.counts_for.get(each, ())}
        done = sum(len(self._people(open_.requests[name])) >= open_.requests[name].wanted for name in touched)
        of = open_.answered + len(open_.requests)
        return Progress(open_.answered + done, of, self._answers.answered_by(person))

    def _let_go(self, browser: str | None = None) -> None:
        """Forget who no longer asks for what they hold, and all that this browser held."""
        now = time.monotonic()
        for name, lease in list(self._leases.items()):
            lease.until = {who: until for who, until in lease.until.items() if until > now and who != browser}
            if not lease.until:
                del self._leases[name]


def _is_answer(word: Word | None, said: Said | None) -> bool:
    """Whether a person's answer stands: by what they said last, in the tables or here."""
    if said is None or (word is not None and said.answered_at <= word.seen_at):
        return word is not None and word.is_answer
    return said.act == "answered"
