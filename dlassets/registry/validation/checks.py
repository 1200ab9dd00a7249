"""The checks: each holds a number against its limit, and says in a sentence what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dlassets.errors import some_of
from dlassets.learning.calibration import error_by_chance
from dlassets.learning.evaluation.evaluate import Evaluation
from dlassets.registry.gate import Verdict, shown
from dlassets.registry.validation.clean_process import Answer
from dlassets.registry.validation.regressions import Comparison
from dlassets.registry.validation.robustness import AS_THEY_ARE, Robustness
from dlassets.registry.validation.validation import (
    ACCURATE,
    AGREES,
    CALIBRATED,
    EXAMPLE,
    FAST,
    GATE,
    LOADS,
    ROBUST,
    SLICES,
    SMALL,
    Check,
)
from dlassets.settings import ValidationSettings

if TYPE_CHECKING:
    from mlflow.models import ModelSignature

NO_CHAMPION = "there was no champion to compare it with"
_NAMED = 3
# Two processes on one machine give the same features; on two, as near as the runtimes do.
_SAME_CONFIDENCE = 0.02


@dataclass(frozen=True)
class Described:
    """What a version says of itself, and what this process makes of its example: its label and confidence.

    `problem` is why there is no such answer.
    """

    signature: ModelSignature | None
    problem: str | None = None
    label: int | None = None
    confidence: float | None = None


def loads(answer: Answer, limit_seconds: float) -> Check:
    if answer.load_seconds is None:
        return Check(LOADS, False, f"it does not load in a clean process: {answer.failure}", limit=limit_seconds)
    sentence = (
        f"it was loaded, and had answered, after {answer.load_seconds:.1f} s with {answer.peak_mb:.0f} MB of memory"
    )
    return Check(LOADS, True, sentence, answer.load_seconds, limit_seconds)


def example(described: Described, answer: Answer) -> Check:
    """Check signature and example, whose answer in the clean process is held against the one here."""
    problem = described.problem or _unlike(described, answer) or _unusable(described.signature)
    if problem is not None:
        return Check(EXAMPLE, False, problem, bound="at least")
    sentence = "it takes bytes of photos, and answers its example as it does here"
    return Check(EXAMPLE, True, f"{sentence} (confidence {answer.confidence:.3f})", answer.confidence, bound="at least")


def _unusable(signature: ModelSignature | None) -> str | None:
    if signature is None:
        return "it has no signature"
    takes = [(column.name, column.type.name) for column in signature.inputs.inputs]
    gives = {column.name for column in signature.outputs.inputs} if signature.outputs else set()
    if takes != [("content", "binary")] or not {"label", "name", "confidence"} <= gives:
        return "its signature is not bytes of photos in a column `content` to label, name and confidence"
    return None


def _unlike(described: Described, answer: Answer) -> str | None:
    if answer.failure is not None:
        return "it has not answered its example"
    confidence = answer.confidence or 0.0
    if not (0 <= confidence <= 1 and abs((answer.total or 0.0) - 1) < 1e-6):  # noqa: PLR2004 - rounding
        return f"its confidences are none: the largest is {confidence:g}, and their sum {answer.total:g}"
    if answer.label != described.label or abs(confidence - (described.confidence or 0.0)) > _SAME_CONFIDENCE:
        return (
            f"its example is {answer.label} ({confidence:.3f}) in a clean process, and {described.label} "
            f"({described.confidence:.3f}) here"
        )
    return None


def gate(verdict: Verdict) -> Check:
    share = None if verdict.champion is None else (verdict.lost - verdict.gained) / len(verdict.shared[0])
    return Check(GATE, verdict.passed, verdict.explanation, share, verdict.gate.tolerance)


def accurate(evaluation: Evaluation, settings: ValidationSettings) -> Check:
    low, high = evaluation.interval
    sentence = (
        f"right on {evaluation.right.sum()} of {evaluation.rows} test photos, {evaluation.accuracy:.3f} "
        f"(95% interval: {low:.3f} to {high:.3f})"
    )
    passed = evaluation.accuracy >= settings.accuracy
    return Check(ACCURATE, passed, sentence, evaluation.accuracy, settings.accuracy, "at least")


def slices(compared: Sequence[Comparison], champion_version: int | None, settings: ValidationSettings) -> Check:
    if champion_version is None:
        return Check(SLICES, True, NO_CHAMPION)
    worse = sorted((each for each in compared if each.corrected <= settings.level), key=lambda each: each.corrected)
    of_all = f"{len(compared)} classes and slices of the test photos"
    if not worse:
        sentence = f"on none of {of_all} is it shown to be worse than version {champion_version}"
        return Check(SLICES, True, sentence, 0, 0)
    named = some_of([f"{each}, {shown(each.corrected)}" for each in worse], _NAMED)
    sentence = f"on {len(worse)} of {of_all} it is shown to be worse than version {champion_version}: {named}"
    return Check(SLICES, False, sentence, len(worse), 0)


def calibrated(verdict: Verdict, settings: ValidationSettings) -> Check:
    evaluation = verdict.challenger
    error, by_chance = evaluation.reliability.error, error_by_chance(evaluation.confidence)
    limit = max(settings.calibration_error, by_chance)
    than = "" if verdict.champion is None else _beside(verdict, verdict.champion.reliability.error)
    sentence = (
        f"confidence and accuracy are {error:.3f} apart on average{than}; of {evaluation.rows} photos, {by_chance:.3f} "
        "may be chance"
    )
    return Check(CALIBRATED, error <= limit, sentence, error, limit)


def agrees(verdict: Verdict, settings: ValidationSettings) -> Check:
    """Check how often both models say the same; Cohen's kappa (1960) says how much of that is no chance."""
    if verdict.champion is None:
        return Check(AGREES, True, NO_CHAMPION, bound="at least")
    ours, theirs = verdict.shared
    said, champion = verdict.challenger.predicted[ours], verdict.champion.predicted[theirs]
    share = float((said == champion).mean())
    sentence = (
        f"it says the same as version {verdict.champion_version} of {share:.1%} of {len(ours)} test photos "
        f"(Cohen's kappa {kappa(said, champion):.2f})"
    )
    return Check(AGREES, share >= settings.agreement, sentence, share, settings.agreement, "at least")


