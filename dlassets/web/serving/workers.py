"""The line in which photos wait, and the processes that look at them.

Threads would wait for each other, and for those who listen to requests: around each decoding and each product of
matrices they need Python's lock. And a file that brings a decoder down does not bring the server down with it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import pickle
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from dlassets.engines.processors import processors
from dlassets.errors import DlassetsError
from dlassets.images.decode import ImageError
from dlassets.registry.models import ModelVersion
from dlassets.registry.package import ModelPackage
from dlassets.scoring.online import FUSED, Answer
from dlassets.settings import ServingSettings
from dlassets.web.serving import looker
from dlassets.web.serving.refusals import RefusedError, later

Found = list[Answer] | ImageError

_GRACE_SECONDS = 20

_log = logging.getLogger("dlassets.serving")


@dataclass(frozen=True, eq=False)
class Loaded:
    """A version whose package was read and checked."""

    model: ModelVersion
    package: ModelPackage


@dataclass
class _Request:
    """The photos of one request, and the models that are asked: `left` of them have no answer yet."""

    models: Sequence[Loaded]
    answers: list[Found | None]
    left: int
    done: asyncio.Future[None]

    def give(self, place: int, found: Found) -> None:
        self.answers[place] = found
        self.left -= 1
        if not self.left and not self.done.done():
            self.done.set_result(None)

    def fail(self, error: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(error)


@dataclass
class _Photo:
    """A photo that waits, or is looked at. One at which a process ended is `tried` once more, alone."""

    request: _Request
    place: int
    data: bytes
    is_tried: bool = False


class _Process:
    """A process of `looker`, started anew where it has ended. One message at a time."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter
        self._has: set[ModelVersion] = set()

    async def have(self, models: Sequence[Loaded], top_k: int) -> None:
        """Raise DlassetsError for a model that cannot be had, and ConnectionError where the process ends."""
        message = looker.Have([(loaded.model, loaded.package) for loaded in models], top_k)
        self._has = set()
        await self._answer(message)
        self._has = {loaded.model for loaded in models}

    async def look(self, models: Sequence[Loaded], files: Sequence[bytes], settings: ServingSettings) -> list[Found]:
        """Return what each model says of each file. Raises ConnectionError where the process ends."""
        asked = [loaded.model for loaded in models]
        if not self._has.issuperset(asked):
            await self.have(models, settings.top_k)
        found = await self._answer(looker.Look(asked, files, settings.max_pixels))
        return [ImageError(each["error"]) if isinstance(each, dict) else each for each in found]

    async def stop(self) -> None:
        if self._process is None:
            return
        self._writer.close()
        try:
            await asyncio.to_thread(self._process.wait, _GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            await asyncio.to_thread(self._process.wait)
        self._process, self._has = None, set()

    async def _answer(self, message: looker.Have | looker.Look) -> Any:
        if self._process is None:
            await self._start()
        try:
            self._writer.write(looker.framed(pickle.dumps(message)))
            await self._writer.drain()
            (length,) = looker.LENGTH.unpack(await self._reader.readexactly(looker.LENGTH.size))
            told = json.loads(await self._reader.readexactly(length))
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            await self.stop()
            raise ConnectionError("The process that looks at photos ended.") from error
        if "refused" in told:
            raise DlassetsError(told["refused"])
        if "failed" in told:
            raise RuntimeError(told["failed"])
        return told["answer"]

    async def _start(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = _started(theirs.fileno())
        self._reader, self._writer = await asyncio.open_unix_connection(sock=ours)


def _started(descriptor: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", f"from {looker.__name__} import main; main({descriptor})"],
        pass_fds=[descriptor],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is for the server: these end once it has closed their sockets
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    )


class Workers:
    """Photos that wait together go together."""

    def __init__(self, settings: ServingSettings) -> None:
        self._settings = settings
        self._line: deque[_Photo] = deque()
        self._processes = [_Process() for _ in range(settings.processes or processors())]
        self._idle = [*self._processes]
        self._called: dict[_Process, asyncio.Future[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended = False
        self.waiting = 0

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()

    async def stop(self) -> None:
        self._ended = True
        await asyncio.gather(*(process.stop() for process in self._processes))

    def check(self, photos: int = 1) -> None:
        """Raise RefusedError where so many more may not wait."""
        if self.waiting + photos > self._settings.queue:
            raise later(
                HTTPStatus.TOO_MANY_REQUESTS,
                f"{self.waiting} photos wait, and no more than {self._settings.queue} may (serving.queue).",
            )

    def have(self, models: Sequence[Loaded]) -> None:
        """Have every process be ready to ask these models, and no others; called by a thread, which waits.

        One process after the other, while the others answer. Raises DlassetsError for a model that cannot be had.
        """
        if self._loop is None or self._ended:
            raise DlassetsError("Nobody looks at photos now: the server has yet to start, or ends.")
        asyncio.run_coroutine_threadsafe(self._have(models), self._loop).result()

    async def ask(self, models: Sequence[Loaded], files: Sequence[bytes]) -> list[Found]:
        """Return what each model says of each file. Raises RefusedError where too many wait or none can say it."""
        self.check(len(files))
        request = _Request(models, [None] * len(files), len(files), asyncio.get_running_loop().create_future())
        self.waiting += len(files)
        try:
            self._line.extend(_Photo(request, place, data) for place, data in enumerate(files))
            self._dispatch()
            await request.done
        finally:
            self.waiting -= len(files)
        return [found for found in request.answers if found is not None]

    def _dispatch(self) -> None:
        while self._line and self._idle and not self._ended:
            task = asyncio.create_task(self._look(self._idle.pop(), self._next()))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _next(self) -> list[_Photo]:
        """Take as many photos as are inferred together, where so many wait for the same models, else one."""
        models = self._line[0].request.models
        together = len(self._line) >= FUSED and all(
            self._line[place].request.models is models and not self._line[place].is_tried for place in range(FUSED)
        )
        return [self._line.popleft() for _ in range(FUSED if together else 1)]

    async def _look(self, process: _Process, photos: Sequence[_Photo]) -> None:
        try:
            answers = await process.look(photos[0].request.models, [photo.data for photo in photos], self._settings)
        except ConnectionError:
            self._again(photos)
        except Exception as error:  # noqa: BLE001 - whatever it is, those who asked are told, and the next are served
            for photo in photos:
                photo.request.fail(error)
        else:
            for photo, found in zip(photos, answers, strict=True):
                photo.request.give(photo.place, found)
        self._free(process)

    def _again(self, photos: Sequence[_Photo]) -> None:
        """Have photos at which a process ended be looked at once more, each alone: one of them may be why."""
        _log.warning("A process ended while it looked at photos. Another is started.")
        for photo in reversed(photos):
            if photo.is_tried or self._ended:
                message = "The photo cannot be looked at: the process that does so ended, and another one as well."
                photo.request.fail(RefusedError(HTTPStatus.INTERNAL_SERVER_ERROR, message))
            else:
                photo.is_tried = True
                self._line.appendleft(photo)

    async def _have(self, models: Sequence[Loaded]) -> None:
        for process in self._processes:
            await self._call(process)
            try:
                await process.have(models, self._settings.top_k)
            except ConnectionError as error:
                raise DlassetsError(f"{error} It was to load {models[0].model}; the log may say more.") from error
            finally:
                self._free(process)

    async def _call(self, process: _Process) -> None:
        """Have a process for oneself, once it has answered."""
        if process in self._idle:
            self._idle.remove(process)
            return
        self._called[process] = asyncio.get_running_loop().create_future()
        await self._called[process]

    def _free(self, process: _Process) -> None:
        if called := self._called.pop(process, None):
            called.set_result(None)
        else:
            self._idle.append(process)
            self._dispatch()
