"""Versions in a real registry are validated on real photos: once, and kept with their run, whatever happens."""

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dlassets.engines.local import LocalEngine
from dlassets.errors import DlassetsError
from dlassets.lakehouse.photos import Photos
from dlassets.lakehouse.snapshots import pin
from dlassets.lakehouse.tables import RAW_IMAGES, TRAINING_SET
from dlassets.learning.backbones import BackboneRef, feature_version
from dlassets.learning.embedding import load_backbone
from dlassets.learning.features import Embedder
from dlassets.learning.head import Head
from dlassets.registry.approval import settle
from dlassets.registry.entry import enter
from dlassets.registry.lifecycle import TAG_PACKAGE, version_of
from dlassets.registry.model_log import signature
from dlassets.registry.model_registry import ModelRegistry
from dlassets.registry.outages import explained_mlflow
from dlassets.registry.package import ModelPackage
from dlassets.registry.validation.checks import Described
from dlassets.registry.validation.clean_process import Answer
from dlassets.registry.validation.robustness import robustness
from dlassets.registry.validation.validate import Grounds, validate
from dlassets.registry.validation.validation import (
    CHECKS,
    EXAMPLE,
    GATE,
    LOADS,
    SLICES,
    TAG_VALIDATION,
    Validation,
)
from dlassets.settings import Settings, ValidationSettings
from dlassets.storage.lake import Lake
from dlassets_tests.killing import killed_at
from dlassets_tests.learning.examples import examples, head
from dlassets_tests.registry.conftest import MODEL, Registry
from dlassets_tests.tables import put

BACKBONE = BackboneRef("efficientnet_lite0")
CLASSES = (1, 2, 3, 4)
FILES = {"validation.json", "report.md", "reliability.png", "robustness.png"}
# Of a clean process and of its speed: all else is the same each time.
TIMED = {"loads_in_a_clean_process", "fast"}


@dataclasses.dataclass
class Bench:
    """A registry, and a lake with 24 test photos of four classes."""

    registry: Registry
    settings: Settings
    grounds: Grounds
    photo: bytes

    def version(self, head: Head, **changes: Any) -> int:
        """Register a model with this head, whose example is a photo."""
        import mlflow

        from dlassets.registry.model_log import log_model

        client = self.registry.client
        package = ModelPackage(head, BACKBONE, feature_version(BACKBONE))
        experiment = client.get_experiment_by_name(self.registry.resource.experiment)
        with mlflow.start_run(experiment_id=experiment.experiment_id) as run:
            log_model(mlflow, package, **({"example": self.photo} | changes))
        return enter(self.given(), client.get_run(run.info.run_id)).version

    def validate(self, version: int, **settings: Any) -> tuple[Validation, bool]:
        return validate(self.given(**settings), version, self.grounds)

    def given(self, **settings: Any) -> ModelRegistry:
        """Return the model with these settings of `validation`."""
        validation = ValidationSettings(**({"sample": 0} | settings))
        changed = self.settings.model_copy(update={"validation": validation})
        return ModelRegistry(changed, LocalEngine(), self.registry.resource, "ann")

    def promoted(self, head: Head) -> int:
        """Register a model, validate it, and have it be champion."""
        version = self.version(head)
        settle(self.given(), self.validate(version)[0])
        return version

    def files(self, version: int) -> dict[str, bytes]:
        """What is kept with the version, by name."""
        (folder,) = Path(self.settings.root, "mlflow").rglob(f"validation/{MODEL}-{version}")
        return {file.name: file.read_bytes() for file in folder.iterdir()}

    def tags(self, version: int) -> Any:
        return self.registry.client.get_model_version(MODEL, str(version)).tags

    def packages(self) -> list[Path]:
        return sorted(Path(self.settings.root, "mlflow").rglob("artifacts/package"), key=lambda p: p.stat().st_mtime_ns)


