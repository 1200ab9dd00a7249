"""Who becomes champion: by the gate or by a person, and back again. Each decision is written down before it is done."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

from dlassets.errors import DlassetsError
from dlassets.masking import masked
from dlassets.registry.aliases import follow_events, is_behind, notice_outside_moves
from dlassets.registry.description import describe
from dlassets.registry.events import (
    APPROVAL_WANTED,
    APPROVED,
    ARCHIVED,
    DECIDED,
    FAILED,
    PROMOTED,
    REGISTERED,
    REJECTED,
    REPLACED,
    ROLLED_BACK,
    STANDING,
    VALIDATED,
    WAITING,
    Event,
    History,
    event_of,
    taken_by,
)
from dlassets.registry.lifecycle import CHAMPION
from dlassets.registry.model_registry import ModelRegistry, load_version
from dlassets.registry.models import VALIDATED_VERSION, ModelVersion
from dlassets.registry.outages import explained_mlflow
from dlassets.registry.validation.validation import (
    DOCUMENT,
    REPORT,
    TAG_VALIDATION,
    Validation,
    folder_of,
)

_AGAIN = f"Have it validated again (materialize {VALIDATED_VERSION.name}), and decide then."


@dataclass(frozen=True)
class Decision:
    """Where a version stands after its validation, or a person's word on it: `reason` is of the newest event on it."""

    model: ModelVersion
    state: str
    reason: str

    @property
    def sentence(self) -> str:
        return f"Version {self.model.version} ({STANDING[self.state]}): {self.reason}"


@dataclass(frozen=True)
class Rollback:
    """`bad` is champion no more, and `restored` is in its place; `done_at` says since when, where it was so already."""

    bad: ModelVersion
    restored: ModelVersion
    done_at: dt.datetime | None = None


def settle(registry: ModelRegistry, validation: Validation) -> Decision:
    """Write a validation down, and promote a version that passed; where the settings want a person's word, ask for it.

    What a person has rejected or rolled back stays so, whatever its validation says. Repeated, it changes nothing.
    Raises DlassetsError where the champion is another than the one that the version was compared with.
    """
    asked = validation.question
    model = ModelVersion(asked.model_name, asked.version, asked.package)
    history, _ = registry.add(lambda history: _settled(registry, history, model, validation))
    return _done(registry, history, model)


def approve(registry: ModelRegistry, version: int, reason: str) -> Decision:
    """Make a version that passed its validation champion, by a person's word; that of who says so again stands.

    Raises DlassetsError where the files of its package or its validation are not those that were asked about, where the
    champion is another than the one that it was compared with, and where who trained it may not approve it.
    """
    notice_outside_moves(registry)
    model = _known(registry, version)

    def plan(history: History) -> Sequence[Event]:
        if history.state(model) == CHAMPION:
            _refuse_another_s(registry, history.last(model, APPROVED, PROMOTED), "is champion already")
            return ()
        _refuse_trainer(registry, history, model)
        validation = _passed_validation(registry, history, model)
        approved = event_of(model, APPROVED, APPROVED, reason, validation=validation.sha256)
        return [approved, *_promoted(history, model, reason, validation.sha256)]

    if registry.history().state(model) != CHAMPION:
        load_version(registry, version)
    history, _ = registry.add(plan)
    return _done(registry, history, model)


def reject(registry: ModelRegistry, version: int, reason: str) -> Decision:
    """Have a version never be promoted, unless somebody approves it after all."""
    notice_outside_moves(registry)
    model = _known(registry, version)

    def plan(history: History) -> Sequence[Event]:
        if history.state(model) == CHAMPION:
            raise DlassetsError(f"Version {version} is champion. Take it back: dlassets rollback --reason ...")
        if history.state(model) == REJECTED:
            _refuse_another_s(registry, history.last(model, REJECTED), "was rejected already")
            return ()
        validated = history.last(model, VALIDATED)
        return [event_of(model, REJECTED, REJECTED, reason, validation=validated and validated.validation)]

    history, _ = registry.add(plan)
    return _done(registry, history, model)


