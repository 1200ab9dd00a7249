"""MLflow's aliases of the model: they follow `model_events`, and moves that were made elsewhere are noticed.

A tag of the registered model names the event that the alias champion followed last. It tells a move of ours that was
cut short, which is done then, from one by hand: there the tag is of the newest event, and the alias is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dlassets.registry.events import (
    ARCHIVED,
    DECIDED,
    MOVED_OUTSIDE,
    NOBODY_KNOWN,
    PUT_BACK,
    SET_BY_HAND,
    TAKEN_OFF_BY_HAND,
    Event,
    History,
    event_of,
    followed,
)
from dlassets.registry.lifecycle import CHALLENGER, CHAMPION, identified, if_there
from dlassets.registry.model_registry import ModelRegistry
from dlassets.registry.models import ModelVersion
from dlassets.registry.outages import explained_mlflow

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import RegisteredModel

TAG_LAST_EVENT = "dlassets.last_event"


def follow_events(registry: ModelRegistry, history: History) -> None:
    """Have the aliases be what the model's events come to. Raises DlassetsError where MLflow does not do it."""
    with explained_mlflow("its alias champion was to follow model_events, which has what was decided"):
        while True:
            _set_aliases(registry.client, registry.name, history)
            now = registry.history()
            if now.last_move == history.last_move:
                return
            history = now  # another moved it meanwhile, and may have been before us here


def notice_outside_moves(registry: ModelRegistry) -> list[str]:
    """Compare the alias champion with the model's events, and return a sentence for each move that was none of ours.

    It is written down and followed, or put back where the setting `registry.outside_moves` says so. A move of ours that
    was cut short is done, and nothing is said of it. Raises DlassetsError where MLflow cannot say, or not do it.
    """
    with explained_mlflow("it was asked who is champion"):
        found = _found(registry.client, registry.name)
    history, added = registry.add(lambda history: _unheard(registry, history, found))
    if found.model is not None:
        follow_events(registry, history)
    return [f"{event.model}: {event.reason}." for event in added if event.event in {MOVED_OUTSIDE, PUT_BACK}]


def is_behind(registry: ModelRegistry, history: History) -> bool:
    """Whether a move of the champion that is written down was cut short before MLflow's alias followed."""
    with explained_mlflow("it was asked who is champion"):
        return _is_cut_short(history, _found(registry.client, registry.name).last_event)


@dataclass(frozen=True)
class _Found:
    """The registered model, the version that has the alias champion, and the event that this followed."""

    model: RegisteredModel | None
    champion: ModelVersion | None = None
    last_event: str | None = None


def _found(client: MlflowClient, model_name: str) -> _Found:
    model = _entry(client, model_name)
    if model is None:
        return _Found(None)
    version = model.aliases.get(CHAMPION)
    champion = None if version is None else identified(client.get_model_version(model_name, str(version)))
    return _Found(model, champion, model.tags.get(TAG_LAST_EVENT))


def _entry(client: MlflowClient, model_name: str) -> RegisteredModel | None:
    return if_there(lambda: client.get_registered_model(model_name))


def _unheard(registry: ModelRegistry, history: History, found: _Found) -> Sequence[Event]:
    """Return the events of a move that was none of ours; none where the alias is ours, or ours is on its way."""
    alias, champion = found.champion and history.known(found.champion), history.champion
    if alias == champion:
        return ()
    is_lost = champion is not None and not _has(registry.client, champion, history)
    if not is_lost and _is_cut_short(history, found.last_event):
        return ()
    puts_back = registry.settings.registry.puts_back
    if champion is not None and is_lost:
        why = f"MLflow's store does not have version {champion.version} any more, so that it cannot be champion"
        lost = [event_of(champion, MOVED_OUTSIDE, ARCHIVED, why, actor=NOBODY_KNOWN)]
        return [*lost, *(_put_back(history, alias, None) if puts_back else followed(alias, None))]
    return _put_back(history, alias, champion) if puts_back else followed(alias, champion)


def _is_cut_short(history: History, followed: str | None) -> bool:
    """Whether the alias is yet to follow the newest event.

    An event that is none of this lake's is of another with the same store, or of a newer copy of this one: not so then.
    """
    last = history.last_move
    if last is None or last.event_id == followed:
        return False
    is_ours = followed is None or any(event.event_id == followed for event in history.events)
    return is_ours and (history.champion is not None or last.event == PUT_BACK)


def _has(client: MlflowClient, champion: ModelVersion, history: History) -> bool:
    there = if_there(lambda: client.get_model_version(champion.name, str(champion.version)))
    return there is not None and history.known(identified(there)) == champion


def _put_back(history: History, alias: ModelVersion | None, champion: ModelVersion | None) -> list[Event]:
    moved, kept = alias or champion, champion or alias
    if moved is None or kept is None:
        return []
    why = f"{SET_BY_HAND}, which is no approval" if alias else TAKEN_OFF_BY_HAND
    back = f"version {kept.version} is champion as before" if champion else "the alias was taken off it again"
    return [
        event_of(moved, MOVED_OUTSIDE, history.state(moved) or CHALLENGER, why, actor=NOBODY_KNOWN),
        event_of(kept, PUT_BACK, history.state(kept) or CHALLENGER, back),
    ]


def _set_aliases(client: MlflowClient, model_name: str, history: History) -> None:
    model = client.get_registered_model(model_name)
    champion, challenger = history.champion, model.aliases.get(CHALLENGER)
    if champion is None and CHAMPION in model.aliases:
        client.delete_registered_model_alias(model_name, CHAMPION)
    elif champion is not None and str(model.aliases.get(CHAMPION)) != str(champion.version):
        client.set_registered_model_alias(model_name, CHAMPION, str(champion.version))
    if challenger is not None:
        state = history.state(history.known(ModelVersion(model_name, int(challenger))))
        if state in {CHAMPION, ARCHIVED, *DECIDED}:
            client.delete_registered_model_alias(model_name, CHALLENGER)
    # Last: until then the alias counts as one that is yet to follow.
    last = history.last_move
    if last is not None and model.tags.get(TAG_LAST_EVENT) != last.event_id:
        client.set_registered_model_tag(model_name, TAG_LAST_EVENT, last.event_id)
