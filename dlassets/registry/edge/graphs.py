"""A model as graphs: ONNX with floats of 32 bits and with bytes, made of a package, and OpenVINO's form of any of them.

A graph takes one photo, (1, side, side, 3) uint8 pixels, as `photo`, and gives `features`, or with a head
`probabilities`.

onnxruntime itself makes the bytes. On EfficientNet-Lite0, with 128 photos to calibrate with, that is as accurate as
NNCF 3.4, and faster: onnxruntime takes 4.5 ms by these, 8 by floats, and 22 by NNCF's, whose activations have a scale
for each channel, which it cannot multiply; OpenVINO takes 3.5, 7.3 and 5.0 (one thread, with AVX-512).
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dlassets.errors import DlassetsError
from dlassets.images.resampling import Pixels
from dlassets.learning.backbones import BackboneRef, network
from dlassets.learning.head import Head

if TYPE_CHECKING:
    import onnxruntime

PHOTO, FEATURES, PROBABILITIES = "photo", "features", "probabilities"
_OPSET = 17


class Graph:
    """An ONNX file as onnxruntime runs it, on the processor."""

    def __init__(self, file: Path) -> None:
        import onnxruntime

        self._session = onnxruntime.InferenceSession(
            str(file), _quiet(onnxruntime.SessionOptions()), providers=["CPUExecutionProvider"]
        )

    def run(self, photos: Pixels) -> npt.NDArray[np.float32]:
        """Return what the graph gives, a row a photo, of (N, side, side, 3) photos."""
        return np.concatenate([self._session.run(None, {PHOTO: photo[None]})[0] for photo in photos])


def export_features(ref: BackboneRef, file: Path) -> None:
    """Write the backbone as an ONNX file. Raises DlassetsError for one that ONNX has no form of."""
    import onnxruntime
    import torch

    made = network(ref)
    for name in ("mean", "scale"):  # one number costs nothing where three, along the last axis, take as long as a layer
        values = getattr(made, name).flatten()
        if len(values.unique()) == 1:
            setattr(made, name, values[0])
    options = _quiet(onnxruntime.SessionOptions())
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(file)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, that torch has another: that one needs onnxscript
        traced = Path(folder, "traced.onnx")
        photo = torch.zeros(1, ref.side, ref.side, 3, dtype=torch.uint8)
        names: Any = {"input_names": [PHOTO], "output_names": [FEATURES]}
        try:
            torch.onnx.export(made, (photo,), str(traced), dynamo=False, opset_version=_OPSET, **names)
            # It writes the graph with all computed that is the same for every photo, and padding in the convolutions.
            onnxruntime.InferenceSession(str(traced), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # tracing runs the network's own code, which may raise anything
            raise DlassetsError(f"{ref.name} cannot be written as ONNX: {type(error).__name__}: {error}") from error


def quantize(floats: Path, photos: Pixels, file: Path) -> None:
    """Write a graph whose numbers are bytes, of ranges that these (N, side, side, 3) photos show."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Calibration(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._photos: Iterator[Pixels] = iter(photos)

        def get_next(self) -> dict[str, Pixels] | None:
            photo = next(self._photos, None)
            return None if photo is None else {PHOTO: photo[None]}

    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # it advises what is done to the graph here already
    try:
        # Unsigned activations and signed weights are what processors multiply: others take up to ten times as long.
        quantize_static(
            str(floats),
            str(file),
            Calibration(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
    finally:
        root.setLevel(level)


def add_head(features: Path, head: Head, file: Path) -> None:
    """Write the graph of features with the head behind it, in floats, its temperature included."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.load(features)
    graph = model.graph
    numbers = {
        "head_mean": head.mean,
        "head_scale": head.scale,
        "head_weight": head.weight / head.temperature,
        "head_bias": head.bias / head.temperature,
    }
    graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in numbers.items()
    )
    graph.node.extend(
        [
            helper.make_node("Sub", [FEATURES, "head_mean"], ["head_centred"]),
            helper.make_node("Div", ["head_centred", "head_scale"], ["head_standardised"]),
            helper.make_node("Gemm", ["head_standardised", "head_weight", "head_bias"], ["head_logits"], transB=1),
            helper.make_node("Softmax", ["head_logits"], [PROBABILITIES], axis=1),
        ]
    )
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(PROBABILITIES, TensorProto.FLOAT, [1, len(head.labels)]))
    onnx.checker.check_model(model)
    onnx.save(model, file)


def openvino_graph(file: Path) -> Callable[[Pixels], Any]:
    """Return what infers by a graph of OpenVINO on all cores, given (1, side, side, 3)."""
    import openvino

    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    request = openvino.Core().compile_model(file, "CPU", settings).create_infer_request()
    return lambda photo: request.infer([photo])


def to_openvino(graph: Path, file: Path) -> None:
    """Write an ONNX file as OpenVINO has it: `file`, an .xml, and its weights beside it."""
    import openvino

    openvino.save_model(openvino.Core().read_model(graph), file, compress_to_fp16=False)


def _quiet(options: onnxruntime.SessionOptions) -> onnxruntime.SessionOptions:
    options.log_severity_level = 3
    return options
