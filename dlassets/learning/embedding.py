"""Photos to embeddings: frozen backbones on OpenVINO or torch, and the kernel that fills image_features.

Both runtimes give the same features within a tolerance: bfloat16 where the processor has it, and float32.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import json
import logging
import queue
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from dlassets.engines.processors import processors
from dlassets.errors import DlassetsError
from dlassets.images.decode import Pixels, as_seen
from dlassets.lakehouse.tables import IMAGE_FEATURES
from dlassets.learning.backbones import BackboneRef, Runtime, feature_version, network, slug, warn_of_random_weights
from dlassets.learning.weights import NONE
from dlassets.storage.cache import cache_path, is_whole, keep_folder

if TYPE_CHECKING:
    import pyarrow as pa

Features = npt.NDArray[np.float32]

# Every inference has this many images, the last ones padded: the compiled shape is one, and an image's features do
# not depend on what it was batched with.
BATCH = 8

# How much of what another process says stands in an error.
_SHOWN = 500

_log = logging.getLogger(__name__)
_build_lock = threading.Lock()


class Backbone:
    """A frozen network, safe to use from several threads. Make one with `load_backbone`."""

    def __init__(
        self, ref: BackboneRef, runtime: str, dimensions: int, infer: Callable[[Pixels], Features], batch: int = BATCH
    ) -> None:
        """`infer` maps exactly `batch` images, (batch, side, side, 3), to their features."""
        self.name, self.view = ref.name, ref.view
        self.runtime, self.dimensions, self.batch, self._infer = runtime, dimensions, batch, infer

    def embed(self, images: Pixels) -> Features:
        """Return the features, (N, dimensions), of upright RGB images, (N, side, side, 3)."""
        features = np.empty((len(images), self.dimensions), np.float32)
        for start in range(0, len(images), self.batch):
            chunk = images[start : start + self.batch]
            padded = chunk
            if len(chunk) < self.batch:
                padded = np.zeros((self.batch, *images.shape[1:]), np.uint8)
                padded[: len(chunk)] = chunk
            features[start : start + self.batch] = self._infer(padded)[: len(chunk)]
        return features

    def embed_bytes(self, files: Sequence[bytes]) -> Features:
        """Return the features, (N, dimensions), of image files. Raises ImageError for one that does not decode."""
        features = np.empty((len(files), self.dimensions), np.float32)
        side = self.view.side
        images = np.zeros((self.batch, side, side, 3), np.uint8)  # what is left of the batch before pads the last one
        for start in range(0, len(files), self.batch):
            chunk = files[start : start + self.batch]
            for place, data in enumerate(chunk):
                images[place] = as_seen(data, self.view)
            features[start : start + self.batch] = self._infer(images)[: len(chunk)]
        return features


def load_backbone(ref: BackboneRef, runtime: Runtime = "auto") -> Backbone:
    """Return this process's one backbone of that name, weights and runtime, built on the first call.

    `auto` is OpenVINO where it imports and compiles, else torch. Raises DlassetsError for an unknown name or runtime
    and where the weights are not to be had.
    """
    with _build_lock:  # lru_cache alone would let two threads build it at once
        return _load(ref, runtime)


def openvino_backbone(ref: BackboneRef, batch: int, streams: int | None = None) -> Backbone:
    """Return a new network on OpenVINO for batches of this size, in memory as long as it is held.

    `streams` is how many batches are inferred at once: by default one a processor. torch is not imported: what was not
    converted yet is converted by another process, and kept in the user's cache.
    Raises DlassetsError where OpenVINO does not run it, or it cannot be kept.
    """
    folder = _cache_of(ref)
    if not is_whole(folder):
        _convert_elsewhere(ref)
    try:
        with _build_lock:
            return _openvino(ref, batch, streams)
    except (ImportError, RuntimeError) as error:
        raise DlassetsError(f"OpenVINO does not run {ref.name} here: {error}") from error


def embed_images(batch: pa.RecordBatch, *, backbone: BackboneRef, runtime: Runtime = "auto") -> pa.RecordBatch:
    """Embed images: a kernel from image_id and content to the columns of the table image_features.

    Raises ImageError for bytes that do not decode.
    """
    import pyarrow as pa

    features = load_backbone(backbone, runtime).embed_bytes(batch.column("content").to_pylist())
    offsets = np.arange(len(features) + 1, dtype=np.int32) * features.shape[1]
    columns = [
        pa.array(batch.column("image_id").to_pylist(), pa.string()),
        pa.array([feature_version(backbone)] * len(features), pa.string()),
        pa.ListArray.from_arrays(offsets, features.ravel()),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=IMAGE_FEATURES.schema)


@functools.cache
def _load(ref: BackboneRef, runtime: str) -> Backbone:
    makers = {"openvino": _openvino, "torch": _torch}
    if runtime not in {"auto", *makers}:
        raise DlassetsError(f"Unknown runtime {runtime!r}. Set features.runtime to auto, openvino or torch.")
    if ref.weights == NONE:
        warn_of_random_weights(ref.name)  # a network that was converted before is not made again, and says nothing
    if runtime != "auto":
        return makers[runtime](ref)
    try:
        return _openvino(ref)
    except (ImportError, RuntimeError) as error:
        _log.warning("OpenVINO does not run %s here (%s): embedding with torch, several times slower.", ref.name, error)
        return _torch(ref)


def _torch(ref: BackboneRef) -> Backbone:
    import torch

    made = network(ref).to(memory_format=torch.channels_last)

    def infer(images: Pixels) -> Features:
        with torch.inference_mode():
            features: Features = made(torch.from_numpy(images)).numpy()
            return features

    return Backbone(ref, "torch", made.dimensions, infer)


def _openvino(ref: BackboneRef, batch: int = BATCH, streams: int | None = None) -> Backbone:
    import openvino

    core = openvino.Core()
    model = _openvino_model(ref, core)
    shape = (batch, ref.side, ref.side, 3)
    model.reshape(list(shape))
    streams = streams or processors()
    offers_bf16 = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    compiled = core.compile_model(
        model,
        "CPU",
        {
            # One stream of one thread for each caller; pinned, the streams of two processes share a core.
            "NUM_STREAMS": streams,
            "INFERENCE_NUM_THREADS": streams,
            "ENABLE_CPU_PINNING": False,
            "INFERENCE_PRECISION_HINT": "bf16" if offers_bf16 else "f32",
        },
    )
    requests = _Requests(compiled, streams, np.zeros(shape, np.uint8))

    def infer(images: Pixels) -> Features:
        with requests.one() as request:
            features: Features = request.infer([images])[0]
            return features

    return Backbone(ref, "openvino", compiled.output(0).shape[1], infer, batch)


class _Requests:
    """What a compiled network infers by: as many at once as it has streams.

    Two first inferences at once, or a request made while another infers, can deadlock on Python's lock (seen with
    2026.4.1). So all are made here and run once, by one thread, while no other network of this process infers.
    """

    _all: ClassVar[weakref.WeakSet[_Requests]] = weakref.WeakSet()

    def __init__(self, compiled: Any, streams: int, example: Pixels) -> None:
        self._free: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.streams = streams
        with ExitStack() as resting:
            for other in list(self._all):
                for _ in range(other.streams):
                    resting.enter_context(other.one())
            for _ in range(streams):
                request = compiled.create_infer_request()
                request.infer([example])
                self._free.put(request)
        self._all.add(self)

    @contextmanager
    def one(self) -> Iterator[Any]:
        """Give a request that nobody infers by, waiting for one."""
        request = self._free.get()
        try:
            yield request
        finally:
            self._free.put(request)


def _openvino_model(ref: BackboneRef, core: Any) -> Any:
    """Return the network in OpenVINO's form: read from the user's cache, or converted and kept there if it can be."""
    folder = _cache_of(ref)
    if is_whole(folder):
        return core.read_model(folder / "model.xml")
    model = _converted(ref)
    try:
        _keep(model, folder)
    except OSError as error:
        _log.warning("%s cannot be written (%s): every process will convert the backbone anew.", folder, error)
    return model


def _cache_of(ref: BackboneRef) -> Path:
    """Return the folder of the converted network: another weight, release or layout is another."""
    packages = ("openvino", "torch", "timm", "torchvision")
    releases = "-".join(f"{package}{importlib.metadata.version(package)}" for package in packages)
    return cache_path("backbones", f"{slug(ref)}-{ref.side}-{releases}")


def _convert_elsewhere(ref: BackboneRef) -> None:
    """Have another process convert a network and keep it. Raises DlassetsError where there is none afterwards."""
    command = [sys.executable, "-m", __name__, json.dumps(asdict(ref))]
    ran = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if ran.returncode or not is_whole(_cache_of(ref)):
        raise DlassetsError(
            f"{ref.name} could not be converted and kept in {_cache_of(ref).parent}: {ran.stderr.strip()[-_SHOWN:]}"
        )


def _converted(ref: BackboneRef) -> Any:
    import openvino
    import torch

    made = network(ref)
    side = ref.side
    example = torch.zeros(2, side, side, 3, dtype=torch.uint8)
    try:
        return openvino.convert_model(made, example_input=example, input=[([-1, side, side, 3], openvino.Type.u8)])
    except Exception as error:  # tracing runs the network's own code, which may raise anything
        raise RuntimeError(f"it cannot be converted: {type(error).__name__}: {error}") from error


def _keep(model: Any, folder: Path) -> None:
    import openvino

    keep_folder(folder, lambda made: openvino.save_model(model, made / "model.xml", compress_to_fp16=False))


if __name__ == "__main__":  # see _convert_elsewhere
    _openvino_model(BackboneRef(**json.loads(sys.argv[1])), importlib.import_module("openvino").Core())
