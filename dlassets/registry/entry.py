"""How a trained model becomes a version: registered in MLflow, written down, and then challenger."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dlassets.registry.aliases import follow_events
from dlassets.registry.events import REGISTERED, Event, History, event_of
from dlassets.registry.lifecycle import CHALLENGER, identified, register
from dlassets.registry.lineage import training_set_of
from dlassets.registry.model_registry import ModelRegistry
from dlassets.registry.models import ModelVersion
from dlassets.registry.outages import explained_mlflow

if TYPE_CHECKING:
    from mlflow.entities import Run


def enter(registry: ModelRegistry, run: Run) -> ModelVersion:
    """Register a run's model as a version, as challenger; one that is registered already keeps its version."""
    with explained_mlflow("a version was registered"):
        number = register(registry.client, registry.name, run)
        model = identified(registry.client.get_model_version(registry.name, str(number)))
    reason, version = f"trained as {run.info.run_name}", training_set_of(run)

    def plan(history: History) -> Sequence[Event]:
        if history.last(model, REGISTERED) or history.state(model) not in {None, CHALLENGER}:
            return ()
        return [event_of(model, REGISTERED, CHALLENGER, reason, training_set_version=version)]

    history, _ = registry.add(plan, new=model)
    follow_events(registry, history)
    return model
