"""MLflow's aliases of the model: they follow `model_events`, and moves that were made elsewhere are noticed.

A tag of the registered model names the event that the aliases followed last. It tells a move of ours that was cut
short, which is done then, from one by hand: there the tag is of the newest event, and an alias is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dlassets.registry.events import (
    ARCHIVED,
    CHALLENGER_PUT_BACK,
    CHALLENGER_SET,
    CHALLENGER_TAKEN_OFF,
    MOVED_OUTSIDE,
    NOBODY_KNOWN,
    PUT_BACK,
    PUTS_BACK,
    SET_BY_HAND,
    TAKEN_OFF_BY_HAND,
    Event,
    History,
    challenger_followed,
    event_of,
    followed,
)
from dlassets.registry.lifecycle import CHALLENGER, CHAMPION, STEP, TAG_STEP, identified, if_there
from dlassets.registry.model_registry import ModelRegistry
from dlassets.registry.models import ModelVersion
from dlassets.registry.outages import explained_mlflow

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion as RegisteredVersion
    from mlflow.entities.model_registry import RegisteredModel

TAG_LAST_EVENT = "dlassets.last_event"
_OUTSIDE = {MOVED_OUTSIDE, PUT_BACK, CHALLENGER_SET, CHALLENGER_TAKEN_OFF, CHALLENGER_PUT_BACK}


def follow_events(registry: ModelRegistry, history: History) -> None:
    """Have the aliases be what the model's events come to. Raises DlassetsError where MLflow does not do it."""
    with explained_mlflow("its aliases were to follow model_events, which has what was decided"):
        while True:
            _set_aliases(registry.client, registry.name, history)
            now = registry.history()
            if now.last_move == history.last_move:
                return
            history = now  # another moved it meanwhile, and may have been before us here


def notice_outside_moves(registry: ModelRegistry) -> list[str]:
    """Compare the aliases with the model's events, and return a sentence for each move that was none of ours.

    It is written down and followed, or put back where the setting `registry.outside_moves` says so. A move of ours that
    was cut short is done, and nothing is said of it. Raises DlassetsError where MLflow cannot say, or not do it.
    """
    with explained_mlflow("it was asked who is champion"):
        found = _found(registry.client, registry.name)
    history, added = registry.add(lambda history: _unheard(registry, history, found))
    if found.model is not None:
        follow_events(registry, history)
    return [f"{event.model}: {event.reason}." for event in added if event.event in _OUTSIDE]


def is_behind(registry: ModelRegistry, history: History) -> bool:
    """Whether a move of the champion that is written down was cut short before MLflow's alias followed."""
    with explained_mlflow("it was asked who is champion"):
        return _is_cut_short(history, _found(registry.client, registry.name).last_event)


@dataclass(frozen=True)
class _Found:
    """The registered model, the versions that have its aliases, and the event that these followed."""

    model: RegisteredModel | None
    champion: RegisteredVersion | None = None
    challenger: RegisteredVersion | None = None
    last_event: str | None = None


def _found(client: MlflowClient, model_name: str) -> _Found:
    model = _entry(client, model_name)
    if model is None:
        return _Found(None)
    champion, challenger = (
        None if version is None else client.get_model_version(model_name, str(version))
        for version in map(model.aliases.get, (CHAMPION, CHALLENGER))
    )
    return _Found(model, champion, challenger, model.tags.get(TAG_LAST_EVENT))


def _entry(client: MlflowClient, model_name: str) -> RegisteredModel | None:
    return if_there(lambda: client.get_registered_model(model_name))


def _unheard(registry: ModelRegistry, history: History, found: _Found) -> list[Event]:
    """Return the events of moves that were none of ours; none where the aliases are ours, or ours is on its way."""
    of_champion = _of_champion(registry, history, found)
    now = History([*history.events, *history.grown(of_champion, 1)])
    return [*of_champion, *_of_challenger(registry, history, now, found)]


