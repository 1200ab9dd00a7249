"""A bundle and the program of devices: what they say, with nothing of dlassets at hand, and what is refused."""

import dataclasses
import io
import json
import shutil
import subprocess
import sys
import weakref
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dlassets.images.decode import as_seen
from dlassets.learning.backbones import BackboneRef, feature_version
from dlassets.learning.calibration import calibrated
from dlassets.learning.embedding import load_backbone
from dlassets.registry.edge import run_edge
from dlassets.registry.edge.bundle import DESCRIPTION, find_bundle, keep_bundle, write_description
from dlassets.registry.edge.make import RUNNER, TOLERANCE, make_bundle
from dlassets.registry.edge.photos import EdgePhotos, Seen
from dlassets.registry.models import ModelVersion
from dlassets.registry.package import ModelPackage
from dlassets_tests.learning.examples import examples, head

MODEL = ModelVersion("image_classifier", 3, "0123")
# A network of timm's own tests: a few layers of every kind that EfficientNets have.
TINY = BackboneRef("timm/test_efficientnet", "none", side=96)
ALONE = """
import importlib.abc, runpy, sys
class Nothing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"dlassets", "torch", "openvino", "onnx", "simplejpeg", "mlflow", "pandas"}:
            raise ModuleNotFoundError(f"{name} is not there on a device")
sys.meta_path.insert(0, Nothing())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def files(photos) -> list[bytes]:
    """The photos of four classes by turns."""
    of_class = [sorted(folder.iterdir()) for folder in sorted(photos.iterdir())]
    return [file.read_bytes() for files in zip(*of_class, strict=True) for file in files]


@pytest.fixture(scope="module")
def package(files) -> ModelPackage:
    """A model whose head has the mean of each class's features for its weight."""
    features = load_backbone(TINY, "torch").embed_bytes(files[:40])
    mean, scale = features.mean(axis=0), features.std(axis=0) + 1e-6
    weight = np.stack([((features - mean) / scale)[place::4].mean(axis=0) for place in range(4)]) / 4
    return ModelPackage(head((1, 3, 4, 8), weight, mean=mean, scale=scale), TINY, feature_version(TINY))


@pytest.fixture(scope="module")
def made(files, package, tmp_path_factory) -> Path:
    def seen(few: list[bytes], first: int) -> Seen:
        labels = [package.head.labels[place % 4] for place in range(len(few))]
        rows = examples(labels, np.empty((len(few), 0)), [f"{first + place:02}" for place in range(len(few))])
        return Seen(rows, np.stack([as_seen(file, TINY.view) for file in few]), few)

    folder = tmp_path_factory.mktemp("edge") / "image_classifier-3"
    folder.mkdir()
    photos = EdgePhotos(seen(files[:16], 0), seen(files[40:60], 40), seen(files[60:80], 60))
    make_bundle(folder, MODEL, package, photos, {"training_set": 5, "raw_images": 7})
    return folder


@pytest.fixture
def device(made, tmp_path) -> Path:
    """A folder with the runner and the bundle as number 1."""
    shutil.copytree(made, tmp_path / "device" / "bundles" / "1")
    shutil.copyfile(made / RUNNER, tmp_path / "device" / RUNNER)
    return tmp_path / "device"


def arrives(device: Path, number: int) -> Path:
    return Path(shutil.copytree(device / "bundles" / "1", device / "bundles" / str(number)))


def test_a_bundle_is_kept_in_a_bucket_whole_and_one_that_lacks_a_file_is_none(s3, bucket) -> None:
    tags = {}
    client = SimpleNamespace(
        get_model_version=lambda *_: SimpleNamespace(run_id=None),
        set_model_version_tag=lambda *named: tags.update({named[2]: named[3]}),
    )

    def fill(folder: Path) -> None:
        (folder / "openvino").mkdir()
        (folder / "openvino" / "model.xml").write_text("a network")
        write_description(folder, {"model": MODEL._asdict()})

    location = f"s3://{bucket}/lake/edge/image_classifier-3"
    kept = keep_bundle(location, MODEL, fill, client)

    found = find_bundle(location, MODEL)
    assert found is not None
    assert found.description == kept.description
    assert {*found.description["sha256"]} == {"openvino/model.xml"}
    assert list(tags.values()) == [found.description["digest"]]
    s3.delete(bucket, "lake/edge/image_classifier-3/openvino/model.xml")
    assert find_bundle(location, MODEL) is None


