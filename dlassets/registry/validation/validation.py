"""What a validation says, as it is kept: checks with their numbers, and the versions that they were made on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

from dlassets.errors import DlassetsError

# Of a version: the SHA-256 of its validation.
TAG_VALIDATION = "dlassets.validation_sha256"
# Of a run in Dagster: the number of the version that it is to validate.
VERSION_TAG = "dlassets/model_version"
DOCUMENT, REPORT = "validation.json", "report.md"

LOADS, EXAMPLE, GATE = "loads_in_a_clean_process", "has_signature_and_example", "not_worse_than_champion"
ACCURATE, SLICES, CALIBRATED = "accurate", "no_class_or_slice_worse", "calibrated"
AGREES, ROBUST, FAST, SMALL = "agrees_with_champion", "robust", "fast", "small"
# What is asked of a version, in the order of the report.
CHECKS = {
    LOADS: "A process that has loaded nothing before loads its package and answers of a photo.",
    EXAMPLE: "It says what goes in and what comes out, and answers its own example as it does here.",
    GATE: "It is not shown to be worse than the champion on the same test photos.",
    ACCURATE: "It is right on as many test photos as validation.accuracy asks for.",
    SLICES: "On no class or slice of the test photos it is shown to be worse than the champion.",
    CALIBRATED: "Its confidence is no further from its accuracy than validation.calibration_error, or than by chance.",
    AGREES: "It says of test photos what the champion says, as often as validation.agreement asks for.",
    ROBUST: "Blur, noise, darkness, brightness and compression cost it no more than validation.accuracy_lost.",
    FAST: "It answers of one photo within validation.milliseconds.",
    SMALL: "Its package has no more than validation.megabytes.",
}


@dataclass(frozen=True)
class Check:
    """One question about a version: `value` is the number that answers it, `limit` what it should be at most or least.

    Either is None where there was nothing to measure or to hold it against. A version that has not passed a check which
    `blocks` is not promoted.
    """

    name: str
    passed: bool
    sentence: str
    value: float | None = None
    limit: float | None = None
    bound: Literal["at most", "at least"] = "at most"
    blocks: bool = False


@dataclass(frozen=True)
class Question:
    """What a validation is of: two of the same have the same answers, but for how long they took.

    `package` and `champion_package` are SHA-256 of packages, `rows_sha256` is of the ids and labels of the test rows,
    `settings` all that else decides what is asked.
    """

    model_name: str
    version: int
    package: str | None
    champion_version: int | None
    champion_package: str | None
    rows_sha256: str
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Validation:
    """`tables` are the versions that the rows were read at, `details` figures for the report, as JSON has them."""

    question: Question
    tables: Mapping[str, int]
    checks: tuple[Check, ...]
    explanation: str
    details: Mapping[str, Any]

    @property
    def version(self) -> int:
        return self.question.version

    @property
    def champion_version(self) -> int | None:
        return self.question.champion_version

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks if check.blocks)

    @property
    def folder(self) -> str:
        """Where its files lie among those of the version's run."""
        return folder_of(self.question.model_name, self.version)

    @property
    def json(self) -> str:
        """Return it as canonical JSON: equal validations give equal bytes."""
        return json.dumps(asdict(self), sort_keys=True, indent=1, allow_nan=False) + "\n"

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.json.encode()).hexdigest()

    def check(self, name: str) -> Check:
        return next(check for check in self.checks if check.name == name)

    @classmethod
    def from_json(cls, text: str) -> Validation:
        """Raises DlassetsError for what is no validation."""
        try:
            fields = json.loads(text)
            question, checks = Question(**fields.pop("question")), [Check(**each) for each in fields.pop("checks")]
            return cls(question=question, checks=tuple(checks), **fields)
        except (ValueError, KeyError, TypeError) as error:
            raise DlassetsError(f"This is no validation of a model: {error}. Validate the version again.") from error


def folder_of(model_name: str, version: int) -> str:
    return f"validation/{model_name}-{version}"