@pytest.fixture(scope="module")
def tested(photos: Path, tmp_path_factory) -> tuple[Lake, np.ndarray, bytes]:
    """A lake with raw_images and training_set, the features of its test rows, and the bytes of its first photo."""
    lake = Lake.at(str(tmp_path_factory.mktemp("lake")))
    chosen = [
        (label, photo.read_bytes(), photo.name)
        for label, folder in zip(CLASSES, sorted(photos.iterdir()), strict=True)
        for photo in sorted(folder.iterdir())[:6]
    ]
    features = load_backbone(BACKBONE).embed_bytes([content for _, content, _ in chosen])
    common = {"split": "test", "feature_version": feature_version(BACKBONE)}
    images, rows = [], []
    for (label, content, name), vector in zip(chosen, features, strict=True):
        photo = {"path": f"labeled/{label}/{name}", "image_id": hashlib.sha256(content).hexdigest()}
        images.append(photo | {"content": content, "length": len(content)})
        rows.append(photo | common | {"label": label, "label_name": f"class {label}", "features": vector.tolist()})
    put(lake, "raw_images", *images)
    put(lake, "training_set", *rows)
    return lake, features, chosen[0][1]


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures take half a second: for tests of something else."""
    monkeypatch.setattr("dlassets.registry.validation.validate.draw", lambda *_: {"reliability.png": b""})


@pytest.fixture
def quick(undrawn: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process takes a second, to load a package: for tests of something else."""
    answer = Answer(None, 1, 0.5, 1.0, load_seconds=0.5, one_ms=20.0, together_ms=3.0, peak_mb=200.0)
    described = Described(signature(), label=1, confidence=0.5)
    monkeypatch.setattr("dlassets.registry.validation.validate.ask", lambda *_: answer)
    monkeypatch.setattr("dlassets.registry.validation.validate._described", lambda *_: (described, None))


@pytest.fixture
def bench(registry: Registry, settings: Settings, tested) -> Bench:
    lake, _, photo = tested
    return Bench(registry, settings, grounds(lake), photo)


def grounds(lake: Lake) -> Grounds:
    photos = Photos(LocalEngine(), lake, pin(lake, RAW_IMAGES.name))
    return Grounds(pin(lake, TRAINING_SET.name), Embedder(photos), lambda: None, {"training_set": 1, "raw_images": 1})


@pytest.fixture(scope="module")
def knows(tested) -> Callable[..., Head]:
    """A head that is right on every test photo of its classes; with a sign of -1, on hardly any."""
    _, features, _ = tested
    mean = features.mean(axis=0)
    centres = np.stack([features[6 * place : 6 * place + 6].mean(axis=0) - mean for place in range(4)])

    def made(sign: int = 1, scale: float = 1 / 8) -> Head:
        return head(CLASSES, sign * centres * scale, mean=mean)

    return made


def test_a_first_version_is_asked_everything_and_its_validation_is_kept_with_it(bench, knows) -> None:
    version = bench.version(knows())

    validation, is_new = bench.validate(version, sample=8)

    assert is_new
    assert [check.name for check in validation.checks] == list(CHECKS)
    assert {check.name for check in validation.checks if check.blocks} == {LOADS, EXAMPLE, GATE}
    assert (validation.version, validation.champion_version, validation.passed) == (1, None, True)
    assert validation.explanation == "right on 24 of 24 test photos: no champion to be worse than, passed"
    assert validation.check("robust").value is not None
    assert validation.details["robustness"]["photos"] == 8
    question = validation.question
    assert question.package == bench.tags(1)[TAG_PACKAGE]
    assert question.settings["gate_confidence"] == 0.95
    assert validation.tables == {"training_set": 1, "raw_images": 1}
    files = bench.files(1)
    assert files.keys() == FILES
    assert bench.tags(1)[TAG_VALIDATION] == validation.sha256 == hashlib.sha256(files["validation.json"]).hexdigest()
    assert Validation.from_json(files["validation.json"].decode()) == validation
    report = files["report.md"].decode()
    assert report.startswith(
        "# Validation of image_classifier version 1\n\n**Passed**: right on 24 of 24 test photos: no champion"
    )
    assert all(f"![{name}]({name})" in report for name in FILES if name.endswith(".png"))
    assert all(files[name].startswith(b"\x89PNG") for name in FILES if name.endswith(".png"))


@pytest.mark.usefixtures("quick")
def test_the_same_question_is_answered_once_and_another_anew(bench, knows, tested) -> None:
    version, client = bench.version(knows()), bench.registry.client
    first, _ = bench.validate(version)
    settle(bench.given(), first)
    before = bench.files(version)

    assert version_of(client, MODEL) == version
    assert bench.validate(version) == (first, False), "it was held against none, and is champion now"
    client.set_model_version_tag(MODEL, str(version), TAG_VALIDATION, "by hand")
    assert bench.validate(version) == (first, False)
    assert bench.tags(version)[TAG_VALIDATION] == first.sha256
    assert bench.files(version) == before
    again, is_new = bench.validate(version, agreement=0.4)
    assert (is_new, again.champion_version) == (True, version), "the settings are others"
    assert bench.validate(version)[1], "what is kept is not what model_events names"
    settle(bench.given(), bench.validate(version)[0])
    fewer = dataclasses.replace(bench.grounds)
    fewer.__dict__["rows_sha256"] = "of other rows"
    assert validate(bench.given(), version, fewer)[1]