def kappa(one: NDArray[np.int64], other: NDArray[np.int64]) -> float:
    """Return Cohen's kappa of two models' answers, each (rows,): 1 where they are the same, 0 as by chance."""
    labels = np.union1d(one, other)
    shares = [np.array([(said == label).mean() for label in labels]) for said in (one, other)]
    by_chance = float(shares[0] @ shares[1])
    return 1.0 if by_chance == 1 else float(((one == other).mean() - by_chance) / (1 - by_chance))


def robust(found: Robustness, champion_version: int | None, settings: ValidationSettings) -> Check:
    from scipy.stats import binom

    if not found.photos:
        return Check(ROBUST, True, "no photo was looked at", limit=settings.accuracy_lost)
    lost, accuracy = found.lost(0), found.accuracies[0]
    worst = max(lost, key=lambda name: lost[name])
    limit = float(binom.ppf(0.95, found.photos, settings.accuracy_lost)) / found.photos
    than = f" (version {champion_version} loses {found.lost(1)[worst]:.3f})" if len(found.accuracies) > 1 else ""
    sentence = (
        f"of {found.photos} test photos it is right on {accuracy[AS_THEY_ARE]:.3f}, and worst with {worst}: "
        f"{accuracy[worst]:.3f}, {lost[worst]:.3f} lost{than}; of so many, {limit:.3f} may be chance"
    )
    return Check(ROBUST, lost[worst] <= limit, sentence, lost[worst], limit)


def fast(answer: Answer, settings: ValidationSettings) -> Check:
    if answer.one_ms is None:
        return Check(FAST, False, "it was not measured, since the package does not load", limit=settings.milliseconds)
    sentence = (
        f"one photo takes {answer.one_ms:.1f} ms from pixels to answer, and {answer.together_ms:.1f} ms where eight "
        "are asked about at once"
    )
    return Check(FAST, answer.one_ms <= settings.milliseconds, sentence, answer.one_ms, settings.milliseconds)


def small(megabytes: float, settings: ValidationSettings) -> Check:
    sentence = f"the package has {megabytes:.2f} MB"
    return Check(SMALL, megabytes <= settings.megabytes, sentence, megabytes, settings.megabytes)


def _beside(verdict: Verdict, error: float) -> str:
    return f" (version {verdict.champion_version}: {error:.3f})"
