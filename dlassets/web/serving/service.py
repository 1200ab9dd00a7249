"""The service itself: photos of a request in, what the champion says of them out, once who must know it knows it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from http import HTTPStatus

from dlassets.images.decode import ImageError
from dlassets.images.digest import image_id_of
from dlassets.masking import masked
from dlassets.scoring.online import Answer, Listener, Served
from dlassets.settings import Settings
from dlassets.web.serving.asked import Asked
from dlassets.web.serving.bodies import Bodies
from dlassets.web.serving.life import Life
from dlassets.web.serving.metrics import Metrics
from dlassets.web.serving.refusals import RefusedError, later
from dlassets.web.serving.workers import Found, Loaded, Workers

_log = logging.getLogger("dlassets.serving")


class Service:
    """What all forms of requests are answered by."""

    def __init__(self, settings: Settings, listeners: Sequence[Listener] = ()) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.workers = Workers(settings.serving)
        self.life = Life(settings, self.metrics, self.workers)
        self.bodies = Bodies(settings.serving)
        self._listeners = listeners
        self.metrics.watch(
            lambda: self.workers.waiting, lambda: self.life.champion.model.version if self.life.champion else 0
        )

    def start(self) -> None:
        self.workers.start()
        self.life.start()

    async def stop(self) -> None:
        self.life.stop()
        await self.workers.stop()

    def champion(self) -> Loaded:
        """Return the model that answers. Raises RefusedError where there is none yet."""
        if (champion := self.life.champion) is None:
            raise later(HTTPStatus.SERVICE_UNAVAILABLE, self.life.problem, 5)
        return champion

    async def answer(self, asked: Asked, files: Sequence[bytes]) -> list[Answer | ImageError]:
        """Return the champion's answer to each image file, or why it does not decode.

        Raises RefusedError where there is no champion, too many photos wait, or an answer cannot be written down.
        """
        self.champion()
        models = self.life.models
        asked.model, asked.photos = models[0].model, len(files)
        if len(files) > self.settings.serving.max_images:
            raise RefusedError(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"{len(files)} photos, and a request may have {self.settings.serving.max_images} (serving.max_images).",
            )
        found = await self.workers.ask(models, files)
        if self._listeners:
            await asyncio.to_thread(self._tell, asked, models, files, found)
        return [each if isinstance(each, ImageError) else each[0] for each in found]

    def _tell(self, asked: Asked, models: Sequence[Loaded], files: Sequence[bytes], found: Sequence[Found]) -> None:
        served = [
            one
            for place, (data, each) in enumerate(zip(files, found, strict=True), 1)
            if not isinstance(each, ImageError)
            for one in _served(asked, models, data, each, f"/{place}" if len(files) > 1 else "")
        ]
        try:
            for listener in self._listeners if served else ():
                listener(served)
        except Exception as error:
            _log.exception("An answer could not be written down, and so was not given.")
            raise later(
                HTTPStatus.SERVICE_UNAVAILABLE, masked(f"The answer could not be written down: {error}")
            ) from error


def _served(asked: Asked, models: Sequence[Loaded], data: bytes, answers: Sequence[Answer], place: str) -> list[Served]:
    return [
        Served(
            request_id=asked.request_id + place,
            received_at=asked.received_at,
            image_id=image_id_of(data),
            content=data,
            form=asked.form or "raw",
            answer=answer,
            model=loaded.model,
            role="champion" if loaded is models[0] else "challenger",
            seconds=asked.seconds,
        )
        for loaded, answer in zip(models, answers, strict=True)
    ]
