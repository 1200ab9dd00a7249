"""Hints of Label Studio's webhook that somebody has answered: left by who takes it, seen by the sensor of answers.

It signs nothing, and sends each once: so what it says is not read, an answer is never taken from it, and what no hint
came of is found all the same. It does send headers that it was told, by which a hint is known.
"""

from __future__ import annotations

import hashlib
import hmac
import uuid
from dataclasses import dataclass, field

from dlassets.storage.files import write_whole
from dlassets.storage.lake import Lake

# Where the served application takes them, and the header that each must have.
PATH, HEADER = "/webhooks/labelstudio", "X-Dlassets-Hint"


@dataclass(frozen=True)
class Hints:
    """Where Label Studio is to send hints, and what their header says."""

    url: str
    key: str = field(repr=False)

    @classmethod
    def to(cls, address: str, secret: str) -> Hints:
        """Return those to the served application at an address, known by the secret of its webhooks."""
        return cls(address.rstrip("/") + PATH, key_of(secret))


def key_of(secret: str) -> str:
    """Return what the header says: made of the secret of all webhooks, which Label Studio is not told itself."""
    return hmac.new(secret.encode(), PATH.encode(), hashlib.sha256).hexdigest()


def leave_hint(lake: Lake) -> None:
    """Leave a hint. Raises OSError where the lake cannot be written."""
    write_whole(lake.answer_hints, uuid.uuid4().hex)
