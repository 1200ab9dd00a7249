"""The versions of the registered model: how good each is, and why it is champion or is not."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dlassets.engines.local import LocalEngine
from dlassets.errors import DlassetsError
from dlassets.lakehouse.snapshots import newest
from dlassets.lakehouse.tables import MODEL_EVENTS
from dlassets.registry.events import STANDING, WAITING, Event, History, events_of
from dlassets.registry.lifecycle import CHAMPION, identified, model_of, registered_versions, run_or_none
from dlassets.registry.model_registry import earlier_history
from dlassets.registry.store import existing_client
from dlassets.settings import Settings
from dlassets.storage.lake import Lake

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion as RegisteredVersion

# Versions that are shown, the newest and the champion.
MOST_VERSIONS = 20


@dataclass(frozen=True)
class Accuracy:
    """A share of test photos that were right, with the ends of its 95% interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Reign:
    """A time for which a version was champion: what made it so, and what ended that, if anything has."""

    begun: Event
    ended: Event | None


@dataclass(frozen=True)
class Version:
    """`accuracy` is on the test photos of its own training; None where MLflow no longer has its run.

    `events` are what happened to it, oldest first, and `last` is the one that says why it stands where it does; `reign`
    is the last time for which it was champion.
    """

    number: int
    run_id: str
    experiment_id: str | None
    made_at: dt.datetime
    accuracy: Accuracy | None
    test_rows: int | None
    is_champion: bool
    events: tuple[Event, ...]
    last: Event | None
    reign: Reign | None

    @property
    def standing(self) -> str:
        """Where it stands, in a few words."""
        if self.is_champion:
            return STANDING[CHAMPION]
        return "not known" if self.last is None else STANDING[self.last.to_state]

    @property
    def waits(self) -> bool:
        """Whether a person is to approve or reject it."""
        return self.last is not None and self.last.to_state == WAITING

    def last_of(self, event: str) -> Event | None:
        """Return the newest event of this kind."""
        return next((each for each in reversed(self.events) if each.event == event), None)


@dataclass(frozen=True)
class _Training:
    experiment_id: str | None = None
    accuracy: Accuracy | None = None
    test_rows: int | None = None


_ended: dict[tuple[str, str], _Training] = {}


@dataclass(frozen=True)
class Models:
    """The versions, newest first; `total` counts those that are not shown as well."""

    name: str
    versions: tuple[Version, ...] = ()
    total: int = 0

    @property
    def champion(self) -> Version | None:
        return next((version for version in self.versions if version.is_champion), None)

    def version(self, number: int) -> Version | None:
        return next((version for version in self.versions if version.number == number), None)

    def of_run(self, run_id: str) -> Version | None:
        return next((version for version in self.versions if version.run_id == run_id), None)


def models_of(settings: Settings) -> Models:
    """Return what MLflow has of the settings' registered model, and `model_events` of its versions.

    Raises DlassetsError where MLflow cannot say.
    """
    name = settings.registry.model_name
    with _explained():
        client = existing_client(settings)
        registered = [] if client is None else registered_versions(client, name)
        if client is None or not registered:
            return Models(name)
        table = newest(Lake.at(settings.root), MODEL_EVENTS.name)
        events = [] if table is None else events_of(LocalEngine(), table, name)
        history = History(events) if events else earlier_history(client, name)
        champion = history.champion if settings.registry.puts_back else model_of(client, name)
        newest_first = sorted(registered, key=lambda version: -int(version.version))
        number = None if champion is None else champion.version
        shown = [v for place, v in enumerate(newest_first) if place < MOST_VERSIONS or int(v.version) == number]
        versions = tuple(_version(client, version, number, history) for version in shown)
    return Models(name, versions, len(registered))


def _version(client: MlflowClient, registered: RegisteredVersion, champion: int | None, history: History) -> Version:
    number, training = int(registered.version), _training(client, registered.run_id or "")
    model = history.known(identified(registered))
    begun = next((reign for reign in reversed(history.reigns) if reign.model == model), None)
    return Version(
        number=number,
        run_id=registered.run_id or "",
        experiment_id=training.experiment_id,
        made_at=dt.datetime.fromtimestamp(registered.creation_timestamp / 1000, dt.UTC),
        accuracy=training.accuracy,
        test_rows=training.test_rows,
        is_champion=number == champion,
        events=history.of(model),
        last=history.last(model),
        reign=None if begun is None else Reign(begun, history.end_of(begun)),
    )


def _training(client: MlflowClient, run_id: str) -> _Training:
    """Return what a run of training measured; of one that has ended, MLflow is asked once."""
    key = (client.tracking_uri, run_id)
    if key in _ended:
        return _ended[key]
    if (run := run_or_none(client, run_id)) is None:
        return _Training()
    ends = [run.data.metrics.get(f"test_accuracy{end}") for end in ("", "_low", "_high")]
    rows = run.data.params.get("test_rows")
    accuracy = None if None in ends else Accuracy(*ends)
    training = _Training(run.info.experiment_id, accuracy, None if rows is None else int(rows))
    if run.info.end_time:
        _ended[key] = training
    return training


@contextmanager
def _explained() -> Iterator[None]:
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, OSError) as error:
        raise DlassetsError(f"MLflow cannot say which models there are: {error}") from error