def _of_champion(registry: ModelRegistry, history: History, found: _Found) -> Sequence[Event]:
    alias, champion = found.champion and history.known(identified(found.champion)), history.champion
    if alias == champion:
        return ()
    is_lost = champion is not None and not _has(registry.client, champion, history)
    if not is_lost and _is_cut_short(history, found.last_event):
        return ()
    puts_back = registry.settings.registry.puts_back
    if champion is not None and is_lost:
        lost = [event_of(champion, MOVED_OUTSIDE, ARCHIVED, _lost(champion, CHAMPION), actor=NOBODY_KNOWN)]
        return [*lost, *(_put_back(history, alias, None) if puts_back else followed(alias, None))]
    return _put_back(history, alias, champion) if puts_back else followed(alias, champion)


def _of_challenger(registry: ModelRegistry, before: History, history: History, found: _Found) -> Sequence[Event]:
    """Return the event of the alias challenger having been moved by hand; `before` is what it had to follow."""
    if found.challenger is not None and _is_another_s(before, found.challenger):
        return ()
    alias, challenger = found.challenger and before.known(identified(found.challenger)), history.challenger
    if alias in {before.challenger, challenger} or (challenger is None and alias == history.champion):
        return ()
    if challenger is not None and not _has(registry.client, challenger, history):
        return [replace(each, reason=_lost(challenger, CHALLENGER)) for each in challenger_followed(None, history)]
    if _is_cut_short(before, found.last_event, of_champion=False):
        return ()
    moved = challenger_followed(alias, history)
    if registry.settings.registry.puts_back or (alias is not None and alias == history.champion):
        kept = challenger or alias
        back = f"version {challenger.version} has it as before" if challenger else "it was taken off again"
        return [
            event_of(
                kept, CHALLENGER_PUT_BACK, history.state(kept) or CHALLENGER, f"{each.model}: {each.reason}, {back}"
            )
            for each in moved
            if kept is not None
        ]
    return moved


def _is_another_s(history: History, version: RegisteredVersion) -> bool:
    """Whether a step has registered a version that this lake does not know: of another lake, or just now."""
    return history.state(history.known(identified(version))) is None and version.tags.get(TAG_STEP) == STEP


def _is_cut_short(history: History, followed: str | None, *, of_champion: bool = True) -> bool:
    """Whether the aliases are yet to follow the newest event.

    An event that is none of this lake's is of another with the same store, or of a newer copy of this one: not so then.
    """
    last = history.last_move
    if last is None or last.event_id == followed:
        return False
    is_ours = followed is None or any(event.event_id == followed for event in history.events)
    return is_ours and (not of_champion or history.champion is not None or last.event in PUTS_BACK)


def _has(client: MlflowClient, model: ModelVersion, history: History) -> bool:
    there = if_there(lambda: client.get_model_version(model.name, str(model.version)))
    return there is not None and history.known(identified(there)) == model


def _lost(model: ModelVersion, alias: str) -> str:
    return f"MLflow's store does not have version {model.version} any more, so that it cannot be {alias}"


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
    _set_alias(client, model, CHAMPION, history.champion)
    found, challenger = model.aliases.get(CHALLENGER), history.challenger
    if found is None or not _is_another_s(history, client.get_model_version(model_name, str(found))):
        # One that somebody has deleted is noticed by whoever looks next, and keeps nobody from being champion.
        if_there(lambda: _set_alias(client, model, CHALLENGER, challenger))
    # Last: until then the aliases count as ones that are yet to follow.
    last = history.last_move
    if last is not None and model.tags.get(TAG_LAST_EVENT) != last.event_id:
        client.set_registered_model_tag(model_name, TAG_LAST_EVENT, last.event_id)


def _set_alias(client: MlflowClient, model: RegisteredModel, alias: str, version: ModelVersion | None) -> None:
    if version is None and alias in model.aliases:
        client.delete_registered_model_alias(model.name, alias)
    elif version is not None and str(model.aliases.get(alias)) != str(version.version):
        client.set_registered_model_alias(model.name, alias, str(version.version))
