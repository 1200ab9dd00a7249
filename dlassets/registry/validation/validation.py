"""What a validation says, as it is kept: checks with their numbers, and the versions that they were made on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from dlassets.errors import DlassetsError

# Of a version: the SHA-256 of its validation.
TAG_VALIDATION = "dlassets.validation_sha256"
DOCUMENT, REPORT = "validation.json", "report.md"


@dataclass(frozen=True)
class Check:
    """One question about a version: `value` is the number that answers it, `limit` what that is held against.

    Either is None where there was nothing to measure or compare. Where a check that `blocks` has not passed, the version
    is not promoted.
    """

    name: str
    value: float | None
    limit: float | None
    passed: bool
    blocks: bool
    sentence: str


@dataclass(frozen=True)
class Validation:
    """`package` and `champion_package` are SHA-256 of packages; `tables` are the versions that rows were read at.

    `rows_sha256` is of the ids and labels of the test rows, `settings` all that else decides what is asked. `details`
    are figures for the report, as JSON has them.
    """

    model_name: str
    version: int
    package: str | None
    champion_version: int | None
    champion_package: str | None
    tables: Mapping[str, int]
    rows: int
    rows_sha256: str
    settings: Mapping[str, Any]
    checks: tuple[Check, ...]
    explanation: str
    details: Mapping[str, Any]

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks if check.blocks)

    @property
    def folder(self) -> str:
        """Where its files lie among those of the version's run."""
        return folder_of(self.model_name, self.version)

    @property
    def json(self) -> str:
        """Return it as canonical JSON: equal validations give equal bytes."""
        return json.dumps(asdict(self), sort_keys=True, indent=1, allow_nan=False) + "\n"

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.json.encode()).hexdigest()

    @classmethod
    def from_json(cls, text: str) -> Validation:
        """Raises DlassetsError for what is no validation."""
        try:
            fields = json.loads(text)
            return cls(**{**fields, "checks": tuple(Check(**check) for check in fields["checks"])})
        except (ValueError, KeyError, TypeError) as error:
            raise DlassetsError(f"This is no validation of a model: {error}. Validate the version again.") from error


def folder_of(model_name: str, version: int) -> str:
    return f"validation/{model_name}-{version}"
