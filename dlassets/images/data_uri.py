"""A picture within a text: pages and Markdown show it with no file beside them."""

from __future__ import annotations

import base64


def data_uri(picture: bytes) -> str:
    """Return a URI that holds the bytes of a PNG or a JPEG."""
    kind = "png" if picture.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"
