"""What of a lake matters to who looks after it, each with what to do next; here, what waits for people."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

from dlassets.lakehouse.refusals import QUARANTINED
from dlassets.lakehouse.tables import DELETED_FILES, LABEL_REQUESTS, OPEN, QUARANTINED_FILES, RAW_IMAGES
from dlassets.monitoring.views.models import models_of
from dlassets.monitoring.views.reading import Reading
from dlassets.registry.events import STANDING, WAITING
from dlassets.settings import Settings

MatterKind = Literal["away", "silent", "failed", "stale", "running", "waiting"]
MATTER_KINDS: tuple[MatterKind, ...] = get_args(MatterKind)


@dataclass(frozen=True)
class Matter:
    """`away` is what could not be asked, `silent` what should have been heard of, `waiting` what people are to do."""

    kind: MatterKind
    what: str
    todo: str

    @property
    def is_wrong(self) -> bool:
        """Whether it should not be so: what is running, or waits for people, is as it should be."""
        return self.kind not in {"running", "waiting"}


def in_tables(reading: Reading) -> Iterator[Matter]:
    """Yield what waits for people by the tables: open requests, service by service, and refused files."""
    query = f"SELECT service, COUNT(*) AS photos FROM label_requests WHERE status = '{OPEN}' GROUP BY service"  # noqa: S608
    for row in sorted(reading.asked(query, [LABEL_REQUESTS]), key=lambda row: str(row["service"])):
        yield Matter(
            "waiting",
            f"{row['photos']:,} photos wait for a label ({row['service'] or 'folder'})",
            "answer them: `dlassets label` is a page for it, and docs/labeling.md has the other ways",
        )
    refused = f"SELECT reason, COUNT(*) AS files FROM ({QUARANTINED}) AS refused GROUP BY reason ORDER BY reason"  # noqa: S608
    rows = reading.asked(refused, [QUARANTINED_FILES, RAW_IMAGES, DELETED_FILES])
    if rows:
        reasons = ", ".join(f"{row['files']:,} {row['reason']}" for row in rows)
        yield Matter(
            "waiting",
            f"{sum(row['files'] for row in rows):,} files are quarantined ({reasons})",
            "see them by `dlassets quarantine list`; then mend them, retry or drop",
        )


def in_registry(settings: Settings) -> Iterator[Matter]:
    """Yield the versions that wait for a person's word. Raises DlassetsError where MLflow cannot say."""
    for version in models_of(settings).versions:
        if version.last is not None and version.last.to_state == WAITING:
            number = version.number
            yield Matter(
                "waiting",
                f"version {number} of {settings.registry.model_name} {STANDING[WAITING]}",
                f"see it by `dlassets models {number}`; then `dlassets approve {number}` or `dlassets reject {number}`",
            )
