"""Passwords cannot be tried as fast as they are thought of: after some wrong ones, the next has to wait."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

LONGEST_SECONDS = 300.0
# Many people may come from one address, behind a company's router.
_AN_ADDRESS = 10
_MOST_KEPT = 10_000


@dataclass
class _Tried:
    wrong: int = 0
    until: float = 0.0


class Throttle:
    """How long to wait, by name and address, and by address alone. A name alone is not made to wait: others could
    shut a person out by trying theirs.
    """

    def __init__(self, attempts: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._attempts, self._clock = attempts, clock
        self._tried: OrderedDict[tuple[str, ...], _Tried] = OrderedDict()

    def seconds(self, name: str, address: str) -> float:
        """Return how long a password of this name and address has to wait; 0: not at all, and this counts as one.

        It counts as a wrong one until it was right, so that many at once are not all let through.
        """
        now, keys = self._clock(), self._keys(name, address)
        wait = max((self._tried[key].until - now for key in keys if key in self._tried), default=0.0)
        if wait > 0:
            return wait
        for key, most in keys.items():
            tried = self._tried.setdefault(key, _Tried())
            self._tried.move_to_end(key)
            tried.wrong += 1
            if tried.wrong >= most:
                tried.until = now + min(LONGEST_SECONDS, 2.0 ** min(tried.wrong - most, 10))
        while len(self._tried) > _MOST_KEPT:
            self._tried.popitem(last=False)
        return 0.0

    def was_right(self, name: str, address: str) -> None:
        self._tried.pop((name, address), None)
        if of_address := self._tried.get((address,)):
            of_address.wrong, of_address.until = max(0, of_address.wrong - 1), 0.0

    def _keys(self, name: str, address: str) -> dict[tuple[str, ...], int]:
        return {(name, address): self._attempts, (address,): self._attempts * _AN_ADDRESS}
