"""The same photos, by every way that a model is used: one package, and so one answer.

What batch scoring says stands for all. Where the network is OpenVINO's the features are the same to the last bit, and
probabilities to the 12th digit; a device's graph has floats of 32 bits, or bytes, and its photos are opened by Pillow.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dlassets.images.decode import as_seen
from dlassets.images.digest import image_id_of
from dlassets.learning.backbones import BackboneRef, feature_version
from dlassets.pipeline import steps
from dlassets.pipeline.follower import Follower
from dlassets.pipeline.report import Report
from dlassets.pipeline.session import Session
from dlassets.registry.edge.photos import EdgePhotos, Seen
from dlassets.registry.lifecycle import CHAMPION, register
from dlassets.registry.models import ModelVersion
from dlassets.registry.package import ModelPackage
from dlassets.scoring.udf import photo_udf
from dlassets.settings import Settings
from dlassets_tests.learning.examples import examples
from dlassets_tests.programs import python
from dlassets_tests.registry.conftest import MODEL, Registry, store_of
from dlassets_tests.registry.test_pyfunc import head_for
from dlassets_tests.servers import free_port
from dlassets_tests.tables import get
from dlassets_tests.web.serving.service import Served, serving
from dlassets_tests.web.serving.test_serving import FORMS

REF = BackboneRef("efficientnet_lite0")
LABELS = (3, 12, 40, 41)
DOCUMENT = Path(__file__).parent.parent / "docs" / "using-a-model.md"
# What a graph of 32-bit floats, or one of bytes, is off the network in bfloat16.
FLOATS, BYTES = 0.05, 0.25

Answers = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Scored:
    """A lake with a champion and eight photos, and what batch scoring says of each, by image_id."""

    settings: Settings
    uri: str
    model: ModelVersion
    package: ModelPackage
    files: list[bytes]
    answers: Answers


def predictions_of(settings: Settings) -> Answers:
    session = Session(settings)
    columns = "image_id, predicted_label AS label, predicted_name AS name, confidence, margin, top_k"
    found = get(session.engine, session.lake, "predictions", columns)
    return {row.pop("image_id"): row for row in found}


def put(settings: Settings, files: Sequence[bytes]) -> None:
    zone = Path(Session(settings).lake.zone("unlabeled"))
    zone.mkdir(parents=True)
    zone.with_name("labeled").mkdir()
    for number, file in enumerate(files):
        (zone / f"{number}.jpg").write_bytes(file)


@pytest.fixture(scope="module")
def scored(photos, tmp_path_factory) -> Iterator[Scored]:
    settings = Settings(root=str(tmp_path_factory.mktemp("equal") / "lake"))
    files = [photo.read_bytes() for folder in sorted(photos.iterdir()) for photo in sorted(folder.iterdir())[:2]]
    head = replace(head_for(files[::2], LABELS), temperature=0.5)
    package = ModelPackage(head, REF, feature_version(REF))
    put(settings, files)
    with store_of(settings) as store:
        version = register(store.client, MODEL, Registry(store).run(package))
        store.client.set_registered_model_alias(MODEL, CHAMPION, str(version))
        session = Session(settings)
        for step in (steps.ingested_files, steps.image_features, steps.predictions):
            step.run(session)
        yield Scored(
            settings, store.client.tracking_uri, session.required_champion(), package, files, predictions_of(settings)
        )


@pytest.fixture(autouse=True)
def _reached(scored, monkeypatch) -> None:
    """Have processes that tests start find the model."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", scored.uri)


def of_files(scored: Scored, answers: Sequence[Mapping[str, Any]]) -> Answers:
    return {image_id_of(file): dict(said) for file, said in zip(scored.files, answers, strict=True)}


def assert_equal(answers: Answers, scored: Scored, tolerance: float) -> None:
    """Compare every answer; classes that are as likely, by the tolerance, may have changed places."""
    assert answers.keys() == scored.answers.keys()
    for image_id, expected in scored.answers.items():
        said = answers[image_id]
        if expected["margin"] > 2 * tolerance:
            assert (said["label"], said["name"]) == (expected["label"], expected["name"])
        assert said["confidence"] == pytest.approx(expected["confidence"], abs=tolerance)
        assert said["margin"] == pytest.approx(expected["margin"], abs=2 * tolerance)
        found = {one["label"]: one["confidence"] for one in said["top_k"]}
        assert found == pytest.approx({one["label"]: one["confidence"] for one in expected["top_k"]}, abs=tolerance)
        if tolerance < FLOATS:
            assert [one["name"] for one in said["top_k"]] == [one["name"] for one in expected["top_k"]]


@pytest.mark.slow
def test_the_answers_that_are_compared_are_not_all_sure_and_not_all_one(scored) -> None:
    assert len(scored.answers) == 8
    assert {said["label"] for said in scored.answers.values()} == {*LABELS}
    assert min(said["confidence"] for said in scored.answers.values()) < 0.9
    assert len({said["confidence"] for said in scored.answers.values()}) == 8


@pytest.mark.slow
def test_the_stream_answers_as_batch_to_the_last_bit(scored, tmp_path) -> None:
    from dlassets_tests.pipeline.test_stream import Running

    mlflow = {"tracking_uri": scored.uri}
    settings = Settings(root=str(tmp_path / "lake"), mlflow=mlflow, stream={"batch_seconds": 0.02})
    session = Session(settings)
    zone = Path(session.lake.zone("unlabeled"))
    zone.mkdir(parents=True)
    zone.with_name("labeled").mkdir()
    with Running(session.engine, settings, then=Follower(session, Report())) as running:
        for number, file in enumerate(scored.files):
            (zone / f"{number}.new").write_bytes(file)
            (zone / f"{number}.new").rename(zone / f"{number}.jpg")
        running.until(lambda: len(predictions_of(settings)) == len(scored.files))

    assert predictions_of(settings) == scored.answers


