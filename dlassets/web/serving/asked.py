"""What is known of a request while it is answered."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from starlette.types import Scope

    from dlassets.registry.models import ModelVersion
    from dlassets.scoring.online import Form


@dataclass
class Asked:
    """A request. `form` is None for one that asks about no photo; what is in `at_end` is called once it is over."""

    request_id: str
    received_at: dt.datetime
    began: float = field(default_factory=time.perf_counter)
    form: Form | None = None
    model: ModelVersion | None = None
    photos: int = 0
    size: int = 0
    at_end: list[Callable[[], None]] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.began


def asked_of(scope: Scope) -> Asked:
    return cast("Asked", scope["asked"])
