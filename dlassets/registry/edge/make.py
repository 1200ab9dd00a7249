"""Make a bundle of a model package: its graphs in both precisions, and how they answer beside the package."""

from __future__ import annotations

import functools
import importlib.metadata
import itertools
import shutil
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dlassets.errors import DlassetsError
from dlassets.images.resampling import Pixels
from dlassets.learning.backbones import Runtime, preprocessing
from dlassets.learning.calibration import calibrated, error_by_chance
from dlassets.learning.embedding import load_backbone
from dlassets.learning.evaluation.evaluate import Evaluation, evaluate
from dlassets.learning.head import Head
from dlassets.registry.edge.bundle import (
    ACCURACY,
    CALIBRATION,
    FASTER,
    SAME_AS_PACKAGE,
    SAME_IN_RUNNER,
    SMALLER,
    write_description,
)
from dlassets.registry.edge.graphs import Graph, add_head, export_features, openvino_graph, quantize, to_openvino
from dlassets.registry.edge.photos import FILES, EdgePhotos, Seen
from dlassets.registry.gate import Verdict, chance_of, shown
from dlassets.registry.models import ModelVersion
from dlassets.registry.package import ModelPackage
from dlassets.registry.validation.validation import Check

F32, INT8 = "f32", "int8"
RUNNER = "run_edge.py"
# How far a device's probabilities may be off those that were noted here: its decoder and processor round otherwise.
TOLERANCE = 0.05
GOLDEN = 8
_MADE_WITH = ("numpy", "onnx", "onnxruntime", "openvino", "pillow", "torch")
# What loads a graph and infers by it.
_RUNTIMES: Mapping[str, Callable[[Path], Callable[[Pixels], Any]]] = {
    "onnxruntime": lambda file: Graph(file).run,
    "openvino": openvino_graph,
}
# Turns of each, and the runs of a turn: those that do not count, and those that do.
_TURNS, _FIRST, _ROUNDS = 3, 5, 10

_EXACT, _OTHER, _CALIBRATION_MARGIN, _SIZE = 1e-3, 0.05, 0.01, 0.5
# A loss of accuracy, and one that McNemar's test must not show: few photos say little.
_LOSS, _NOT_SHOWN, _SHOWN, _ROUNDING = 0.005, 0.02, 0.05, 1e-9
# Int8 is used where these have passed.
_FOR_INT8 = {ACCURACY, CALIBRATION, FASTER}


Probabilities = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Variant:
    """A model in one precision: its head with a temperature for these features, its graph, how it does on test rows."""

    head: Head
    graph: Path
    evaluation: Evaluation


def make_bundle(
    folder: Path,
    model: ModelVersion,
    package: ModelPackage,
    photos: EdgePhotos,
    tables: Mapping[str, int],
    runtime: Runtime = "auto",
) -> None:
    """Fill an empty folder with the bundle of a model. `tables` are the versions that its photos were read at.

    `runtime` is the one that the lake's photos are embedded by. Raises DlassetsError for a backbone that ONNX has no
    form of.
    """
    from dlassets.registry.edge import run_edge

    backbone = package.backbone
    view = {"side": backbone.side, "crop": backbone.crop, "decode_at_least": backbone.view.at_least}
    variants = _variants(folder, package, photos)
    milliseconds = _milliseconds(folder, variants, photos.test.views[:1])
    by_pillow = _seen_by(functools.partial(run_edge.as_seen, view=view), photos.test.files)
    answers = {name: Graph(variant.graph).run(by_pillow.views) for name, variant in variants.items()}
    differences = _differences(package, variants[F32], photos.test.views, by_pillow, answers[F32], runtime)
    checks = _checks(variants, milliseconds, differences)
    int8_is_good = all(check.passed for check in checks if check.name in _FOR_INT8)
    shutil.copyfile(run_edge.__file__, folder / RUNNER)
    description = {
        "model": model._asdict(),
        "classes": [
            {"label": label, "name": name} for label, name in zip(package.head.labels, package.head.names, strict=True)
        ],
        "view": view,
        "preprocessing": preprocessing(backbone),
        "use": INT8 if int8_is_good else F32,
        "precisions": {name: _figures(folder, name, variant, milliseconds) for name, variant in variants.items()},
        "differences": differences,
        "checks": [asdict(check) for check in checks],
        "golden": _golden(folder, photos.test, by_pillow, answers),
        "tolerance": TOLERANCE,
        "tables": dict(tables),
        "made_with": {name: importlib.metadata.version(name) for name in _MADE_WITH},
    }
    write_description(folder, description)


