"""A version is validated: asked everything once, kept with its run in MLflow, and not asked the same again."""

from __future__ import annotations

import functools
import hashlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from dlassets.engines.base import Snapshot
from dlassets.errors import DlassetsError
from dlassets.images.decode import ImageError, Pixels, as_seen
from dlassets.lakehouse.classes import Class
from dlassets.lakehouse.tables import TEST
from dlassets.learning.backbones import BackboneRef, Runtime, feature_version
from dlassets.learning.embedding import load_backbone
from dlassets.learning.evaluation.evaluate import Evaluation, evaluate
from dlassets.learning.examples import Examples, read_split
from dlassets.learning.features import Embedder, examples_for
from dlassets.registry.events import VALIDATED
from dlassets.registry.gate import Gate, Verdict
from dlassets.registry.lifecycle import PACKAGE, identified, run_or_none, version_files
from dlassets.registry.model_registry import ModelRegistry, load_version
from dlassets.registry.models import ModelVersion
from dlassets.registry.package import ModelPackage
from dlassets.registry.tracking import artifact_of
from dlassets.registry.validation import checks
from dlassets.registry.validation.clean_process import Limits, ask
from dlassets.registry.validation.regressions import comparisons
from dlassets.registry.validation.report import draw, figures, markdown
from dlassets.registry.validation.robustness import Robustness, robustness
from dlassets.registry.validation.validation import (
    DOCUMENT,
    GATE,
    REPORT,
    TAG_VALIDATION,
    Check,
    Question,
    Validation,
    folder_of,
)
from dlassets.settings import Settings

if TYPE_CHECKING:
    import pyarrow as pa
    from mlflow import MlflowClient


# Of a picture that stands for one there is not.
_GREY = 128


@dataclass(frozen=True)
class Grounds:
    """What a version is validated on: the test rows of one version of `training_set`, and their photos.

    `attributes` gives what of the photos slices are made by, `tables` are the versions that all this is read at.
    `merged` is the class that one is by now which was merged into another: in the rows, and in what models say.
    """

    training_set: Snapshot
    embedder: Embedder
    attributes: Callable[[], pa.Table]
    tables: Mapping[str, int]
    merged: Mapping[int, Class] = field(default_factory=dict)

    _examples: dict[str, Examples] = field(default_factory=dict, init=False)

    @functools.cached_property
    def rows_sha256(self) -> str:
        rows = self._in_force(read_split(self.training_set, TEST, features=False))
        lines = (f"{image_id} {label}\n" for image_id, label in zip(rows.image_ids, rows.labels.tolist(), strict=True))
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def rows_for(self, backbone: BackboneRef) -> Examples:
        """Return the test rows with the features that a model on this backbone reads."""
        version = feature_version(backbone)
        if version not in self._examples:
            rows = examples_for(backbone, self.training_set, TEST, self.embedder)
            self._examples[version] = self._in_force(rows)
        return self._examples[version]

    def with_classes_in_force(self, package: ModelPackage) -> ModelPackage:
        """Return a model as it is to be judged: where it says a class that was merged, it says the other."""
        head = package.head
        if self.merged.keys().isdisjoint(head.labels):
            return package
        labels, names = self._classes_in_force(head.labels, head.names)
        return replace(package, head=replace(head, labels=tuple(labels), names=tuple(names)))

    def _in_force(self, rows: Examples) -> Examples:
        if self.merged.keys().isdisjoint(rows.labels.tolist()):
            return rows
        labels, names = self._classes_in_force(rows.labels.tolist(), rows.names)
        return replace(rows, labels=np.array(labels, np.int64), names=names)

    def _classes_in_force(self, labels: Sequence[int], names: Sequence[str]) -> tuple[list[int], list[str]]:
        new = [self.merged.get(label) for label in labels]
        return (
            [label if each is None else each.label for label, each in zip(labels, new, strict=True)],
            [name if each is None else each.name for name, each in zip(names, new, strict=True)],
        )