@pytest.mark.usefixtures("quick")
def test_a_validation_that_somebody_put_there_by_hand_is_not_believed(bench, knows) -> None:
    bench.promoted(knows())
    version, client = bench.version(knows(-1)), bench.registry.client
    refused, _ = bench.validate(version)
    settle(bench.given(), refused)
    forged = dataclasses.replace(refused, checks=())
    run_id = client.get_model_version(MODEL, str(version)).run_id
    client.log_text(run_id, forged.json, f"{forged.folder}/validation.json")
    client.set_model_version_tag(MODEL, str(version), TAG_VALIDATION, forged.sha256)
    assert forged.passed

    again, is_new = bench.validate(version)

    assert (again.passed, is_new) == (False, True)


@pytest.mark.usefixtures("quick")
def test_a_worse_version_is_refused_and_one_as_good_passes_and_the_same_inputs_give_the_same_numbers(
    bench, knows
) -> None:
    bench.promoted(knows())
    worse, equal = bench.version(knows(-1)), bench.version(knows(1, 1 / 7))

    refused, _ = bench.validate(worse)
    passed, _ = bench.validate(equal)

    assert not refused.passed
    assert refused.explanation.startswith("right on 0 of 24 test photos where version 1 is on 24 (0 gained, 24 lost)")
    assert refused.explanation.endswith("shown to be worse (p < 0.01), refused")
    assert [check.name for check in refused.checks if not check.passed] == [
        GATE,
        "calibrated",
        "agrees_with_champion",
    ]
    assert refused.check(SLICES).value == 0, "six photos of a class, and four classes, show nothing"
    assert (passed.passed, passed.champion_version) == (True, 1)
    assert passed.check("agrees_with_champion").value == 1
    report = bench.files(worse)["report.md"].decode()
    assert "**Refused**: right on 0 of 24 test photos where version 1 is on 24" in report
    assert "| **refused** | not worse than champion | 1 | at most 0.05 |" in report
    assert "| **warns** | calibrated |" in report
    again, _ = bench.validate(worse)  # nobody has written it down
    assert untimed(again) == untimed(refused)


def untimed(validation: Validation) -> Any:
    described = json.loads(validation.json)
    described["checks"] = [check for check in described["checks"] if check["name"] not in TIMED]
    return described


@pytest.mark.usefixtures("quick")
def test_what_blocks_is_a_setting_and_what_else_failed_is_said_beside_the_gate(bench, knows) -> None:
    version = bench.version(knows())
    strict = ["not_worse_than_champion", "small"]

    refused, _ = bench.validate(version, blocking=strict, megabytes=0.001)
    warned, _ = bench.validate(version, megabytes=0.001)

    assert not refused.passed
    assert refused.explanation.endswith("no champion to be worse than, refused: the package has 0.03 MB")
    assert warned.passed
    assert not warned.check("small").passed