def test_a_bundle_says_what_is_in_it(made, package) -> None:
    bundle = find_bundle(str(made), MODEL)

    assert bundle is not None
    said = bundle.description
    assert said["model"] == {"name": "image_classifier", "version": 3, "package": "0123"}
    assert said["classes"] == [{"label": label, "name": f"class {label}"} for label in (1, 3, 4, 8)]
    assert said["view"] == {"side": 96, "crop": 0.875, "decode_at_least": 110}
    assert said["tables"] == {"training_set": 5, "raw_images": 7}
    assert said["precisions"]["f32"]["temperature"] == package.head.temperature
    there = {file.relative_to(made).as_posix() for file in made.rglob("*") if file.is_file()}
    assert {*said["sha256"]} == there - {DESCRIPTION}
    assert {f"openvino/model-{precision}.{part}" for precision in ("f32", "int8") for part in ("xml", "bin")} < there
    assert len({(made / golden["file"]).read_bytes() for golden in said["golden"]}) == 8
    assert [check.passed for check in bundle.checks if check.name in {"f32_is_the_package", "int8_is_smaller"}] == [
        True,
        True,
    ]


def test_the_temperature_of_int8_is_fitted_to_what_its_own_features_say_of_validation(made, package, files) -> None:
    """The logarithm of its probabilities is what its head says, up to a number that is the same for all classes."""
    bundle = run_edge.Bundle(made, "int8")
    temperature = bundle.description["precisions"]["int8"]["temperature"]
    views = np.stack([as_seen(file, TINY.view) for file in files[40:60]])
    said = np.concatenate([bundle.session.run(None, {"photo": view[None]})[0] for view in views]).astype(float)
    logits = np.log(said) * temperature
    as_features = head(package.head.labels, np.eye(4))
    labels = [package.head.labels[place % 4] for place in range(20)]

    again = calibrated(as_features, examples(labels, logits))

    assert again.temperature == pytest.approx(temperature, rel=0.01)
    assert again.temperature != pytest.approx(package.head.temperature, rel=0.01)


def test_a_runtime_is_timed_while_no_other_is_in_memory_whose_threads_would_take_a_core(made, files, monkeypatch):
    from dlassets.registry.edge import graphs, make

    alive: weakref.WeakSet[Any] = weakref.WeakSet()
    loaded: list[tuple[str, str]] = []

    def alone(runtime, file):
        assert not alive, "what was timed before is still in memory"
        run = make_of[runtime](file)
        alive.add(run)
        loaded.append((runtime, file.stem))
        return run

    make_of = {**make._RUNTIMES, "onnxruntime": lambda file: partial(graphs.Graph(file).run)}
    monkeypatch.setattr(make, "_RUNTIMES", {runtime: partial(alone, runtime) for runtime in make_of})
    variants: Any = {name: SimpleNamespace(graph=made / f"model-{name}.onnx") for name in ("f32", "int8")}

    found = make._milliseconds(made, variants, as_seen(files[0], TINY.view)[None])

    assert {*loaded} == {(runtime, f"model-{name}") for runtime in make_of for name in variants}
    assert {*found} == {(runtime, name) for runtime in make_of for name in variants}
    assert all(milliseconds > 0 for milliseconds in found.values())