def _variants(folder: Path, package: ModelPackage, photos: EdgePhotos) -> dict[str, Variant]:
    """Write the graphs of both precisions and return them, with what their own features make of the test rows.

    The floats' temperature is the package's; that of int8 is fitted to what its features say of validation.
    """
    features = {name: folder / f"features-{name}.onnx" for name in (F32, INT8)}
    export_features(package.backbone, features[F32])
    quantize(features[F32], photos.calibration.views, features[INT8])
    by_int8 = replace(photos.validation.rows, features=Graph(features[INT8]).run(photos.validation.views))
    heads = {F32: package.head, INT8: calibrated(package.head, by_int8)}
    (folder / "openvino").mkdir()
    variants = {}
    for name, head in heads.items():
        test = replace(photos.test.rows, features=Graph(features[name]).run(photos.test.views))
        graph = folder / f"model-{name}.onnx"
        add_head(features[name], head, graph)
        to_openvino(graph, folder / "openvino" / f"model-{name}.xml")
        features[name].unlink()
        variants[name] = Variant(head, graph, evaluate(head, test))
    return variants


@dataclass(frozen=True)
class _Seen:
    """What some program sees of the photos of `places`, those that it can open."""

    places: list[int]
    views: Pixels


def _seen_by(program: Callable[[bytes], Pixels], files: Sequence[bytes]) -> _Seen:
    """Return what it sees. Raises DlassetsError where it can open none."""
    views = {}
    for place, file in enumerate(files):
        with suppress(OSError, ValueError):
            views[place] = program(file)
    if not views:
        raise DlassetsError(
            f"The runner of devices opens with Pillow, and can open none of {len(files)} test photos: take some in as "
            "JPEG, PNG or WebP."
        )
    return _Seen(list(views), np.concatenate(list(views.values())))


def _differences(
    package: ModelPackage, floats: Variant, views: Pixels, by_pillow: _Seen, answers: Probabilities, runtime: Runtime
) -> dict[str, dict[str, float]]:
    """Return how far the graph of floats is off the package by torch, off the package as it scores, and off itself
    where Pillow has opened the photos: the largest difference of a probability, and on how many photos of how many the
    label is the same.
    """
    few = views[:FILES]
    graph = Graph(floats.graph).run(few)

    def compared(one: Probabilities, other: Probabilities) -> dict[str, float]:
        same = int((one.argmax(axis=1) == other.argmax(axis=1)).sum())
        return {"most": float(np.abs(one - other).max()), "same_label": same, "photos": len(one)}

    def by_package(runs: Runtime) -> Probabilities:
        return package.head.probabilities(load_backbone(package.backbone, runs).embed(few))

    return {
        "package_by_torch": compared(graph, by_package("torch")),
        "package_as_it_scores": compared(graph, by_package(runtime)),
        "opened_by_pillow": compared(graph[by_pillow.places], answers),
    }


def _milliseconds(folder: Path, variants: Mapping[str, Variant], photo: Pixels) -> dict[tuple[str, str], float]:
    """Return the median time of an inference of one photo on all cores, by runtime and precision.

    They take turns, under the same noise. One at a time is in memory, as on a device: after an inference onnxruntime's
    threads spin for some 40 ms, and would take a core from the next.
    """
    files = {("onnxruntime", name): variant.graph for name, variant in variants.items()}
    files |= {("openvino", name): folder / "openvino" / f"model-{name}.xml" for name in variants}
    times: dict[tuple[str, str], list[float]] = {key: [] for key in files}
    for _ in range(_TURNS):
        for (runtime, name), file in files.items():
            times[runtime, name] += _times(_RUNTIMES[runtime](file), photo)
    return {key: statistics.median(found) * 1000 for key, found in times.items()}


def _times(run: Callable[[Pixels], Any], photo: Pixels) -> list[float]:
    """Return the seconds of each run but the first few, which allocate."""
    clock = [time.perf_counter()]
    for _ in range(_FIRST + _ROUNDS):
        run(photo)
        clock.append(time.perf_counter())
    return [end - start for start, end in itertools.pairwise(clock)][_FIRST:]