def validate(registry: ModelRegistry, version: int, grounds: Grounds) -> tuple[Validation, bool]:
    """Return the validation of a registered version, and whether it is new; kept are it, its report and its pictures.

    One that answers the same question is not made again; nor is that of a version which became champion by it. Raises
    DlassetsError where the version or the champion cannot be loaded, or where there are no test rows.
    """
    client, name, settings = registry.client, registry.name, registry.settings
    registered = client.get_model_version(name, str(version))
    run = run_or_none(client, registered.run_id)
    if run is None or run.info.lifecycle_stage == "deleted":
        raise DlassetsError(
            f"Version {version} of {name} has no run in MLflow, so its validation has nowhere to be kept. Train again; "
            "dlassets registers what its own runs have made."
        )
    history = registry.history()
    model = history.known(identified(registered))
    question = _question(model, history.champion, grounds, settings)
    written = history.last(model, VALIDATED)
    if written is not None and (known := _stored(client, run.info.run_id, question, written.validation)) is not None:
        if registered.tags.get(TAG_VALIDATION) != known.sha256:  # it was taken off, or changed, by hand
            client.set_model_version_tag(name, str(version), TAG_VALIDATION, known.sha256)
        return known, False
    validation, pictures = _answered(registry, question, grounds)
    _keep(client, run.info.run_id, validation, pictures)
    return validation, True


def _stored(client: MlflowClient, run_id: str, question: Question, sha256: str | None) -> Validation | None:
    """Return the validation that a run keeps, where it is the one that `model_events` names and of this question."""
    path = f"{folder_of(question.model_name, question.version)}/{DOCUMENT}"
    if not any(file.path == path for file in client.list_artifacts(run_id, str(PurePosixPath(path).parent))):
        return None
    content = artifact_of(client, run_id, path)
    if hashlib.sha256(content).hexdigest() != sha256:
        return None
    known = Validation.from_json(content.decode())
    before = known.question
    if question.champion_version == question.version and known.passed:
        # It has taken the place of the champion that it was held against.
        question = replace(question, champion_version=before.champion_version, champion_package=before.champion_package)
    return known if before == question else None


def _question(model: ModelVersion, champion: ModelVersion | None, grounds: Grounds, settings: Settings) -> Question:
    registry = settings.registry
    asked = {
        "gate_confidence": registry.gate_confidence,
        "tolerance": registry.tolerance,
        **settings.validation.model_dump(mode="json"),
    }
    if grounds.merged:
        asked["merged_classes"] = {str(label): each.label for label, each in sorted(grounds.merged.items())}
    return Question(
        model_name=model.name,
        version=model.version,
        package=model.package,
        champion_version=None if champion is None else champion.version,
        champion_package=None if champion is None else champion.package,
        rows_sha256=grounds.rows_sha256,
        settings=asked,
    )


@dataclass(frozen=True)
class _Judged:
    """A registered version, and how it does on the test rows."""

    version: int
    package: ModelPackage
    evaluation: Evaluation


def _judged(registry: ModelRegistry, version: int, grounds: Grounds) -> _Judged:
    package = load_version(registry, version)
    judged = grounds.with_classes_in_force(package)
    return _Judged(version, package, evaluate(judged.head, grounds.rows_for(package.backbone)))


def _champion(registry: ModelRegistry, question: Question, grounds: Grounds) -> _Judged | None:
    if question.champion_version is None:
        return None
    try:
        return _judged(registry, question.champion_version, grounds)
    except DlassetsError as error:
        raise DlassetsError(
            f"Version {question.version} cannot be compared with the champion, version {question.champion_version}, so "
            f"it is not promoted. {error} Then materialize validated_version again."
        ) from error


