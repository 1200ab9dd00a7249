"""The steps from a trained model to a version that may be used: registered, validated, made ready for devices."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from dlassets.errors import DlassetsError
from dlassets.lakehouse.tables import CLASSES, IMAGE_PROFILES, LABELED_IMAGES, RAW_IMAGES, TRAINING_SET
from dlassets.pipeline.report import Report
from dlassets.pipeline.session import Session
from dlassets.pipeline.step import Made, Reads, step
from dlassets.pipeline.steps.training import settled_training_set, training_inputs
from dlassets.registry.models import (
    EDGE_MODEL,
    REGISTERED_VERSION,
    TRAINED_MODEL,
    TUNED_HYPERPARAMETERS,
    VALIDATED_VERSION,
    ModelVersion,
)

if TYPE_CHECKING:
    from mlflow.entities import Run

    from dlassets.registry.validation.validate import Grounds


@step(REGISTERED_VERSION, reads=[TRAINED_MODEL, TUNED_HYPERPARAMETERS, TRAINING_SET])
def registered_version(session: Session, read: Reads, report: Report) -> Made:
    """Register the trained model as a version, which waits to be validated."""
    digests = training_inputs(session, read).digests
    run = session.mlflow.run_of(*digests)
    _notice_outside_moves(session, report)
    model = _entered(session, read, run)
    run = session.mlflow.run_of(*digests)  # of another training on the same inputs, where that is registered
    return Made(read.provenance(model), details={"run": run, "model": model})


@step(
    VALIDATED_VERSION,
    reads=[
        REGISTERED_VERSION,
        TUNED_HYPERPARAMETERS,
        TRAINING_SET,
        RAW_IMAGES,
        IMAGE_PROFILES,
        LABELED_IMAGES,
        CLASSES,
    ],
)
def validated_version(session: Session, read: Reads, report: Report) -> Made:
    """Ask of the registered version whether it may be used, and have it be champion if so, or wait for a person."""
    from dlassets.registry.approval import settle
    from dlassets.registry.lifecycle import CHAMPION, identified
    from dlassets.registry.outages import explained_mlflow
    from dlassets.registry.validation.validate import validate

    read.declared(REGISTERED_VERSION)
    name = session.model_name
    with explained_mlflow(f"a version of {name} was validated"):
        client = session.mlflow.client
        _notice_outside_moves(session, report)
        version = _version_to_validate(session, read)
        validation, is_new = validate(session.registry, version, _grounds(session, read))
        decision = settle(session.registry, validation)
        if validation.passed and decision.state != CHAMPION:
            report.warning(decision.sentence)
        registered = client.get_model_version(name, str(version))
        run = client.get_run(registered.run_id)
    details = {"validation": validation, "is_new": is_new, "decision": decision, "run": run}
    return Made(read.provenance(identified(registered)), details=details)


def _notice_outside_moves(session: Session, report: Report) -> None:
    from dlassets.registry.aliases import notice_outside_moves

    for sentence in notice_outside_moves(session.registry):
        report.warning(sentence)


def _version_to_validate(session: Session, read: Reads) -> int:
    """Return the version that the run was asked for by VERSION_TAG, else that of the training set as it stands."""
    from dlassets.registry.lifecycle import registered_as
    from dlassets.registry.lineage import model_version
    from dlassets.registry.validation.validation import VERSION_TAG

    if (asked := session.tags.get(VERSION_TAG)) is not None:
        version = model_version(session.mlflow.client, session.model_name, asked, session.champion())
        return _taken_over(session, read, version)
    run = session.mlflow.run_of(*training_inputs(session, read).digests)
    return registered_as(session.mlflow.client, session.model_name, run)


def _entered(session: Session, read: Reads, run: Run) -> ModelVersion:
    """Return the version that a run's model is registered as, which the lake knows of from now on."""
    from dlassets.registry.entry import enter
    from dlassets.registry.lineage import record_registered

    model = enter(session.registry, run)
    # Before it can be champion: no model scores that the lake does not know.
    commit = read.provenance(model).as_dict()
    record_registered(session.engine, session.lake, session.mlflow.client, model.name, commit)
    return model


def _taken_over(session: Session, read: Reads, version: int) -> int:
    """Return a version that somebody may have registered by hand, and that the lake knows of from now on.

    Raises DlassetsError for one that is not of this lake, and for one whose model was a version before.
    """
    from dlassets.registry.lifecycle import run_or_none
    from dlassets.registry.lineage import learned_in

    client = session.mlflow.client
    run = run_or_none(client, client.get_model_version(session.model_name, str(version)).run_id)
    if run is None or not learned_in(run, session.lake):
        raise DlassetsError(
            f"Version {version} of {session.model_name} did not learn from the training set of this lake, so that it "
            "is not validated here."
        )
    if (first := _entered(session, read, run).version) != version:
        raise DlassetsError(f"Version {version} of {session.model_name} is the model of version {first} again.")
    return version


def _grounds(session: Session, read: Reads) -> Grounds:
    """Return what a version is validated on: the test rows of the training set as it stands now."""
    from dlassets.lakehouse.classes import merged_classes
    from dlassets.lakehouse.training_set import attributes_of
    from dlassets.registry.validation.validate import Grounds

    training_set, profiles, labels = settled_training_set(read), read[IMAGE_PROFILES], read[LABELED_IMAGES]
    merged = merged_classes(session.engine, read[CLASSES])
    attributes = functools.partial(attributes_of, session.engine, training_set, profiles, labels)
    read_at = (training_set, profiles, labels, read[RAW_IMAGES])
    tables = {snapshot.name: snapshot.version for snapshot in read_at}
    return Grounds(training_set, session.embedder(read[RAW_IMAGES]), attributes, tables, merged)


@step(EDGE_MODEL, reads=[VALIDATED_VERSION, TRAINING_SET, RAW_IMAGES])
def edge_model(session: Session, read: Reads, report: Report) -> Made:
    """Make a bundle of the champion, by which devices answer, unless it has one."""
    from dlassets import extras
    from dlassets.registry.edge.bundle import find_bundle, keep_bundle
    from dlassets.registry.edge.make import make_bundle
    from dlassets.registry.edge.photos import edge_photos

    extras.require(extras.EDGE, "A model for devices")
    model = read.champion or session.required_champion()
    training_set, raw_images = settled_training_set(read), read[RAW_IMAGES]
    provenance, location = read.provenance(model), session.lake.edge(model.name, model.version)
    bundle = there = find_bundle(location, model)
    if bundle is None:
        package, runtime = session.package(model), session.settings.features.runtime
        photos = edge_photos(training_set, session.photos(raw_images), package.backbone.view)
        tables = {snapshot.name: snapshot.version for snapshot in (training_set, raw_images)}
        make = functools.partial(
            make_bundle, model=model, package=package, photos=photos, tables=tables, runtime=runtime
        )
        bundle = keep_bundle(location, model, make, session.mlflow.client)
    for check in bundle.checks:
        if not check.passed:
            report.warning(f"The bundle of {model}: {check.sentence}")
    return Made(provenance, details={"bundle": bundle, "model": model, "is_new": there is None})
