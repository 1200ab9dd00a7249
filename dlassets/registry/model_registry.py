"""One registered model as this lake knows it: what happened to its versions, and MLflow's entry of it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from dlassets.engines.base import Engine
from dlassets.errors import DlassetsError
from dlassets.lakehouse.snapshots import evolve
from dlassets.lakehouse.tables import MODEL_EVENTS
from dlassets.registry.events import (
    ARCHIVED,
    FAILED,
    NOBODY_KNOWN,
    PROMOTED,
    REGISTERED,
    REPLACED,
    VALIDATED,
    Event,
    History,
    Plan,
    challenger_followed,
    event_of,
    events_of,
    followed,
    signed,
    taken_by,
    write_events,
)
from dlassets.registry.lifecycle import (
    CHALLENGER,
    CHAMPION,
    TAG_PACKAGE,
    TAG_VERDICT,
    identified,
    if_there,
    load_package,
    model_of,
    promotions,
    registered_versions,
    run_or_none,
)
from dlassets.registry.lineage import training_set_of
from dlassets.registry.models import ModelVersion
from dlassets.registry.outages import explained_mlflow
from dlassets.registry.package import ModelPackage
from dlassets.registry.store import MlflowStore
from dlassets.settings import Settings
from dlassets.storage.lake import Lake

if TYPE_CHECKING:
    from mlflow import MlflowClient


@dataclass(frozen=True)
class ModelRegistry:
    """`actor` is who is written down as having done what is done by it, `run_id` the run of Dagster that does it."""

    settings: Settings
    engine: Engine
    store: MlflowStore
    actor: str
    run_id: str = ""

    @property
    def name(self) -> str:
        return self.settings.registry.model_name

    @property
    def lake(self) -> Lake:
        return Lake.at(self.settings.root)

    @property
    def client(self) -> MlflowClient:
        return self.store.client

    def history(self) -> History:
        """Return all that happened to the model; of one from before `model_events`, what MLflow says of it."""
        events = events_of(self.engine, evolve(self.lake, MODEL_EVENTS), self.name)
        return History(events) if events else earlier_history(self.client, self.name)

    def add(self, plan: Plan, new: ModelVersion | None = None) -> tuple[History, list[Event]]:
        """Write down what `plan` makes of the history; return what that is then, and the events that were added.

        A model from before `model_events` has what MLflow says of it taken over first, but for a version that is `new`.
        """

        def whole_plan(history: History) -> Sequence[Event]:
            earlier: list[Event] = []
            if not history.events:
                earlier = [event for event in earlier_history(self.client, self.name).events if event.model != new]
                history = History(history.grown(earlier, 1))
            return [*earlier, *signed(plan(history), self.actor, self.run_id)]

        provenance = {"asset": MODEL_EVENTS.name} | ({"run_id": self.run_id} if self.run_id else {})
        with explained_mlflow("what happened to the model was written down"):
            return write_events(self.engine, self.lake, self.name, whole_plan, provenance)


def load_version(registry: ModelRegistry, version: int) -> ModelPackage:
    """Download the package of a registered version.

    Raises DlassetsError where MLflow does not have it any more, where its files are gone or broken, or are not those of
    which `model_events` has the digest, or the tags of the version and its run: whoever may write to MLflow may set
    those.
    """
    client, name = registry.client, registry.name
    with explained_mlflow(f"version {version} was loaded"):
        registered = if_there(lambda: client.get_model_version(name, str(version)))
        if registered is None:
            raise DlassetsError(
                f"MLflow's store does not have version {version} of {name} any more. Restore the store from a copy; or "
                "have another version validated, and so promoted (see dlassets models)."
            )
        run = run_or_none(client, registered.run_id)
    told = {f"the tag {TAG_PACKAGE} of its version": registered.tags.get(TAG_PACKAGE)}
    if run is not None:
        told[f"the tag {TAG_PACKAGE} of its run"] = run.data.tags.get(TAG_PACKAGE)
    told["model_events"] = registry.history().trusted_package(version)
    return load_package(client, f"models:/{name}/{version}", registered.source, told)


def earlier_history(client: MlflowClient, model_name: str) -> History:
    """Return what MLflow says of a model from before `model_events`: its versions, promotions and champion."""
    versions = {int(version.version): version for version in registered_versions(client, model_name)}
    if not versions:
        return History(())

    def told(number: int, event: str, to_state: str, reason: str, at: dt.datetime, **more: Any) -> Event:
        model = identified(versions[number]) if number in versions else ModelVersion(model_name, number)
        return event_of(model, event, to_state, reason, actor=NOBODY_KNOWN, at=at, **more)

    begun: list[Event] = []
    promoted = [(entry, dt.datetime.fromisoformat(entry["at"])) for entry in promotions(client, model_name)]
    for number, version in versions.items():
        made_at = dt.datetime.fromtimestamp(version.creation_timestamp / 1000, dt.UTC)
        at = min([made_at, *(at for entry, at in promoted if entry["version"] == number)])
        run = run_or_none(client, version.run_id)
        learned_from = None if run is None else training_set_of(run)
        reason = "found in MLflow's registry when model_events began"
        begun.append(told(number, REGISTERED, CHALLENGER, reason, at, training_set_version=learned_from))
        if verdict := version.tags.get(TAG_VERDICT):
            begun.append(told(number, VALIDATED, FAILED, verdict, at))
    for entry, at in promoted:
        run_id = entry.get("run_id", "")
        if entry["over"] is not None:
            begun.append(told(entry["over"], REPLACED, ARCHIVED, taken_by(entry["version"]), at, run_id=run_id))
        begun.append(told(entry["version"], PROMOTED, CHAMPION, entry["why"], at, run_id=run_id))
    # A version comes before its promotion, of which no more than the second was written down.
    history = History(History(()).grown(sorted(begun, key=lambda event: event.at), 1))
    champion, challenger = (model_of(client, model_name, alias) for alias in (CHAMPION, CHALLENGER))
    if champion != history.champion:
        history = _grown(history, followed(champion, history.champion))
    if challenger not in {history.challenger, history.champion}:
        history = _grown(history, challenger_followed(challenger, history))
    return history


def _grown(history: History, events: Sequence[Event]) -> History:
    """Return a history with events of now."""
    now = dt.datetime.now(dt.UTC)
    moved = [replace(event, at=now) for event in events]
    return History([*history.events, *history.grown(moved, len(history.events) + 1)])
