"""Photos to embeddings: frozen backbones on OpenVINO or torch, and the kernel that fills image_features.

Both runtimes give the same features within a tolerance: bfloat16 where the processor has it, and float32.
"""

from __future__ import annotations

import functools
import importlib.metadata
import logging
import queue
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

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

_log = logging.getLogger(__name__)
_build_lock = threading.Lock()


class Backbone:
    """A frozen network, safe to use from several threads. Make one with `load_backbone`."""

    def __init__(self, ref: BackboneRef, runtime: str, dimensions: int, infer: Callable[[Pixels], Features]) -> None:
        """`infer` maps exactly BATCH images, (BATCH, side, side, 3), to their features."""
        self.name, self.view = ref.name, ref.view
        self.runtime, self.dimensions, self._infer = runtime, dimensions, infer

    def embed(self, images: Pixels) -> Features:
        """Return the features, (N, dimensions), of upright RGB images, (N, side, side, 3)."""
        features = np.empty((len(images), self.dimensions), np.float32)
        for start in range(0, len(images), BATCH):
            chunk = images[start : start + BATCH]
            padded = np.zeros((BATCH, *images.shape[1:]), np.uint8)
            padded[: len(chunk)] = chunk
            features[start : start + BATCH] = self._infer(padded)[: len(chunk)]
        return features

    def embed_bytes(self, files: Sequence[bytes]) -> Features:
        """Return the features, (N, dimensions), of image files. Raises ImageError for one that does not decode."""
        features = np.empty((len(files), self.dimensions), np.float32)
        side = self.view.side
        images = np.zeros((BATCH, side, side, 3), np.uint8)  # in the last batch, what is left of the one before pads
        for start in range(0, len(files), BATCH):
            chunk = files[start : start + BATCH]
            for place, data in enumerate(chunk):
                images[place] = as_seen(data, self.view)
            features[start : start + BATCH] = self._infer(images)[: len(chunk)]
        return features


def load_backbone(ref: BackboneRef, runtime: Runtime = "auto") -> Backbone:
    """Return this process's one backbone of that name, weights and runtime, built on the first call.

    `auto` is OpenVINO where it imports and compiles, else torch. Raises DlassetsError for an unknown name or runtime
    and where the weights are not to be had.
    """
    with _build_lock:  # lru_cache alone would let two threads build it at once
        return _load(ref, runtime)


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


def _openvino(ref: BackboneRef) -> Backbone:
    import openvino

    core = openvino.Core()
    model = _openvino_model(ref, core)
    shape = (BATCH, ref.side, ref.side, 3)
    model.reshape(list(shape))
    streams = processors()
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
    free: queue.SimpleQueue[Any] = queue.SimpleQueue()
    for _ in range(streams):
        request = compiled.create_infer_request()
        # Two first inferences at once, or a request made while another infers, can deadlock on Python's lock
        # (seen with 2026.4.1): all are made here and run once, by one thread.
        request.infer([np.zeros(shape, np.uint8)])
        free.put(request)

    def infer(images: Pixels) -> Features:
        request = free.get()
        try:
            features: Features = request.infer([images])[0]
            return features
        finally:
            free.put(request)

    return Backbone(ref, "openvino", compiled.output(0).shape[1], infer)


def _openvino_model(ref: BackboneRef, core: Any) -> Any:
    """Return the network in OpenVINO's form: read from the user's cache, or converted and kept there if it can be."""
    packages = ("openvino", "torch", "timm", "torchvision")
    releases = "-".join(f"{package}{importlib.metadata.version(package)}" for package in packages)
    # Another weight, release or layout is another folder.
    folder = cache_path("backbones", f"{slug(ref)}-{ref.side}-{releases}")
    if is_whole(folder):
        return core.read_model(folder / "model.xml")
    model = _converted(ref)
    try:
        _keep(model, folder)
    except OSError as error:
        _log.warning("%s cannot be written (%s): every process will convert the backbone anew.", folder, error)
    return model


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