def _answered(registry: ModelRegistry, question: Question, grounds: Grounds) -> tuple[Validation, dict[str, bytes]]:
    """Ask everything, and return the validation with its pictures by the names of their files."""
    client, settings = registry.client, registry.settings
    limits, runtime = settings.validation, grounds.embedder.runtime
    judged = _judged(registry, question.version, grounds)
    champion = _champion(registry, question, grounds)
    gate = Gate(settings.registry.gate_confidence, settings.registry.tolerance)
    theirs = None if champion is None else champion.evaluation
    verdict = Verdict(judged.evaluation, theirs, question.champion_version, gate)
    with version_files(client, question.model_name, question.version) as files:
        described, pixels = _described(files, judged.package, runtime)
        answer = ask(files / PACKAGE, pixels, runtime, Limits(limits.load_seconds, limits.memory_gigabytes))
        megabytes = _megabytes(files / PACKAGE)
    compared = comparisons(verdict, grounds.attributes())
    robust = _robustness(judged, champion, grounds, limits.sample)
    found = (
        checks.loads(answer, limits.load_seconds),
        checks.example(described, answer),
        checks.gate(verdict),
        checks.accurate(verdict.challenger, limits),
        checks.slices(compared, question.champion_version, limits),
        checks.calibrated(verdict, limits),
        checks.agrees(verdict, limits),
        checks.robust(robust, question.champion_version, limits),
        checks.fast(answer, limits),
        checks.small(megabytes, limits),
    )
    blocking = tuple(replace(check, blocks=check.name in limits.blocking) for check in found)
    explanation = _explanation(verdict, blocking)
    validation = Validation(question, dict(grounds.tables), blocking, explanation, figures(compared, robust))
    return validation, draw(verdict, compared, robust, question.version)


def _described(files: Path, package: ModelPackage, runtime: Runtime) -> tuple[checks.Described, Pixels]:
    """Return what a version says of itself, and what a network sees of its example: grey, where there is none."""
    from mlflow.exceptions import MlflowException
    from mlflow.models import Model

    view = package.backbone.view
    nothing = np.full((view.side, view.side, 3), _GREY, np.uint8)
    try:
        model = Model.load(str(files))
        signature, example = model.signature, model.load_input_example(str(files))
    except (MlflowException, OSError, ValueError) as error:
        return checks.Described(None, f"what it says of itself cannot be read: {error}"), nothing
    if example is None:
        return checks.Described(signature, "it has no input example"), nothing
    try:
        pixels = as_seen(example["content"][0], view)
    except (ImageError, KeyError, TypeError, IndexError) as error:
        return checks.Described(signature, f"its input example is no photo: {error}"), nothing
    (answer,) = package.head.probabilities(load_backbone(package.backbone, runtime).embed(pixels[None]))
    label = package.head.labels[int(answer.argmax())]
    return checks.Described(signature, label=label, confidence=float(answer.max())), pixels


def _robustness(judged: _Judged, champion: _Judged | None, grounds: Grounds, sample: int) -> Robustness:
    """Ask about the first rows, which are some of all classes: they are in the order of their ids, which are hashes."""
    packages = [grounds.with_classes_in_force(judged.package)]
    # Another backbone would have to be asked anew.
    if champion is not None and champion.package.feature_version == judged.package.feature_version:
        packages.append(grounds.with_classes_in_force(champion.package))
    rows = grounds.rows_for(judged.package.backbone)
    few = rows.taken(np.arange(len(rows)) < sample)
    return robustness(packages, few, grounds.embedder.photos, grounds.embedder.runtime) if len(few) else Robustness()


def _megabytes(folder: Path) -> float:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6


def _explanation(verdict: Verdict, asked: Sequence[Check]) -> str:
    failed = [check for check in asked if check.blocks and not check.passed]
    if not failed:
        return f"{verdict.finding}, passed"
    others = [check.sentence for check in failed if check.name != GATE]
    return f"{verdict.finding}, refused" + (f": {'; '.join(others)}" if others else "")


def _keep(client: MlflowClient, run_id: str, validation: Validation, pictures: Mapping[str, bytes]) -> None:
    """Log it with the version's run: what names it comes last, so that one which was cut short is made again."""
    with tempfile.TemporaryDirectory() as folder:
        for name, content in pictures.items():
            (Path(folder) / name).write_bytes(content)
        (Path(folder) / REPORT).write_text(markdown(validation, sorted(pictures)))
        client.log_artifacts(run_id, folder, validation.folder)
        document = Path(folder) / DOCUMENT
        document.write_text(validation.json)
        client.log_artifact(run_id, str(document), validation.folder)
    version = str(validation.version)
    client.set_model_version_tag(validation.question.model_name, version, TAG_VALIDATION, validation.sha256)
