"""A registered model as it serves: image files in, answers out, without torch and without HTTP.

One photo costs one inference; four are inferred together, for a quarter less. Features are the same to the last bit as
those of batch scoring, and confidences to the 12th digit.
"""

from __future__ import annotations

import datetime as dt
import io
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from PIL import Image

from dlassets.errors import DlassetsError
from dlassets.images.decode import MAX_PIXELS, ImageError, Pixels, View, as_seen
from dlassets.images.resampling import by_numpy
from dlassets.learning.backbones import BackboneRef, feature_version
from dlassets.learning.embedding import Backbone, Features, openvino_backbone
from dlassets.registry.models import ModelVersion
from dlassets.registry.package import ModelPackage, ranked

# So many photos are inferred together where they wait together: of a batch that is not full, the rest would be waste.
FUSED = 4

Form = Literal["raw", "multipart", "json", "invocations", "v2", "page"]
Role = Literal["champion", "challenger"]
# Label, name, confidence, margin and top_k, as `ranked` gives them.
Answer = Mapping[str, Any]


@dataclass(frozen=True)
class Served:
    """What one model said of one photo of a request.

    `request_id` is the request's own; the photos of a request of several have its name with their place, `…/1`.
    `image_id` is the SHA-256 of the bytes. `seconds` are those from the request's arrival to the answer.
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


# Given all that was said of a request's photos, once that is known and before it is sent, in some thread. One that
# raises has the request answered with 503: what could not be written down is not answered.
Listener = Callable[[Sequence[Served]], None]


class Network:
    """A backbone in memory, for one photo and for FUSED of them; safe to use from several threads.

    Raises DlassetsError where OpenVINO does not run it.
    """

    def __init__(self, ref: BackboneRef, streams: int | None = None) -> None:
        """`streams` is how many photos are inferred at once, by as many threads: by default one a processor."""
        self.view = ref.view
        self._single, self._fused = (openvino_backbone(ref, batch, streams) for batch in (1, FUSED))

    def features(self, images: Sequence[Pixels]) -> Features:
        """Return the features, (N, dimensions), of images as `as_seen` gives them."""
        full = len(images) // FUSED * FUSED
        parts = [(self._fused, images[:full]), (self._single, images[full:])]
        return np.concatenate([_embedded(backbone, part) for backbone, part in parts])


class Online:
    """A model version in memory, ready to answer. Several may share a network."""

    def __init__(self, model: ModelVersion, package: ModelPackage, network: Network, top_k: int = 5) -> None:
        """Raise DlassetsError for a package whose features are not those that are made here."""
        found = feature_version(package.backbone)
        if found != package.feature_version:
            raise DlassetsError(
                f"{model} reads features {package.feature_version}, and what is installed here makes {found}. Install "
                "the packages that its requirements name."
            )
        self.model, self.package, self.network, self.top_k = model, package, network, top_k

    def answers(self, features: Features) -> list[Answer]:
        """Return what the model says of photos with these features, (N, dimensions)."""
        return [*ranked(self.package.head, self.package.head.probabilities(features), self.top_k)]


def answer(
    models: Sequence[Online], files: Sequence[bytes], max_pixels: int = MAX_PIXELS
) -> list[list[Answer] | ImageError]:
    """Return what each model says of each image file, by file; the error of one that does not decode.

    Models that share a network share its inference, and networks that are shown the same share the decoding.
    """
    views = {model.network.view for model in models}
    seen = [_seen(data, views, max_pixels) for data in files]
    good = [each for each in seen if not isinstance(each, ImageError)]
    networks = {model.network for model in models}
    features = {network: network.features([each[network.view] for each in good]) for network in networks}
    of_models = [model.answers(features[model.network]) for model in models]
    by_photo = zip(*of_models, strict=True)
    return [each if isinstance(each, ImageError) else [*next(by_photo)] for each in seen]


def warm(model: Online) -> None:
    """Have a model answer for the first time, which takes longer than any other time."""
    picture = io.BytesIO()
    Image.new("RGB", (640, 480)).save(picture, "JPEG")
    answer([model], [picture.getvalue()] * (FUSED + 1))


def _seen(data: bytes, views: Collection[View], max_pixels: int) -> Mapping[View, Pixels] | ImageError:
    try:
        return {view: as_seen(data, view, resize=by_numpy, max_pixels=max_pixels) for view in views}
    except ImageError as error:
        return error


def _embedded(backbone: Backbone, images: Sequence[Pixels]) -> Features:
    return backbone.embed(np.stack(images)) if images else np.empty((0, backbone.dimensions), np.float32)