def rollback(registry: ModelRegistry, to: int | None, reason: str) -> Rollback:
    """Make the version that was champion before champion again, or the one that is named; the bad one stays out.

    A rollback that was cut short is done, and no other; and so is one that the same person says again, with the same
    reason: they may not know how far it came. Raises DlassetsError where there is no champion, none before it, or the
    one that is named was never champion and has not passed its validation.
    """
    if (unfinished := _unfinished_rollback(registry)) is not None:
        return unfinished
    notice_outside_moves(registry)
    if (same := _same_rollback(registry, to, reason)) is not None:
        return same
    done: list[Rollback] = []

    def plan(history: History) -> Sequence[Event]:
        bad = history.champion
        if bad is None:
            raise DlassetsError("No version is champion, so that there is nothing to roll back. See dlassets models.")
        restored = _before(history, bad) if to is None else _named(registry, history, to)
        done[:] = [Rollback(bad, restored)]
        back = f"rolled back from version {bad.version}: {reason}"
        return [event_of(bad, ROLLED_BACK, ROLLED_BACK, reason), event_of(restored, PROMOTED, CHAMPION, back)]

    plan(registry.history())
    load_version(registry, done[0].restored.version)
    history, _ = registry.add(plan)
    _done(registry, history, done[0].restored)
    return done[0]


def _settled(registry: ModelRegistry, history: History, model: ModelVersion, validation: Validation) -> Sequence[Event]:
    state, sha256 = history.state(model), validation.sha256
    is_settled, events = state in {CHAMPION, *DECIDED}, []
    before = history.last(model, VALIDATED)
    if before is None or before.validation != sha256:
        to_state = state if state is not None and is_settled else VALIDATED if validation.passed else FAILED
        events.append(event_of(model, VALIDATED, to_state, validation.explanation, validation=sha256))
    if is_settled or not validation.passed:
        return events
    compared = _champion_of(validation)
    if compared != history.champion:
        raise DlassetsError(f"{_another_champion(model, compared, history.champion)} Materialize it again.")
    if registry.settings.registry.approval == "automatic":
        return [*events, *_promoted(history, model, validation.explanation, sha256)]
    if state == WAITING and not events:
        return events
    return [*events, event_of(model, APPROVAL_WANTED, WAITING, _request(registry, validation), validation=sha256)]


def _request(registry: ModelRegistry, validation: Validation) -> str:
    """Return what the validation says, where its report is and how to answer."""
    client, version = registry.client, validation.version
    run = client.get_run(client.get_model_version(registry.name, str(version)).run_id).info
    address = f"{registry.settings.ui.mlflow}/#/experiments/{run.experiment_id}/runs/{run.run_id}/artifacts"
    answers = " or ".join(f"`dlassets {word} {version} --reason ...`" for word in ("approve", "reject"))
    return f"{validation.explanation}. Its report: {address}/{validation.folder}/{REPORT}. Answer with {answers}"


def _promoted(history: History, model: ModelVersion, reason: str, validation: str) -> list[Event]:
    """Return the events of a promotion: of this version, of the champion before, and of older ones that wait."""
    why = taken_by(model.version)
    former = [] if history.champion is None else [event_of(history.champion, REPLACED, ARCHIVED, why)]
    overtaken = [
        event_of(each, ARCHIVED, ARCHIVED, f"version {model.version} was promoted while it waited")
        for each, state in history.models.items()
        if state == WAITING and each.version < model.version
    ]
    return [*overtaken, *former, event_of(model, PROMOTED, CHAMPION, reason, validation=validation)]


def _done(registry: ModelRegistry, history: History, model: ModelVersion) -> Decision:
    follow_events(registry, history)
    with explained_mlflow("it was told how to describe the version"):
        describe(registry, history, model.version)
    last = history.last(model) or history.of(model)[-1]
    return Decision(model, last.to_state, last.reason)


def _known(registry: ModelRegistry, version: int) -> ModelVersion:
    """Return a version as the events know it. Raises DlassetsError for one that they do not."""
    known = [model for model in registry.history().models if model.version == version]
    if known:
        return known[-1]
    numbers = sorted({model.version for model in registry.history().models})
    there = f"It has {', '.join(map(str, numbers))}." if numbers else "Run training_pipeline first."
    raise DlassetsError(f"{registry.name} has no version {version}. {there}")


def _refuse_another_s(registry: ModelRegistry, decision: Event | None, what: str) -> None:
    """Raise DlassetsError where a decision that stands already was another's."""
    if decision is not None and decision.actor != registry.actor:
        raise DlassetsError(
            f"Version {decision.model_version} {what}: {decision.actor} decided so at "
            f"{decision.at:%Y-%m-%d %H:%M:%S} UTC ({decision.reason}). Nothing was changed."
        )


def _refuse_trainer(registry: ModelRegistry, history: History, model: ModelVersion) -> None:
    settings, registered = registry.settings.registry, history.last(model, REGISTERED)
    if settings.approval != "person" or settings.self_approval or registered is None:
        return
    if registered.actor == registry.actor:
        raise DlassetsError(
            f"Version {model.version} was trained by {registry.actor}, who may not approve it. Have somebody else do "
            "so, or set DLASSETS_REGISTRY__SELF_APPROVAL=true."
        )


