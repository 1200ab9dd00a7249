"""A registered model as it serves: an image file in, an answer out, without torch and without HTTP."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from dlassets.images.decode import ImageError
from dlassets.registry.models import ModelVersion
from dlassets.registry.package import ModelPackage

Form = Literal["raw", "multipart", "json", "invocations", "v2", "page"]
Role = Literal["champion", "challenger"]
# Label, name, confidence, margin and top_k, as `ranked` gives them.
Answer = Mapping[str, Any]


@dataclass(frozen=True)
class Served:
    """What one model said of one photo of a request.

    `request_id` is the request's own; the photos of a request of several have its name with their place, `…/1`.
    `image_id` is the SHA-256 of the bytes. `seconds` are those from the request's end to the answer.
    """

    request_id: str
    received_at: dt.datetime
    image_id: str
    content: bytes | None
    form: Form
    answer: Answer
    model: ModelVersion
    role: Role
    seconds: float


# Given all that was said of a request's photos, once that is known and before it is sent. One that raises has the
# request answered with 503: what could not be written down is not answered.
Listener = Callable[[Sequence[Served]], None]


class Online:
    """A model version in memory, ready to answer; safe to use from several threads."""

    def __init__(self, model: ModelVersion, package: ModelPackage, top_k: int = 5) -> None:
        self.model, self.package, self.top_k = model, package, top_k

    def answer(self, files: Sequence[bytes]) -> list[Answer | ImageError]:
        """Return what the model says of each image file, or why it does not decode."""
        raise NotImplementedError
