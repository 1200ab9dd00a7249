"""What Prometheus is told at /metrics."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

if TYPE_CHECKING:
    from dlassets.web.serving.asked import Asked

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)


class Metrics:
    """The numbers of one application."""

    def __init__(self) -> None:
        self._all = CollectorRegistry()
        self._requests = Counter(
            "dlassets_requests",
            "Requests answered or refused.",
            ["form", "status", "model_version"],
            registry=self._all,
        )
        self._photos = Counter("dlassets_photos", "Photos asked about.", ["form"], registry=self._all)
        self._seconds = Histogram(
            "dlassets_request_seconds", "From a request's head to its answer.", ["form"], buckets=_SECONDS,
            registry=self._all,
        )  # fmt: skip
        self._waiting = Gauge("dlassets_waiting_photos", "Photos that wait or are looked at.", registry=self._all)
        self._version = Gauge("dlassets_champion_version", "The version that answers; 0: none.", registry=self._all)
        self.swaps = Counter("dlassets_model_swaps", "How often another version took over.", registry=self._all)
        self.refused = Counter(
            "dlassets_models_refused",
            "How often a version could not be had, or MLflow not be asked.",
            registry=self._all,
        )

    def watch(self, waiting: Callable[[], int], version: Callable[[], int]) -> None:
        self._waiting.set_function(waiting)
        self._version.set_function(version)

    def count(self, asked: Asked, status: int) -> None:
        form = asked.form or "other"
        self._requests.labels(form, status, asked.model.version if asked.model else "").inc()
        if asked.form is not None:
            self._photos.labels(form).inc(asked.photos)
            self._seconds.labels(form).observe(asked.seconds)

    def text(self) -> bytes:
        return generate_latest(self._all)