def _figures(
    folder: Path, name: str, variant: Variant, milliseconds: Mapping[tuple[str, str], float]
) -> dict[str, Any]:
    return {
        "onnx": variant.graph.name,
        "openvino": f"openvino/model-{name}.xml",
        "bytes": (folder / variant.graph.name).stat().st_size,
        "temperature": variant.head.temperature,
        "test_accuracy": variant.evaluation.accuracy,
        "test_rows": variant.evaluation.rows,
        "calibration_error": variant.evaluation.reliability.error,
        "milliseconds": {runtime: time for (runtime, of), time in milliseconds.items() if of == name},
    }


def _checks(
    variants: Mapping[str, Variant],
    milliseconds: Mapping[tuple[str, str], float],
    differences: Mapping[str, Mapping[str, float]],
) -> list[Check]:
    floats, int8 = (variants[name].evaluation for name in (F32, INT8))
    exported, opened = differences["package_by_torch"], differences["opened_by_pillow"]
    other = opened["photos"] - opened["same_label"]
    pairs = Verdict(int8, floats, None)
    loss, p = floats.accuracy - int8.accuracy, chance_of(pairs.lost, pairs.gained)
    error, by_chance = int8.reliability.error, error_by_chance(int8.confidence)
    most_error = max(floats.reliability.error, by_chance) + _CALIBRATION_MARGIN
    slow, fast = (milliseconds["onnxruntime", name] for name in (F32, INT8))
    sizes = [variants[name].graph.stat().st_size for name in (F32, INT8)]

    return [
        Check(
            SAME_AS_PACKAGE,
            exported["most"] <= _EXACT,
            f"on {exported['photos']} test photos no probability is more than {exported['most']:.1e} off the package's "
            f"by torch, and {differences['package_as_it_scores']['most']:.3f} off the package's as it scores here",
            exported["most"],
            _EXACT,
        ),
        Check(
            SAME_IN_RUNNER,
            other <= _OTHER * opened["photos"],
            f"{opened['same_label']} of {opened['photos']} test photos have the same label as the runner opens them, "
            f"and no probability is more than {opened['most']:.3f} off",
            other / opened["photos"],
            _OTHER,
        ),
        Check(
            ACCURACY,
            loss <= _LOSS + _ROUNDING or (p >= _SHOWN and loss <= _NOT_SHOWN + _ROUNDING),
            f"{int8.accuracy:.3f} of {int8.rows} test photos are right in int8, and {floats.accuracy:.3f} in f32 "
            f"({pairs.gained} gained, {pairs.lost} lost, {shown(p)})",
            loss,
            _LOSS,
        ),
        Check(
            CALIBRATION,
            error <= most_error,
            f"confidence and accuracy are {error:.3f} apart in int8 at its temperature of "
            f"{variants[INT8].head.temperature:.3f}, and {floats.reliability.error:.3f} in f32 at "
            f"{variants[F32].head.temperature:.3f}",
            error,
            most_error,
        ),
        Check(
            FASTER,
            fast < slow,
            f"a photo takes onnxruntime {fast:.1f} ms in int8 and {slow:.1f} in f32, {slow / fast:.1f} times as long; "
            f"OpenVINO {milliseconds['openvino', INT8]:.1f} and {milliseconds['openvino', F32]:.1f}",
            slow / fast,
            1.0,
            "at least",
        ),
        Check(
            SMALLER,
            sizes[1] <= _SIZE * sizes[0],
            f"{sizes[1] / 1e6:.1f} MB in int8, and {sizes[0] / 1e6:.1f} in f32",
            sizes[1] / sizes[0],
            _SIZE,
        ),
    ]


def _golden(folder: Path, test: Seen, by_pillow: _Seen, answers: Mapping[str, Probabilities]) -> list[dict[str, Any]]:
    """Put a few test photos into the bundle, of many classes, and return them with the answers to them."""
    (folder / "golden").mkdir()
    said = answers[F32].argmax(axis=1)
    _, firsts = np.unique(said, return_index=True)
    chosen = [*sorted(firsts.tolist()), *sorted({*range(len(said))} - {*firsts.tolist()})][:GOLDEN]
    golden = []
    for number, row in enumerate(chosen, 1):
        place = by_pillow.places[row]
        file = folder / "golden" / f"{number}{Path(test.rows.paths[place]).suffix.lower()}"
        file.write_bytes(test.files[place])
        probabilities = {name: np.round(found[row].astype(float), 6).tolist() for name, found in answers.items()}
        golden.append({"file": f"golden/{file.name}", "image_id": test.rows.image_ids[place], **probabilities})
    return golden