def _passed_validation(registry: ModelRegistry, history: History, model: ModelVersion) -> Validation:
    """Return the validation that a version passed, and that it was asked about. Raises DlassetsError for another."""
    known = history.last(model, VALIDATED)
    if known is None or known.validation is None:
        raise DlassetsError(f"Version {model.version} has not been validated. {_AGAIN}")
    validation, tag = _validation_of(registry, model)
    if validation.sha256 != known.validation or tag != known.validation:
        raise DlassetsError(
            f"The validation of version {model.version} in MLflow is not the one that stands in model_events "
            f"({known.validation[:12]}): it was changed since, or is of another version. {_AGAIN}"
        )
    if not validation.passed:
        raise DlassetsError(f"Version {model.version} failed its validation: {validation.explanation}.")
    compared = _champion_of(validation)
    if compared != history.champion:
        raise DlassetsError(f"{_another_champion(model, compared, history.champion)} {_AGAIN}")
    return validation


def _validation_of(registry: ModelRegistry, model: ModelVersion) -> tuple[Validation, str | None]:
    """Return the validation that a version's run holds, and what its tag names. Raises DlassetsError without one."""
    from dlassets.registry.tracking import artifact_of

    registered = registry.client.get_model_version(model.name, str(model.version))
    path = f"{folder_of(model.name, model.version)}/{DOCUMENT}"
    try:
        file = artifact_of(registry.client, registered.run_id or "", path)
    except DlassetsError as error:
        raise DlassetsError(f"The validation of version {model.version} cannot be read: {error} {_AGAIN}") from error
    return Validation.from_json(file.decode(errors="replace")), registered.tags.get(TAG_VALIDATION)


def _champion_of(validation: Validation) -> ModelVersion | None:
    asked = validation.question
    if asked.champion_version is None:
        return None
    return ModelVersion(asked.model_name, asked.champion_version, asked.champion_package)


def _another_champion(model: ModelVersion, compared: ModelVersion | None, champion: ModelVersion | None) -> str:
    with_, now = ("no champion" if each is None else f"version {each.version}" for each in (compared, champion))
    return f"Version {model.version} was compared with {with_}, and now there is {now}."


def _unfinished_rollback(registry: ModelRegistry) -> Rollback | None:
    """Do what a rollback that was cut short has left undone, and return it; None where there is none."""
    history = registry.history()
    move = history.last_move
    if move is None or not is_behind(registry, history):
        return None
    before = history.events[history.events.index(move) - 1]
    if (before.event, move.event) != (ROLLED_BACK, PROMOTED):
        return None
    _done(registry, history, move.model)
    return Rollback(before.model, move.model)


def _same_rollback(registry: ModelRegistry, to: int | None, reason: str) -> Rollback | None:
    """Return the rollback that made the champion what it is, where this is that one said again."""
    history = registry.history()
    if not history.reigns or (restored := history.reigns[-1]).model != history.champion:
        return None
    before = history.events[history.events.index(restored) - 1]
    said, wanted = (before.event, before.actor, before.reason), (ROLLED_BACK, masked(registry.actor), masked(reason))
    if said != wanted or to not in {None, restored.model_version}:
        return None
    _done(registry, history, restored.model)
    return Rollback(before.model, restored.model, done_at=restored.at)


def _before(history: History, bad: ModelVersion) -> ModelVersion:
    """Return the last champion before this one that nobody has taken back or rejected since."""
    reigns = [event.model for event in history.reigns]
    candidates = [model for model in reversed(reigns) if model != bad and history.state(model) not in DECIDED]
    if not candidates:
        raise DlassetsError(
            f"No version was champion before version {bad.version} that was not taken back itself. Name one that "
            "passed its validation: dlassets rollback --to N --reason ... (see dlassets models)."
        )
    return candidates[0]


def _named(registry: ModelRegistry, history: History, to: int) -> ModelVersion:
    """Return the version that is named. Raises DlassetsError where it may not be champion again."""
    model = _known(registry, to)
    if model == history.champion:
        raise DlassetsError(f"Version {to} is champion already.")
    state, last = history.state(model), history.last(model) or history.of(model)[-1]
    was_champion = any(reign.model == model for reign in history.reigns)
    may_be = VALIDATED if registry.settings.registry.approval == "automatic" else None
    if state == REJECTED or not (was_champion or state == may_be):
        raise DlassetsError(
            f"Version {to} {'was' if was_champion else 'was never'} champion, and is {STANDING[last.to_state]} now "
            f"({last.reason}). If it is to be champion all the same: dlassets approve {to} --reason ..."
        )
    return model
