"""Which models answer: the champion, as MLflow names it, and beside it the challenger where that is asked for.

A thread looks every few seconds, and when it is told to. Whatever it finds is loaded and warmed before it takes over,
between two requests. What cannot be loaded does not, and the one before goes on.
"""

from __future__ import annotations

import logging
import threading

from dlassets.errors import DlassetsError
from dlassets.masking import masked
from dlassets.pipeline.session import Session
from dlassets.registry.lifecycle import challenger_beside
from dlassets.registry.model_registry import load_version
from dlassets.registry.models import ModelVersion
from dlassets.registry.store import existing_client
from dlassets.settings import Settings
from dlassets.web.serving.metrics import Metrics
from dlassets.web.serving.workers import Loaded, Workers

_log = logging.getLogger("dlassets.serving")


class Life:
    """The models in use. `models` are those that answer from now on, the champion first; none, while there is none.

    `problem` says what is wrong, where anything is; the models that are there answer all the same.
    """

    def __init__(self, settings: Settings, metrics: Metrics, workers: Workers) -> None:
        self._settings, self._metrics, self._workers = settings, metrics, workers
        # What it reads of the lake are rows of one small table, for which nobody starts Spark.
        self._session = Session(settings.model_copy(update={"engine": "local"}))
        self._before: Loaded | None = None
        self._due, self._ended = threading.Event(), False
        self._thread = threading.Thread(target=self._run, name="life", daemon=True)
        self._told: dict[str, str] = {}
        self.models: tuple[Loaded, ...] = ()
        self.problem = "The model is being loaded."

    @property
    def champion(self) -> Loaded | None:
        return self.models[0] if self.models else None

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._ended = True
        self._due.set()

    def look_now(self) -> None:
        """Have the next look at MLflow be at once."""
        self._due.set()

    def _run(self) -> None:
        while not self._ended:
            self._due.clear()
            try:
                self.problem = self._look()
            except Exception as error:  # noqa: BLE001 - MLflow's client raises anything; the next look may do
                self.problem = masked(f"Which version is champion cannot be said. {error}")
            self._tell("champion", self.problem)
            self._due.wait(self._settings.serving.champion_seconds)

    def _look(self) -> str:
        """Have the models be those that MLflow names; return what is wrong with the champion, if anything is."""
        # Where there is no store nothing is made: the lake may be another than was meant.
        is_there = bool(self.models) or existing_client(self._settings) is not None
        named = self._session.champion() if is_there else None
        if named is None:
            return f"No version of {self._session.model_name} is champion yet. Run training_pipeline first."
        try:
            champion = self._opened(named, *self.models)
        except DlassetsError as error:
            going_on = f" Version {self.champion.model.version} goes on." if self.champion else ""
            return masked(f"{named} is champion, and cannot be served. {error}{going_on}")
        self._take_over((champion, *self._challengers(champion)))
        return ""

    def _challengers(self, champion: Loaded) -> tuple[Loaded, ...]:
        if not self._settings.serving.challengers:
            return ()
        named = challenger_beside(self._session.mlflow.client, champion.model.name, champion.model)
        if named is None:
            return ()
        try:
            challenger = self._opened(named, champion, *self.models)
        except DlassetsError as error:
            self._tell("challenger", masked(f"{named} is challenger, and cannot be asked. {error}"))
            return ()
        return (challenger,)

    def _opened(self, model: ModelVersion, *others: Loaded) -> Loaded:
        """Return a version that is in memory, else load and warm it. Raises DlassetsError where that cannot be."""
        known = [*others, *([self._before] if self._before else [])]
        for loaded in known:
            if loaded.model == model:
                return loaded
        loaded = Loaded(model, load_version(self._session.registry, model.version))
        self._workers.have([loaded, *known])
        return loaded

    def _take_over(self, models: tuple[Loaded, ...]) -> None:
        if models == self.models:
            return
        if (before := self.champion) is not None and before is not models[0]:
            self._before = before
            self._metrics.swaps.inc()
        self.models = models
        _log.info("From now on %s.", " and ".join(f"{loaded.model} answers" for loaded in models))

    def _tell(self, about: str, message: str) -> None:
        """Log what is wrong for a while once."""
        if message and self._told.get(about) != message:
            _log.warning(message)
            self._metrics.refused.inc()
        self._told[about] = message
