"""What tuning may choose from: settings of `training` by their dotted names, checked before anything runs."""

from __future__ import annotations

import difflib
import functools
import operator
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, get_args

from pydantic import BaseModel, ValidationError

from dlassets.errors import SettingsError
from dlassets.settings import Span, TrainingSettings

if TYPE_CHECKING:
    import optuna

Candidates = Span | tuple[bool | int | float | str, ...]
Space = Mapping[str, Candidates]

# They decide what is compared, or how long it takes: between trials they must be the same.
FIXED = ("trainable", "seed", "compute", "pixels.workers", "pixels.checkpoint_steps")


def settings_with(training: TrainingSettings, chosen: Mapping[str, Any]) -> TrainingSettings:
    """Return `training` with the chosen values, by dotted name, in place of its own.

    Raises SettingsError for a name that is no setting of training, naming the nearest, and for a value it cannot have.
    """
    tree = training.model_dump()
    for name, value in chosen.items():
        if name not in _SETTINGS:
            raise SettingsError(f"Unknown setting training.{name}.{_nearest(name)}")
        *parents, leaf = name.split(".")
        branch = tree
        for parent in parents:
            branch = branch[parent]
        branch[leaf] = value
    try:
        return TrainingSettings.model_validate(tree)
    except ValidationError as error:
        lines = [
            f"  training.{'.'.join(map(str, e['loc']))}: {e['msg']} (given: {e['input']!r})" for e in error.errors()
        ]
        raise SettingsError("Tuning cannot choose these settings:\n" + "\n".join(lines)) from error


def check_space(space: Space, training: TrainingSettings) -> None:
    """Raise SettingsError for a space that has a name or value no training can have, or one that changes nothing."""
    if not space:
        raise SettingsError("tuning.space is empty: name the settings of training to be tuned, and what to try.")
    for name, candidates in space.items():
        if name not in _SETTINGS:
            raise SettingsError(f"tuning.space.{name}: training has no such setting.{_nearest(name)}")
        if name in FIXED or name.startswith("compute."):
            raise SettingsError(f"tuning.space.{name}: training.{name} must be the same in all trials. Leave it out.")
        if name.startswith("pixels.") and training.trainable == "head":
            raise SettingsError(
                f"tuning.space.{name}: it changes nothing while training.trainable is head. Leave it out, or set "
                "training.trainable to last_n or all."
            )
        if isinstance(candidates, Span) and not _is_number(name):
            raise SettingsError(f"tuning.space.{name} is a span, and training.{name} is no number: give a list.")
        values = (candidates.low, candidates.high) if isinstance(candidates, Span) else candidates
        if isinstance(candidates, Span) and _is_whole(name) and not all(float(end).is_integer() for end in values):
            raise SettingsError(f"tuning.space.{name}: training.{name} is a whole number, so low and high must be.")
        for value in values:
            settings_with(training, {name: value})


def suggest(trial: optuna.Trial, space: Space) -> dict[str, Any]:
    """Return the values that Optuna would try next, by the names of their settings."""
    return {name: _suggest(trial, name, candidates) for name, candidates in space.items()}


def current_values(space: Space, training: TrainingSettings) -> dict[str, Any] | None:
    """Return the values that the settings have now; None where they lie outside the space."""
    settings = values_by_name(training)
    now = {name: settings[name] for name in space}
    return now if all(_holds(space[name], value) for name, value in now.items()) else None


def values_by_name(training: TrainingSettings) -> dict[str, Any]:
    """Return the value of every setting by its dotted name."""
    tree = training.model_dump()
    return {name: functools.reduce(operator.getitem, name.split("."), tree) for name in _SETTINGS}


def as_json(space: Space) -> dict[str, Any]:
    """Return the space as JSON has it: a span is an object, a list of values an array."""
    return {
        name: candidates.model_dump() if isinstance(candidates, Span) else list(candidates)
        for name, candidates in space.items()
    }


def _suggest(trial: optuna.Trial, name: str, candidates: Candidates) -> Any:
    if not isinstance(candidates, Span):
        return trial.suggest_categorical(name, candidates)
    if _is_whole(name):
        return trial.suggest_int(name, int(candidates.low), int(candidates.high), log=candidates.log)
    return trial.suggest_float(name, candidates.low, candidates.high, log=candidates.log)


def _holds(candidates: Candidates, value: Any) -> bool:
    if isinstance(candidates, Span):
        return value is not None and candidates.low <= value <= candidates.high
    return value in candidates


def _leaves(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _leaves(field.annotation, f"{prefix}{name}.")
        else:
            yield prefix + name, field.annotation


_SETTINGS: dict[str, Any] = dict(_leaves(TrainingSettings))


def _is_whole(name: str) -> bool:
    return int in (_SETTINGS[name], *get_args(_SETTINGS[name]))


def _is_number(name: str) -> bool:
    return _is_whole(name) or float in (_SETTINGS[name], *get_args(_SETTINGS[name]))


def _nearest(name: str) -> str:
    near = difflib.get_close_matches(name, _SETTINGS, n=1, cutoff=0.5)
    return f" Did you mean {near[0]}?" if near else f" It has: {', '.join(_SETTINGS)}."
