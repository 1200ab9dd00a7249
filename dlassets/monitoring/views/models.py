"""The versions of the registered model: how good each is, and why it is champion or is not."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dlassets.errors import DlassetsError
from dlassets.registry.lifecycle import CHAMPION, TAG_VERDICT, promotions, registered_versions, run_or_none
from dlassets.registry.store import existing_client
from dlassets.settings import Settings

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
class Promotion:
    """How a version became champion: `why` in a sentence, in which run of Dagster, and until when it was it."""

    at: dt.datetime
    why: str
    run_id: str
    until: dt.datetime | None = None
    successor: int | None = None


@dataclass(frozen=True)
class Version:
    """`accuracy` is on the test photos of its own training; None where MLflow no longer has its run.

    `verdict` is how it did against who was champion when it came; None of one that came before that was written down.
    """

    number: int
    run_id: str
    experiment_id: str | None
    made_at: dt.datetime
    accuracy: Accuracy | None
    test_rows: int | None
    is_champion: bool
    verdict: str | None
    promotions: tuple[Promotion, ...]

    @property
    def promotion(self) -> Promotion | None:
        """The latest one."""
        return self.promotions[-1] if self.promotions else None


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
    """Return what MLflow has of the settings' registered model. Raises DlassetsError where it cannot say."""
    name = settings.registry.model_name
    with _explained():
        client = existing_client(settings)
        registered = [] if client is None else registered_versions(client, name)
        if client is None or not registered:
            return Models(name)
        model = client.get_registered_model(name)
        champion = int(model.aliases[CHAMPION]) if CHAMPION in model.aliases else None
        history = _by_version(promotions(client, name))
        newest_first = sorted(registered, key=lambda version: -int(version.version))
        shown = [v for place, v in enumerate(newest_first) if place < MOST_VERSIONS or int(v.version) == champion]
        versions = tuple(_version(client, version, champion, history) for version in shown)
    return Models(name, versions, len(registered))


def _by_version(history: Sequence[Mapping[str, Any]]) -> dict[int, list[Promotion]]:
    """Return what the model's history says of each version."""
    found: dict[int, list[Promotion]] = {}
    for entry, after in zip(history, [*history[1:], None], strict=True):
        promotion = Promotion(
            at=dt.datetime.fromisoformat(entry["at"]),
            why=entry["why"],
            run_id=entry.get("run_id", ""),
            until=dt.datetime.fromisoformat(after["at"]) if after else None,
            successor=after["version"] if after else None,
        )
        found.setdefault(int(entry["version"]), []).append(promotion)
    return found


def _version(
    client: MlflowClient,
    registered: RegisteredVersion,
    champion: int | None,
    history: Mapping[int, Sequence[Promotion]],
) -> Version:
    number, training = int(registered.version), _training(client, registered.run_id or "")
    return Version(
        number=number,
        run_id=registered.run_id or "",
        experiment_id=training.experiment_id,
        made_at=dt.datetime.fromtimestamp(registered.creation_timestamp / 1000, dt.UTC),
        accuracy=training.accuracy,
        test_rows=training.test_rows,
        is_champion=number == champion,
        verdict=registered.tags.get(TAG_VERDICT),
        promotions=tuple(history.get(number, ())),
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
