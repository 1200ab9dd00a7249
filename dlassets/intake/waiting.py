"""What waits in a landing zone: files that no run has taken in yet."""

from __future__ import annotations

import datetime as dt
import hashlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dlassets.engines.local import LocalEngine
from dlassets.intake.events import Manifest
from dlassets.intake.handover import Handover
from dlassets.intake.ingest import Intake, listing_due
from dlassets.intake.listing import list_files
from dlassets.settings import LandingZone, Settings
from dlassets.storage.lake import Lake

if TYPE_CHECKING:
    import pyarrow as pa

# A listing that takes as long is worth being handed over: files that come after it wait for the next one.
SLOW_SECONDS = 1.0


@dataclass(frozen=True)
class Waiting:
    """The files of a landing zone that no run has taken in yet, None where only a listing can say how many.

    `digest` names exactly these files: it is another one when more have come. `listing` has all files of the zone and
    took `listing_seconds`, and `handover` is its way to the run that is to take these in; neither is there of a zone
    that is read by its events.
    """

    uri: str
    files: int | None
    digest: str
    listing: pa.Table | None = None
    listing_seconds: float = 0.0
    handover: Handover | None = None

    @property
    def is_listed(self) -> bool:
        return self.handover is not None

    def hand_over(self) -> None:
        """Give the run that is to take these in the listing, unless it can be made anew in no time.

        Of a zone that is listed so quickly a run lists by itself, and finds what has come in between as well.
        """
        if self.handover is None:
            return
        if self.listing_seconds >= SLOW_SECONDS:
            self.handover.write(self.listing)
        else:
            self.handover.drop()


def waiting_files(lake: Lake, settings: Settings, name: str) -> Waiting:
    """Return what waits in a zone, without a JVM on either engine; of one with events, from its manifest alone.

    Raises DlassetsError where the zone is not there or cannot be listed.
    """
    zone = settings.landing[name]
    if zone.discovery == "events":
        return _waiting_events(lake, settings, name, zone)
    intake = Intake(LocalEngine(), lake, settings, name, {})
    tables = intake.tables()
    handover = intake.handover(*tables)  # before the listing: what another run commits from here on is not in it
    started = time.monotonic()
    listing = list_files(name, zone, intake.uri)
    seconds = time.monotonic() - started
    new = intake.new_files(listing, *tables)
    return Waiting(intake.uri, new.num_rows, _digest(new.to_pydict()), listing, seconds, handover)


def _waiting_events(lake: Lake, settings: Settings, name: str, zone: LandingZone) -> Waiting:
    manifest = Manifest.of(lake, name, zone)
    uri = lake.zone(zone.uri)
    if listing_due(manifest, settings):
        # Asked for once a period: a listing that failed is tried again, and not at every look.
        period = int(dt.datetime.now(dt.UTC).timestamp() / (settings.ingest.reconcile_minutes * 60))
        return Waiting(uri, None, _digest(("listing", manifest.listed_at, period)))
    pending = manifest.pending()
    files = None if pending.bad_lines else len(pending.paths)
    return Waiting(uri, files, _digest({name: [*mark] for name, mark in sorted(pending.position.items())}))


def _digest(value: Any) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()[:16]
