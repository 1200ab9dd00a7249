"""Hints that the registry has changed: kept by who takes MLflow's webhooks, and seen by the sensor that looks anyway.

They are a file of the lake. It has each delivery of the last minutes, so that none counts twice, over a restart too. Of
two receivers at the same moment one may forget what the other has seen: then a replay is a hint again, and no more.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping

from dlassets.storage.files import read_whole, write_whole
from dlassets.storage.lake import Lake

# Later, or earlier, than so many seconds from its own time a delivery is refused, and need not be remembered.
WINDOW_SECONDS = 300
# More of them in that time are forgotten, the oldest first.
_MOST = 10_000


class Deliveries:
    """The deliveries that were taken lately, by their ids."""

    def __init__(self, lake: Lake) -> None:
        self._file = lake.registry_hints
        self._one_at_a_time = threading.Lock()

    def take(self, delivery: str, sent_at: float, now: float) -> bool:
        """Remember a delivery, which is the hint; return False for one that was taken before.

        Raises OSError where the lake cannot be written: it is not taken then.
        """
        with self._one_at_a_time:
            known = {id_: at for id_, at in self._read().items() if abs(now - at) <= WINDOW_SECONDS}
            if delivery in known:
                return False
            kept = [*known.items()][1 - _MOST :]
            write_whole(self._file, json.dumps({**dict(kept), delivery: sent_at}))
            return True

    def _read(self) -> Mapping[str, float]:
        try:
            return {str(id_): float(at) for id_, at in json.loads(read_whole(self._file)).items()}
        except FileNotFoundError:
            return {}
        except (ValueError, AttributeError, TypeError):  # somebody else's file: what it said is forgotten
            return {}
