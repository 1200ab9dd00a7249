"""The registered model as anyone with MLflow would use it: in another process, with nothing but its address."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest

from dlassets.learning.backbones import BackboneRef, feature_version
from dlassets.learning.embedding import load_backbone
from dlassets.learning.head import Head
from dlassets.registry.lifecycle import register
from dlassets.registry.package import ModelPackage
from dlassets_tests.learning.examples import head
from dlassets_tests.registry.conftest import MODEL

LABELS = (3, 12, 40)
PREDICT = """
import io, json, sys
import mlflow, pandas as pd
store, uri, *photos = sys.argv[1:]
mlflow.set_tracking_uri(store)
model = mlflow.pyfunc.load_model(uri)
from mlflow.pyfunc.scoring_server import predictions_to_json
contents = [open(p, "rb").read() for p in photos]
served = io.StringIO()
predictions_to_json(model.predict(pd.DataFrame({"content": [b"none", *contents[:1]]})), served)
print(json.dumps({
    "predictions": model.predict(pd.DataFrame({"content": contents})).to_dict("records"),
    "served": json.loads(served.getvalue(), parse_constant=lambda name: 1 / 0)["predictions"],
    "inputs": model.metadata.signature.inputs.to_dict(),
    "outputs": [column["name"] for column in model.metadata.signature.outputs.to_dict()],
    "example": list(model.input_example["content"].map(len)),
}))
"""


def head_for(photos: list[bytes], labels: tuple[int, ...]) -> Head:
    """A head that knows each of these photos by heart."""
    features = np.asarray(load_backbone(BackboneRef("efficientnet_lite0")).embed_bytes(photos), np.float32)
    mean = features.mean(axis=0)
    return head(labels, (features - mean) / 20, mean=mean)


@pytest.fixture
def three(photos):
    return [next(folder.iterdir()) for folder in sorted(photos.iterdir())[:3]]


def package(photos) -> ModelPackage:
    backbone = BackboneRef("efficientnet_lite0")
    return ModelPackage(head_for([photo.read_bytes() for photo in photos], LABELS), backbone, feature_version(backbone))


def test_a_registered_model_predicts_from_image_bytes_in_another_process(registry, three, tmp_path) -> None:
    version = register(registry.client, MODEL, registry.run(package(three)))

    ran = subprocess.run(
        [sys.executable, "-c", PREDICT, registry.client.tracking_uri, f"models:/{MODEL}/{version}", *map(str, three)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        timeout=120,
    )

    assert ran.returncode == 0, ran.stderr
    said = json.loads(ran.stdout.splitlines()[-1])
    assert [(row["label"], row["name"]) for row in said["predictions"]] == [(n, f"class {n}") for n in LABELS]
    for row in said["predictions"]:
        assert row["confidence"] == row["top_k"][0]["confidence"]
        assert row["margin"] == pytest.approx(row["confidence"] - row["top_k"][1]["confidence"])
        assert sum(best["confidence"] for best in row["top_k"]) == pytest.approx(1)
        assert {best["name"] for best in row["top_k"]} == {"class 3", "class 12", "class 40"}
    assert [(column["name"], column["type"]) for column in said["inputs"]] == [("content", "binary")]
    assert said["outputs"] == ["label", "name", "confidence", "margin", "top_k", "error"]
    bad, good = said["served"]
    assert "UnidentifiedImageError" in bad.pop("error")
    assert {*bad.values()} == {None}, "a photo that does not decode costs its own answer"
    assert (good["label"], good["error"]) == (LABELS[0], None)
    assert said["example"] == [len(b"no photo")]


def test_a_model_of_other_features_refuses_to_load(registry, three) -> None:
    import mlflow

    other = dataclasses.replace(package(three), feature_version="features-1")
    version = register(registry.client, MODEL, registry.run(other))

    with pytest.raises(Exception, match=r"reads features features-1, and what is installed here makes"):
        mlflow.pyfunc.load_model(f"models:/{MODEL}/{version}")