@pytest.fixture(scope="module")
def served(scored, tmp_path_factory) -> Iterator[Served]:
    with serving(scored.settings.root, tmp_path_factory.mktemp("server") / "log", {}) as server:
        yield server


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_the_service_answers_in_each_form_as_batch_does(scored, served, form) -> None:
    assert_equal(of_files(scored, FORMS[form](served, scored.files)), scored, 1e-12)


@contextmanager
def mlflow_serving(uri: str, log: Path) -> Iterator[Served]:
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "models",
        "serve",
        "-m",
        uri,
        "--port",
        str(port),
        "--env-manager",
        "local",
    ]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with log.open("wb") as out:
        process = subprocess.Popen(command, env=os.environ | {"PATH": path}, stdout=out, stderr=out, process_group=0)
    server = Served(process, port, log)
    try:
        server.awaited(lambda: _is_up(server))
        yield server
    finally:
        os.killpg(process.pid, 15)
        process.wait(60)


def _is_up(server: Served) -> bool:
    try:
        return server.ask("/ping").status == 200
    except OSError:
        return False


@pytest.mark.slow
def test_mlflow_s_own_server_answers_as_batch_does(scored, tmp_path) -> None:
    with mlflow_serving(f"models:/{MODEL}@{CHAMPION}", tmp_path / "log") as server:
        for form in ("dataframe_split", "dataframe_records"):
            assert_equal(of_files(scored, FORMS[form](server, scored.files)), scored, 1e-12)


def documented(heading: str) -> list[str]:
    """Return the programs that the document has below a heading."""
    (part,) = re.findall(rf"^## {heading}$(.*?)(?=^## |\Z)", DOCUMENT.read_text(), re.DOTALL | re.MULTILINE)
    return re.findall(r"```python\n(.*?)```", part, re.DOTALL)


@pytest.mark.slow
@pytest.mark.spark
@pytest.mark.parametrize("place", [0, 1], ids=["spark_udf", "photo_udf in SQL"])
def test_the_documented_functions_of_spark_answer_as_batch_does(scored, spark_engine, monkeypatch, place) -> None:
    monkeypatch.setenv("DLASSETS_ROOT", scored.settings.root)
    here = {"spark": spark_engine.session, "root": scored.settings.root}
    exec(compile(documented("Spark and SQL")[place], str(DOCUMENT), "exec"), here)

    rows = {Path(row["path"]).stem: row.asDict(recursive=True) for row in here["answers"].collect()}

    assert {row.pop("error") for row in rows.values()} == {None}
    assert_equal(of_files(scored, [rows[str(number)] for number in range(8)]), scored, 1e-12)


@pytest.mark.slow
@pytest.mark.spark
def test_in_sql_a_photo_that_does_not_decode_costs_its_own_answer(scored, spark_engine) -> None:
    classify = photo_udf(scored.model, scored.package, Session(scored.settings).lake)
    rows = [(0, scored.files[0]), (1, b"no photo"), (2, None)]
    photos = spark_engine.session.createDataFrame(rows, "number int, content binary")

    good, *bad = sorted(photos.select("number", classify("content").alias("answer")).collect())

    assert good["answer"]["name"] == scored.answers[image_id_of(scored.files[0])]["name"]
    assert good["answer"]["error"] is None
    assert [row["answer"]["label"] for row in bad] == [None, None]
    assert all("do not decode as a picture" in row["answer"]["error"] for row in bad)


ANSWER = """
import os, sys
from pathlib import Path
import pandas as pd
from dlassets.pipeline.session import Session
from dlassets.scoring.udf import answers_of
from dlassets.settings import load_settings
session = Session(load_settings())
model = session.champion()
content = pd.Series([Path(os.environ["PHOTO"]).read_bytes()])
answers = answers_of(content, model, session.package(model), 5)
print(answers["name"][0], "torch" in sys.modules)
"""


@pytest.mark.slow
def test_where_photo_udf_answers_torch_is_not_imported(scored, tmp_path) -> None:
    (tmp_path / "photo.jpg").write_bytes(scored.files[0])

    said = python(ANSWER, DLASSETS_ROOT=scored.settings.root, PHOTO=str(tmp_path / "photo.jpg"))

    assert said.splitlines()[-1] == f"{scored.answers[image_id_of(scored.files[0])]['name']} False"


def edge_photos(scored: Scored) -> EdgePhotos:
    """The eight photos, for every purpose."""
    labels = [LABELS[place // 2] for place in range(8)]
    rows = examples(labels, np.empty((8, 0)), [image_id_of(file) for file in scored.files])
    seen = Seen(rows, np.stack([as_seen(file, REF.view) for file in scored.files]), scored.files)
    return EdgePhotos(seen, seen, seen)


@pytest.mark.slow
def test_a_device_answers_as_batch_does_in_either_precision(scored, tmp_path) -> None:
    from dlassets.registry.edge.make import make_bundle
    from dlassets.registry.edge.run_edge import Bundle

    make_bundle(tmp_path, scored.model, scored.package, edge_photos(scored), {})

    for precision, tolerance in (("f32", FLOATS), ("int8", BYTES)):
        bundle = Bundle(tmp_path, precision)
        answers = [bundle.answer(file) for file in scored.files]
        assert {answer.pop("model")["package"] for answer in answers} == {scored.model.package}
        assert_equal(of_files(scored, answers), scored, tolerance)
