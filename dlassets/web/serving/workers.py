"""The threads that look at photos, and the line in which these wait."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus

from dlassets.engines.processors import processors
from dlassets.images.decode import ImageError
from dlassets.scoring.online import FUSED, Answer, Online, answer
from dlassets.settings import ServingSettings
from dlassets.web.serving.refusals import later

Found = list[Answer] | ImageError


@dataclass
class _Request:
    """The photos of one request, and the models that are asked: `left` of them have no answer yet."""

    models: Sequence[Online]
    answers: list[Found | None]
    left: int
    done: asyncio.Future[None]
    loop: asyncio.AbstractEventLoop


class Workers:
    """One thread more than processors, since one waits for each inference. Photos that wait together go together."""

    def __init__(self, settings: ServingSettings) -> None:
        self._settings = settings
        self._line: deque[tuple[_Request, int, bytes]] = deque()
        self._ready = threading.Condition()
        self._ended = False
        self._threads: list[threading.Thread] = []
        self.waiting = 0

    def start(self) -> None:
        for number in range(processors() + 1):
            thread = threading.Thread(target=self._work, name=f"looks-{number}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        with self._ready:
            self._ended = True
            self._ready.notify_all()
        for thread in self._threads:
            thread.join()

    def check(self, photos: int = 1) -> None:
        """Raise RefusedError where so many more may not wait."""
        if self.waiting + photos > self._settings.queue:
            raise later(
                HTTPStatus.TOO_MANY_REQUESTS,
                f"{self.waiting} photos wait, and no more than {self._settings.queue} may (serving.queue).",
            )

    async def ask(self, models: Sequence[Online], files: Sequence[bytes]) -> list[Found]:
        """Return what `answer` does. Raises RefusedError where too many wait, and what was raised there."""
        self.check(len(files))
        loop = asyncio.get_running_loop()
        request = _Request(models, [None] * len(files), len(files), loop.create_future(), loop)
        self.waiting += len(files)
        try:
            with self._ready:
                self._line.extend((request, place, data) for place, data in enumerate(files))
                self._ready.notify(len(files))
            await request.done
        finally:
            self.waiting -= len(files)
        return [found for found in request.answers if found is not None]

    def _work(self) -> None:
        while True:
            with self._ready:
                while not self._line and not self._ended:
                    self._ready.wait()
                if self._ended:
                    return
                taken = self._next()
            try:
                files = [data for _, _, data in taken]
                self._give(taken, answer(taken[0][0].models, files, self._settings.max_pixels))
            except Exception as error:  # noqa: BLE001 - whatever it is, those who asked are told, and the next are served
                for request, _, _ in taken:
                    request.loop.call_soon_threadsafe(_fail, request.done, error)

    def _next(self) -> list[tuple[_Request, int, bytes]]:
        """Take as many photos as are inferred together, where so many wait for the same models, else one."""
        models = self._line[0][0].models
        together = len(self._line) >= FUSED and all(self._line[place][0].models is models for place in range(FUSED))
        return [self._line.popleft() for _ in range(FUSED if together else 1)]

    def _give(self, taken: Sequence[tuple[_Request, int, bytes]], answers: Sequence[Found]) -> None:
        for (request, place, _), found in zip(taken, answers, strict=True):
            request.answers[place] = found
        with self._ready:
            finished = []
            for request, _, _ in taken:
                request.left -= 1
                if not request.left:
                    finished.append(request)
        for request in finished:
            request.loop.call_soon_threadsafe(_end, request.done)


def _end(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)


def _fail(done: asyncio.Future[None], error: Exception) -> None:
    if not done.done():
        done.set_exception(error)