@pytest.mark.usefixtures("undrawn")
def test_a_version_that_gives_no_answer_in_a_clean_process_in_time_is_refused(bench, knows) -> None:
    late, _ = bench.validate(bench.version(knows()), load_seconds=0.01)

    assert not late.passed
    assert late.check(LOADS).sentence == "it does not load in a clean process: it had given no answer after 0.01 s"
    assert late.explanation.endswith(
        "no champion to be worse than, refused: it does not load in a clean process: it had given no answer after "
        "0.01 s; it has not answered its example"
    )


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_a_version_without_memory_enough_or_whose_example_is_no_photo_is_refused(bench, knows) -> None:
    version, example, without = (bench.version(knows(), **more) for more in ({}, {"example": b"no"}, {"example": None}))

    small, _ = bench.validate(version, memory_gigabytes=0.2)
    no_photo, _ = bench.validate(example)
    none, _ = bench.validate(without)

    assert not any(each.passed for each in (small, no_photo, none))
    assert small.check(LOADS).sentence.startswith("it does not load in a clean process: ")
    assert no_photo.check(EXAMPLE).sentence.startswith("its input example is no photo: The bytes do not decode")
    assert none.check(EXAMPLE).sentence == "it has no input example"
    assert no_photo.check(LOADS).passed
    assert none.check(LOADS).passed


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("damage", ["gone", "changed"])
def test_a_champion_whose_files_are_gone_or_changed_is_said_and_nothing_is_promoted(bench, knows, damage) -> None:
    bench.promoted(knows())
    version = bench.version(knows(1, 1 / 7))
    package = bench.packages()[0]
    original = package.parent.parent.rename(bench.settings.root + "/kept")
    if damage == "changed":
        shutil.copytree(original, package.parent.parent)
        ModelPackage(knows(-1), BACKBONE, feature_version(BACKBONE)).save(package)

    with pytest.raises(DlassetsError) as raised:
        bench.validate(version)

    message = str(raised.value)
    assert message.startswith("Version 2 cannot be compared with the champion, version 1, so it is not promoted. ")
    assert ("cannot be read" if damage == "gone" else "is not the one that was registered") in message
    assert "Restore" in message
    assert version_of(bench.registry.client, MODEL) == 1
    assert TAG_VALIDATION not in bench.tags(2)
    shutil.rmtree(package.parent.parent, ignore_errors=True)
    original.rename(package.parent.parent)
    assert bench.validate(version)[0].passed, "what it says to do helps"


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("killed", ["log_artifact", "set_model_version_tag"])
def test_a_validation_that_was_killed_is_made_again_and_says_the_same(bench, knows, killed) -> None:
    version = bench.version(knows())
    client = bench.registry.client
    with killed_at(client, killed):
        bench.validate(version)
    assert TAG_VALIDATION not in bench.tags(version)

    validation, is_new = bench.validate(version)

    assert is_new
    assert validation.passed
    assert bench.files(version).keys() == FILES - {"robustness.png"}
    settle(bench.given(), validation)
    assert bench.validate(version) == (validation, False)


@pytest.mark.usefixtures("quick")
def test_mlflow_that_goes_away_is_one_error_and_the_next_run_completes(bench, knows, monkeypatch) -> None:
    from mlflow.exceptions import MlflowException

    version = bench.version(knows())

    def away(*_: Any) -> None:
        raise MlflowException("API request failed: Connection refused")

    with monkeypatch.context() as patch:
        patch.setattr(bench.registry.client, "log_artifacts", away)
        with (
            pytest.raises(
                DlassetsError, match=r"MLflow failed while a version .*Connection refused.*do the same again"
            ),
            explained_mlflow("a version was validated"),
        ):
            bench.validate(version)

    assert bench.validate(version)[1]


@pytest.mark.usefixtures("quick")
def test_a_version_without_test_rows_or_without_a_run_is_said(bench, knows, lake) -> None:
    version = bench.version(knows())
    nothing = grounds(lake)

    with pytest.raises(DlassetsError, match=r"There are no rows to evaluate a model on\. Put more photos into"):
        validate(bench.given(), version, nothing)
    assert TAG_VALIDATION not in bench.tags(version)
    client = bench.registry.client
    files = client.get_logged_model(client.get_model_version(MODEL, "1").source.rpartition("/")[2]).artifact_location
    by_hand = client.create_model_version(MODEL, files)
    client.delete_run(client.get_model_version(MODEL, "1").run_id)
    for number in (1, int(by_hand.version)):
        with pytest.raises(DlassetsError, match=f"Version {number} of {MODEL} has no run in MLflow"):
            bench.validate(number)


def test_photos_that_are_gone_or_others_or_do_not_decode_are_left_out_of_what_is_blurred(knows, tested, lake) -> None:
    _, _, photo = tested
    contents = {"whole": photo, "changed": photo + b"\0", "text": b"text"}
    ids = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    rows = examples([1] * 4, np.zeros((4, 1)), [ids["whole"], ids["whole"], ids["text"], "gone"])
    rows = dataclasses.replace(rows, paths=["whole", "changed", "text", "gone"])
    put(
        lake,
        "raw_images",
        *({"path": n, "image_id": ids[n], "content": c, "length": len(c)} for n, c in contents.items()),
    )
    package = ModelPackage(knows(), BACKBONE, feature_version(BACKBONE))
    photos = Photos(LocalEngine(), lake, pin(lake, "raw_images"))

    assert robustness([package], rows, photos, "auto").photos == 1
    assert robustness([package], rows.taken(np.arange(4) > 0), photos, "auto").photos == 0
