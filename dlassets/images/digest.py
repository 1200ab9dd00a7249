"""What a photo is known by: the digest of its bytes, so that a flipped bit shows."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa


def image_id_of(data: bytes | pa.Buffer) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal. Python's lock is free meanwhile."""
    return hashlib.sha256(data).hexdigest()
