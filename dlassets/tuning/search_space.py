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

    Space = Mapping[str, Span | tuple[bool | int | float | str, ...]]

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
    for name, tried in space.items():
        if name not in _SETTINGS:
            raise SettingsError(f"tuning.space.{name}: training has no such setting.{_nearest(name)}")
        if name in FIXED or name.startswith("compute."):
            raise SettingsError(f"tuning.space.{name}: training.{name} must be the same in all trials. Leave it out.")
        if name.startswith("pixels.") and training.trainable == "head":
            raise SettingsError(
                f"tuning.space.{name}: it changes nothing while training.trainable is head. Leave it out, or set "
                "training.trainable to last_n or all."
            )
        if isinstance(tried, Span) and not _is_number(name):
            raise SettingsError(f"tuning.space.{name} is a span, and training.{name} is no number: give a list.")
        if isinstance(tried, Span) and _is_whole(name) and not (tried.low.is_integer() and tried.high.is_integer()):
            raise SettingsError(f"tuning.space.{name}: training.{name} is a whole number, so low and high must be.")
        for value in (tried.low, tried.high) if isinstance(tried, Span) else tried:
            settings_with(training, {name: value})


def suggest(trial: optuna.Trial, space: Space) -> dict[str, Any]:
    """Return the values that Optuna would try next, by the names of their settings."""
    return {name: _suggest(trial, name, tried) for name, tried in space.items()}


def as_it_stands(space: Space, training: TrainingSettings) -> dict[str, Any] | None:
    """Return the values that the settings have now; None where they lie outside the space."""
    settings = flat(training)
    now = {name: settings[name] for name in space}
    return now if all(_holds(space[name], value) for name, value in now.items()) else None


def flat(training: TrainingSettings) -> dict[str, Any]:
    """Return the value of every setting by its dotted name."""
    tree = training.model_dump()
    return {name: functools.reduce(operator.getitem, name.split("."), tree) for name in _SETTINGS}


def _suggest(trial: optuna.Trial, name: str, tried: Span | tuple[bool | int | float | str, ...]) -> Any:
    if not isinstance(tried, Span):
        return trial.suggest_categorical(name, tried)
    if _is_whole(name):
        return trial.suggest_int(name, int(tried.low), int(tried.high), log=tried.log)
    return trial.suggest_float(name, tried.low, tried.high, log=tried.log)


def _holds(tried: Span | tuple[bool | int | float | str, ...], value: Any) -> bool:
    return tried.low <= value <= tried.high if isinstance(tried, Span) else value in tried


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