@pytest.mark.parametrize("precision", ["f32", "int8"])
def test_openvino_answers_as_onnxruntime_does(made, files, precision) -> None:
    import openvino

    core = openvino.Core()
    compiled = core.compile_model(
        made / "openvino" / f"model-{precision}.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    bundle = run_edge.Bundle(made, precision)

    for file in files[60:64]:
        view = as_seen(file, TINY.view)[None]
        (there,) = bundle.session.run(None, {"photo": view})
        np.testing.assert_allclose(compiled([view])[0], there, atol=1e-4 if precision == "f32" else TOLERANCE)


def test_a_device_answers_with_nothing_of_dlassets_as_the_package_does(made, package, files, tmp_path) -> None:
    places = []
    for number, file in enumerate(files[60:70]):
        places.append(tmp_path / f"{number}.jpg")
        places[-1].write_bytes(file)
    expected = package.head.probabilities(load_backbone(TINY, "torch").embed_bytes(files[60:70]))
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no photo")

    ran = subprocess.run(
        [sys.executable, "-I", "-c", ALONE, made / RUNNER, bad, *places],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert ran.returncode == 0, ran.stderr
    of_bad, *answers = map(json.loads, ran.stdout.splitlines())
    assert "UnidentifiedImageError" in of_bad["error"]
    assert [answer["photo"] for answer in answers] == [str(place) for place in places]
    # Which precision is used is a matter of its speed where it was made; int8 of random weights says something else.
    used, exact = run_edge.Bundle(made), run_edge.Bundle(made, "f32")
    for answer, file, probabilities in zip(answers, files[60:70], expected, strict=True):
        by_label = {one["label"]: one["confidence"] for one in answer["top_k"]}
        said = [by_label[label] for label in package.head.labels]
        assert said == pytest.approx(used.probabilities(file), abs=1e-4)
        assert exact.probabilities(file) == pytest.approx(probabilities, abs=TOLERANCE)
        assert answer["margin"] == pytest.approx(answer["confidence"] - answer["top_k"][1]["confidence"])
        assert (answer["label"], answer["name"]) == (answer["top_k"][0]["label"], f"class {answer['label']}")
        assert answer["model"]["version"] == 3


def test_a_new_bundle_takes_over_and_one_that_was_changed_or_has_not_come_whole_does_not(device) -> None:
    bundle, refused = run_edge.newest(device)
    assert ((device / "current").read_text(), refused) == ("1", {})

    graph = arrives(device, 10) / "model-f32.onnx"
    data = bytearray(graph.read_bytes())
    data[len(data) // 2] ^= 1
    graph.write_bytes(data)
    (arrives(device, 9) / "golden" / "1.jpg").unlink()
    (arrives(device, 8) / DESCRIPTION).write_text((device / "bundles" / "1" / DESCRIPTION).read_text()[:300])
    renamed = arrives(device, 7) / DESCRIPTION
    renamed.write_text(renamed.read_text().replace("class 3", "class 4"))
    arrives(device, 2)

    bundle, refused = run_edge.newest(device)

    assert (device / "current").read_text() == "2"
    assert [*refused] == [10, 9, 8, 7]
    assert refused[10] == "ValueError: model-f32.onnx is not the file that it was made with"
    assert "1.jpg" in refused[9]
    assert refused[7] == "ValueError: bundle.json is not the file that it was made with"
    assert bundle.answer((device / "bundles" / "1" / "golden" / "1.jpg").read_bytes())["model"]["version"] == 3


def test_a_bundle_that_answers_otherwise_than_where_it_was_made_does_not_take_over(device) -> None:
    run_edge.newest(device)
    other = arrives(device, 2)
    said = json.loads((other / DESCRIPTION).read_text())
    said["golden"][0]["f32"][1] += 2 * TOLERANCE
    (other / DESCRIPTION).unlink()
    write_description(other, {name: value for name, value in said.items() if name not in {"digest", "sha256"}})

    _, refused = run_edge.newest(device, "f32")

    assert (device / "current").read_text() == "1"
    assert refused == {2: "ValueError: its answer to golden/1.jpg is 0.100 off the one where it was made"}


def test_where_the_bundle_in_use_is_damaged_the_good_one_before_it_goes_on(device) -> None:
    newer = arrives(device, 2)
    run_edge.newest(device)
    assert (device / "current").read_text() == "2"
    (newer / "model-int8.onnx").write_bytes(b"")

    _, refused = run_edge.newest(device)

    assert ((device / "current").read_text(), [*refused]) == ("1", [2])
    shutil.rmtree(device / "bundles" / "1")
    with pytest.raises(run_edge.BundleError, match="no bundle that may be used"):
        run_edge.newest(device)


def test_another_models_bundle_and_a_changed_one_are_not_taken_for_it(device) -> None:
    location = device / "bundles" / "1"
    assert find_bundle(str(location), MODEL._replace(package="4567")) is None
    assert find_bundle(str(device / "bundles" / "2"), MODEL) is None
    (location / "golden" / "1.jpg").write_bytes(b"")
    assert find_bundle(str(location), MODEL) is None


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def kinds(photo: bytes) -> dict[str, bytes]:
    image = Image.open(io.BytesIO(photo))
    turned = Image.Exif()
    turned[274] = 6
    faded = image.convert("RGBA")
    faded.putalpha(Image.linear_gradient("L").resize(image.size))
    wide = np.asarray(image.convert("L")).astype(np.uint16) * 257
    return {
        "JPEG": photo,
        "large JPEG": saved(image.resize((1600, 1200)), "JPEG", quality=90),
        "turned": saved(image, "JPEG", exif=turned),
        "grey": saved(image.convert("L"), "JPEG"),
        "CMYK": saved(image.convert("CMYK"), "JPEG"),
        "transparent PNG": saved(faded, "PNG"),
        "PNG with palette": saved(image.quantize(64), "PNG"),
        "PNG of 16 bits": saved(Image.fromarray(wide), "PNG"),
        "WebP": saved(image, "WEBP"),
    }


def test_pillow_shows_the_network_what_dlassets_does_but_for_roundings(files) -> None:
    view = {"side": 96, "crop": 0.875, "decode_at_least": 110}

    differences = {
        kind: np.abs(run_edge.as_seen(data, view)[0].astype(int) - as_seen(data, TINY.view)).mean()
        for kind, data in kinds(files[0]).items()
    }

    assert {kind: round(float(found), 2) for kind, found in differences.items() if found > 1} == {}


def test_the_runner_is_under_a_hundred_lines() -> None:
    assert len(Path(run_edge.__file__).read_text().splitlines()) < 100


def test_a_model_whose_backbone_is_read_mirrored_and_by_roots_goes_into_a_graph_too(files, tmp_path) -> None:
    from dlassets.registry.edge.graphs import Graph, export_features

    ref = dataclasses.replace(TINY, flips=True, root=True)
    export_features(ref, tmp_path / "features.onnx")
    views = np.stack([as_seen(file, ref.view) for file in files[:3]])

    np.testing.assert_allclose(
        Graph(tmp_path / "features.onnx").run(views), load_backbone(ref, "torch").embed(views), atol=1e-4
    )
