"""What a landing zone's sensor hands to the run that it starts: its listing, so that a zone is listed once a tick.

There is one file a zone, beside its checkpoint. A tick writes it anew, or takes it away where listing the zone takes no
time, and the run that reads it takes it away. The run lists the zone itself where the file is not there or not whole,
where the zone's settings are others by now, or where one of the tables has moved on since the tick.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dlassets.engines.base import Snapshot
from dlassets.errors import DlassetsError
from dlassets.settings import LandingZone
from dlassets.storage.files import read_whole, write_whole
from dlassets.storage.lake import Lake
from dlassets.storage.stores import advice, filesystem_of

if TYPE_CHECKING:
    import pyarrow as pa

# The tag of a run that a sensor has started: the zone whose listing it hands over.
ZONE_TAG = "dlassets/landing_zone"
_BASIS = b"dlassets.basis"


@dataclass(frozen=True)
class Handover:
    """Where a zone's listing lies between tick and run. `basis` says by which settings it was made, and from when."""

    location: str
    basis: bytes

    @classmethod
    def of(cls, lake: Lake, name: str, zone: LandingZone, tables: Iterable[Snapshot]) -> Handover:
        """Return that of a zone by these settings, while the tables it is compared with stand at these versions."""
        versions = {table.name: table.version for table in tables}
        basis = {"zone": zone.model_dump(mode="json"), "uri": lake.zone(zone.uri), "versions": versions}
        return cls(lake.listing(name), json.dumps(basis, sort_keys=True).encode())

    def write(self, listing: pa.Table) -> None:
        """Put a listing there. Raises DlassetsError where storage refuses it."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        stream = pa.BufferOutputStream()
        told = {**(listing.schema.metadata or {}), _BASIS: self.basis}
        pq.write_table(listing.replace_schema_metadata(told), stream, write_page_checksum=True)
        try:
            write_whole(self.location, stream.getvalue().to_pybytes())
        except OSError as error:
            where = self.location
            raise DlassetsError(f"The listing {where} could not be written: {advice(where, error)}") from error

    def take(self) -> pa.Table | None:
        """Return the listing that lies there, if it is whole and of this basis, and take it away whatever it is."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            content = read_whole(self.location)
            self._delete()
            listing = pq.read_table(pa.BufferReader(content), page_checksum_verification=True)
        except (OSError, pa.ArrowInvalid):  # the zone is listed instead, which says so where storage is away
            return None
        told = dict(listing.schema.metadata or {})
        return listing.replace_schema_metadata(told) if told.pop(_BASIS, None) == self.basis else None

    def drop(self) -> None:
        """Take away what an earlier tick put there. Raises DlassetsError where storage refuses it."""
        try:
            self._delete()
        except FileNotFoundError:
            return
        except OSError as error:
            where = self.location
            raise DlassetsError(f"The listing {where} could not be deleted: {advice(where, error)}") from error

    def _delete(self) -> None:
        filesystem, path = filesystem_of(self.location)
        filesystem.delete_file(path)
