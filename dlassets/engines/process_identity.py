"""Which process it was, and whether it still is: an id alone is given to another once a process has ended."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from typing import Self

_CLOCK_SET_BY = 60.0


@dataclass(frozen=True)
class ProcessIdentity:
    """A process by its machine, its id there, and when it started (seconds since 1970). As text it can be kept."""

    host: str
    pid: int
    started: float

    @classmethod
    def of(cls, pid: int) -> Self | None:
        """Return the identity of a process of this machine; None where it has ended."""
        import psutil

        try:
            process = psutil.Process(pid)
            has_ended = process.status() == psutil.STATUS_ZOMBIE  # and nobody has asked how
            return None if has_ended else cls(socket.gethostname(), pid, process.create_time())
        except psutil.NoSuchProcess:
            return None

    @classmethod
    def this(cls) -> Self:
        """Return the identity of this very process."""
        identity = cls.of(os.getpid())
        assert identity is not None
        return identity

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Return the identity that `str` made such a text of; None for any other text."""
        try:
            host, pid, started = text.rsplit(" ", 2)
            return cls(host, int(pid), float(started))
        except ValueError:
            return None

    def __str__(self) -> str:
        return f"{self.host} {self.pid} {self.started}"

    @property
    def is_gone(self) -> bool:
        """Whether it ran on this machine, and no more. Of one of another machine nothing can be seen from here.

        When it started is told by a clock that may be set meanwhile: a minute more or less is the same process.
        """
        if self.host != socket.gethostname():
            return False
        found = self.of(self.pid)
        return found is None or abs(found.started - self.started) > _CLOCK_SET_BY

    @property
    def is_alive(self) -> bool:
        """Whether it runs on this machine. One of another cannot be seen from here, and counts as dead."""
        return self.host == socket.gethostname() and not self.is_gone
