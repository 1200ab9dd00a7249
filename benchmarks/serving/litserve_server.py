"""LitServe, as its guide shows it, on the same network and head: `… LAKE PORT`, in the peers' environment.

A request is JSON, with the photo in base64: it gives a model no other bytes.
"""

from __future__ import annotations

import base64
import sys
from typing import Any

import litserve

from benchmarks.serving.lake import package_of

# As many as the network takes at once, and how long a request waits for others.
_BATCH, _WAIT_SECONDS = 8, 0.005


class Classifier(litserve.LitAPI):  # type: ignore[misc]
    def __init__(self, lake: str) -> None:
        super().__init__(max_batch_size=_BATCH, batch_timeout=_WAIT_SECONDS)
        self._lake = lake

    def setup(self, device: str) -> None:
        del device
        from benchmarks.training.embedders import embedder

        self._head, self._embed = package_of(self._lake).head, embedder()

    def decode_request(self, request: dict[str, str]) -> bytes:
        return base64.b64decode(request["image"])

    def batch(self, inputs: list[bytes]) -> list[bytes]:
        return inputs

    def predict(self, contents: list[bytes]) -> list[dict[str, Any]]:
        from dlassets.registry.package import ranked

        return ranked(self._head, self._head.probabilities(self._embed(contents)), 5)

    def unbatch(self, answers: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return answers

    def encode_response(self, answer: dict[str, Any]) -> dict[str, Any]:
        return answer


if __name__ == "__main__":
    server = litserve.LitServer(Classifier(sys.argv[1]), accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=int(sys.argv[2]), generate_client_file=False, log_level="warning")
