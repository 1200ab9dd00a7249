"""What a write was made of, recorded in the table's own log and in Dagster's materialization alike."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from dlassets.engines.base import Snapshot


@dataclass(frozen=True)
class Provenance:
    """`inputs` are the Delta versions that were read, `parameters` whatever else decided the rows."""

    asset: str
    inputs: Mapping[str, int]
    code_version: str
    run_id: str = ""
    model: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, asset: str, read: Iterable[Snapshot], code_version: str, **more: Any) -> Provenance:
        return cls(asset, {s.name: s.version for s in read if s.name != asset}, code_version, **more)

    def as_dict(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value not in (None, "", {})}
