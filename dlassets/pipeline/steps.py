"""The pipeline: one step for each table or model, in the order of the loop.

Whoever runs them (Dagster's assets, the stream, `reproduce`, AutoML) runs these. Packages that are slow to import are
imported inside the steps, since Dagster reads their declarations each time a code location loads.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dlassets.engines.base import Written
from dlassets.engines.schema import Table
from dlassets.errors import DlassetsError, some_of
from dlassets.lakehouse.tables import (
    CLASSES,
    DELETED_FILES,
    EVALUATED_ROWS,
    HUMAN_LABELS,
    IMAGE_FEATURES,
    IMAGE_PROFILES,
    LABEL_ERRORS,
    LABEL_REQUESTS,
    LABELED_IMAGES,
    LISTED_LABELS,
    PREDICTIONS,
    PREDICTIONS_CURRENT,
    QUARANTINED_FILES,
    RAW_IMAGES,
    SERVED_REQUESTS,
    TRAINING_SET,
)
from dlassets.masking import masked
from dlassets.pipeline.report import Report
from dlassets.pipeline.session import Session
from dlassets.pipeline.step import Made, Reads, Step, commit_of, step
from dlassets.registry.models import (
    EDGE_MODEL,
    REGISTERED_VERSION,
    TRAINED_MODEL,
    TUNED_HYPERPARAMETERS,
    VALIDATED_VERSION,
    ModelVersion,
)
from dlassets.storage.lake import local_path
from dlassets.storage.stores import is_object_storage

if TYPE_CHECKING:
    from mlflow.entities import Run
    from optuna.trial import FrozenTrial

    from dlassets.engines.base import Snapshot
    from dlassets.lakehouse.derived import Derivation
    from dlassets.lakehouse.provenance import Provenance
    from dlassets.lakehouse.training_set import Choice
    from dlassets.learning.examples import Splits
    from dlassets.learning.training.job import Event, Job, OnEvent, Trained
    from dlassets.registry.tracking import TrainingInputs
    from dlassets.registry.validation.validate import Grounds
    from dlassets.scoring.batch import Scorer

# Of warnings that are alike.
MOST_SAID = 5

# ---- ingest


@step(RAW_IMAGES, QUARANTINED_FILES, DELETED_FILES, LISTED_LABELS)
def ingested_files(session: Session, read: Reads, report: Report) -> Made:
    """Take every new or changed file of every landing zone in, once, lists of labels too, and note what has gone."""
    from dlassets.intake.handover import ZONE_TAG
    from dlassets.intake.ingest import ingest

    provenance = read.provenance()
    progress = report.progress("files read")
    zone = session.tags.get(ZONE_TAG)
    done = ingest(session.engine, session.lake, session.settings, provenance.as_dict(), progress, listed_zone=zone)
    if done.bad_events:
        report.warning(
            f"{done.bad_events} lines of event files could not be read, so every file was listed instead. The first: "
            f"{done.first_bad}"
        )
    for problem in done.bad_lists[:MOST_SAID]:
        report.warning(f"{problem}. What it said before stands.")
    written = {
        RAW_IMAGES.name: Written(0, done.images, done.replaced, changed=done.images + done.replaced > 0),
        QUARANTINED_FILES.name: Written(0, done.quarantined, changed=done.quarantined > 0),
        DELETED_FILES.name: Written(0, done.deleted, done.returned, changed=done.deleted + done.returned > 0),
        LISTED_LABELS.name: Written(0, done.listed, changed=done.lists > 0),
    }
    return Made(provenance, written, {"ingested": done})


@step(CLASSES, reads=[RAW_IMAGES, DELETED_FILES, LISTED_LABELS])
def classes(session: Session, read: Reads, report: Report) -> Made:
    """Give each class that folders say its number and its name, once; say which folders contradict those."""
    from dlassets.lakehouse.classes import update_classes
    from dlassets.lakehouse.snapshots import replanned

    settings, tables = session.settings, read.named(RAW_IMAGES, DELETED_FILES, LISTED_LABELS)
    provenance = read.provenance(ignore_case=settings.labels.ignore_case)

    def update() -> tuple[Written, list[str]]:
        now = {**tables, CLASSES.name: read.own(CLASSES)}
        return update_classes(session.engine, now, settings, commit_of(provenance))

    written, problems = replanned(update)
    for problem in problems[:MOST_SAID]:
        report.warning(f"Photos of this folder have no label. {problem}. Rename the folder.")
    return Made(provenance, {CLASSES.name: written}, {"problems": problems})


# The gallery, which Dagster shows beside it, is by class, and of what was refused as well.
@step(IMAGE_PROFILES, reads=[RAW_IMAGES, DELETED_FILES, QUARANTINED_FILES, LISTED_LABELS, CLASSES])
def image_profiles(session: Session, read: Reads, report: Report) -> Made:
    """Look at every new image: its size, brightness, sharpness, a thumbnail."""
    from dlassets.lakehouse.derived import Derivation
    from dlassets.lakehouse.profiles import profile_images

    return _derived(session, read, Derivation(IMAGE_PROFILES, profile_images), report, "images profiled")


@step(LABELED_IMAGES, reads=[RAW_IMAGES, DELETED_FILES, LISTED_LABELS, CLASSES, HUMAN_LABELS, IMAGE_PROFILES])
def labeled_images(session: Session, read: Reads, report: Report) -> Made:  # noqa: ARG001 - as every step
    """Bring the label in force of each image up to what folders and people say."""
    from dlassets.lakehouse.labels import update_labels

    settings = session.settings
    tables = read.named(RAW_IMAGES, DELETED_FILES, LISTED_LABELS, CLASSES, HUMAN_LABELS, IMAGE_PROFILES)
    provenance = read.provenance(**settings.split.model_dump())
    tables[LABELED_IMAGES.name] = read.own(LABELED_IMAGES)
    written = update_labels(session.engine, tables, settings, commit_of(provenance))
    return Made(provenance, {LABELED_IMAGES.name: written})


# ---- training


@step(IMAGE_FEATURES, reads=[RAW_IMAGES, DELETED_FILES, QUARANTINED_FILES])
def image_features(session: Session, read: Reads, report: Report) -> Made:
    """Embed every image that has no features of this version, or every labelled one where labels are read as well."""
    derivation, version = _features(session, read), session.feature_version
    return _derived(session, read, derivation, report, "images embedded", feature_version=version)


# What a search embeds beside the lake: all of a lake's photos may be a hundred times as many as have a label.
labelled_image_features = Step(image_features.work, image_features.makes, (*image_features.reads, LABELED_IMAGES))


@step(TRAINING_SET, reads=[LABELED_IMAGES, IMAGE_FEATURES, RAW_IMAGES, DELETED_FILES, QUARANTINED_FILES])
def training_set(session: Session, read: Reads, report: Report) -> Made:  # noqa: ARG001
    """Choose the exact rows that a model learns from and is tested on."""
    from dlassets.lakehouse.training_set import PIXELS, build_training_set

    made_of = session.feature_version if session.settings.training.trainable == "head" else PIXELS
    choice = chosen_rows(session, read, made_of)
    source = session.photos(read[RAW_IMAGES]) if made_of == PIXELS else read[IMAGE_FEATURES]
    provenance = read.provenance(feature_version=made_of, conflicts=session.settings.labels.conflicts)
    current = read.own(TRAINING_SET)
    written = build_training_set(session.engine, choice, source, current, provenance.as_dict())
    return Made(provenance, {TRAINING_SET.name: written}, {"feature_version": made_of})


@step(LABEL_ERRORS, reads=[LABELED_IMAGES, IMAGE_FEATURES])
def label_errors(session: Session, read: Reads, report: Report) -> Made:
    """Judge every label by models that did not learn from it."""
    from dlassets.labeling.label_errors import update_label_errors

    settings, version = session.settings, session.feature_version
    snapshots = read.named(LABELED_IMAGES, IMAGE_FEATURES)
    provenance = read.provenance(feature_version=version, conflicts=settings.labels.conflicts)
    snapshots[LABEL_ERRORS.name] = read.own(LABEL_ERRORS)
    progress = report.progress("folds judged")
    written, details = update_label_errors(session.engine, snapshots, version, settings, provenance.as_dict(), progress)
    if "left_out" in details:
        report.warning(details["left_out"])
    return Made(provenance, {LABEL_ERRORS.name: written}, details)


@step(TUNED_HYPERPARAMETERS, reads=[TRAINING_SET])
def tuned_hyperparameters(session: Session, read: Reads, report: Report) -> Made:
    """Try settings of training, and find those with the least validation loss."""
    from dlassets.engines.spark import SparkEngine
    from dlassets.learning.training.job import Job
    from dlassets.tuning.local_trials import LocalTrials
    from dlassets.tuning.question import Question
    from dlassets.tuning.spark_trials import SparkTrials
    from dlassets.tuning.study import run_study

    job = Job(_settled_training_set(read), session.backbone, session.settings.training)
    question = Question(job, session.feature_version, session.settings.tuning.space)
    engine, started = session.engine, time.monotonic()

    def on_trial(done: int, trials: int, best: FrozenTrial | None) -> None:
        so_far = "none has come to its end" if best is None else f"the least validation loss is {best.value:.4f}"
        report.info(f"{done} of {trials} trials done, {so_far}")

    runner = SparkTrials(engine.session) if isinstance(engine, SparkEngine) else LocalTrials()
    mlflow = session.mlflow
    best = run_study(question, session.settings.tuning, mlflow.client, mlflow.experiment, runner, on_trial)
    details = {"best": best, "job": job, "minutes": (time.monotonic() - started) / 60}
    return Made(read.provenance(question=question.sha256), details=details)


@step(TUNED_HYPERPARAMETERS, reads=[TRAINING_SET])
def known_hyperparameters(session: Session, read: Reads, report: Report) -> Made:  # noqa: ARG001
    """Leave it at the newest study there is, if there is any."""
    from dlassets.tuning.study import newest_study

    mlflow, trainable = session.mlflow, session.settings.training.trainable
    newest = newest_study(mlflow.client, mlflow.experiment, trainable, session.feature_version)
    return Made(read.provenance(), details={"newest": newest})


@step(TRAINED_MODEL, reads=[TRAINING_SET, TUNED_HYPERPARAMETERS, IMAGE_PROFILES, LABELED_IMAGES, RAW_IMAGES])
def trained_model(session: Session, read: Reads, report: Report) -> Made:
    """Train on the training set, unless a run has learned from these very inputs already."""
    inputs = training_inputs(session, read)
    run = session.mlflow.find_run(*inputs.digests)
    is_new = run is None
    if run is None:
        train(session, read, inputs, session.mlflow.run(), _tags_of_run(session), report)
        run = session.mlflow.run_of(*inputs.digests)
    return Made(read.provenance(inputs_sha256=inputs.sha256), details={"run": run, "inputs": inputs, "is_new": is_new})


# The mistakes that Dagster shows beside it are seen by their profiles.
@step(EVALUATED_ROWS, reads=[TRAINED_MODEL, IMAGE_PROFILES])
def evaluated_rows(session: Session, read: Reads, report: Report) -> Made:
    """Keep what the model of each training run said of every row of validation and test."""
    from dlassets.lakehouse.snapshots import replanned
    from dlassets.registry.evaluated import evaluated_runs, gather

    read.declared(TRAINED_MODEL)
    mlflow, provenance = session.mlflow, read.provenance()
    runs = evaluated_runs(mlflow, session.lake)
    gathered = replanned(
        lambda: gather(session.engine, read.own(EVALUATED_ROWS), runs, mlflow.client, provenance.as_dict())
    )
    for problem in gathered.problems[:MOST_SAID]:
        report.warning(problem)
    newest = runs[0].info.run_id if runs else None
    return Made(provenance, {EVALUATED_ROWS.name: gathered.written}, {"runs": gathered.runs, "newest": newest})


@step(REGISTERED_VERSION, reads=[TRAINED_MODEL, TUNED_HYPERPARAMETERS, TRAINING_SET])
def registered_version(session: Session, read: Reads, report: Report) -> Made:
    """Register the trained model as a version, which waits to be validated."""
    run = session.mlflow.run_of(*training_inputs(session, read).digests)
    _notice_outside_moves(session, report)
    model = _entered(session, read, run)
    return Made(read.provenance(model), details={"run": run, "model": model})


@step(
    VALIDATED_VERSION,
    reads=[REGISTERED_VERSION, TUNED_HYPERPARAMETERS, TRAINING_SET, RAW_IMAGES, IMAGE_PROFILES, LABELED_IMAGES],
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
    from dlassets.lakehouse.training_set import attributes_of
    from dlassets.registry.validation.validate import Grounds

    training_set, profiles, labels = _settled_training_set(read), read[IMAGE_PROFILES], read[LABELED_IMAGES]
    attributes = functools.partial(attributes_of, session.engine, training_set, profiles, labels)
    read_at = (training_set, profiles, labels, read[RAW_IMAGES])
    tables = {snapshot.name: snapshot.version for snapshot in read_at}
    return Grounds(training_set, session.embedder(read[RAW_IMAGES]), attributes, tables)


@step(EDGE_MODEL, reads=[VALIDATED_VERSION, TRAINING_SET, RAW_IMAGES])
def edge_model(session: Session, read: Reads, report: Report) -> Made:
    """Make a bundle of the champion, by which devices answer, unless it has one."""
    from dlassets import extras
    from dlassets.registry.edge.bundle import find_bundle, keep_bundle
    from dlassets.registry.edge.make import make_bundle
    from dlassets.registry.edge.photos import edge_photos

    extras.require(extras.EDGE, "A model for devices")
    model = read.champion or session.required_champion()
    training_set, raw_images = _settled_training_set(read), read[RAW_IMAGES]
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


# ---- scoring and labelling


# The photos that Dagster shows beside it are seen by their profiles.
@step(
    PREDICTIONS,
    reads=[
        RAW_IMAGES,
        DELETED_FILES,
        QUARANTINED_FILES,
        IMAGE_PROFILES,
        LABELED_IMAGES,
        IMAGE_FEATURES,
        VALIDATED_VERSION,
    ],
)
def predictions(session: Session, read: Reads, report: Report) -> Made:
    """Have the champion score every image, whether it has a label or not, and challengers where the setting says so."""
    champion, *others = _scorers(session, read, report)
    challengers = [str(model) for model in (*champion.challengers, *(scorer.model for scorer in others))]
    more: dict[str, Any] = {"scope": session.scope} if champion.scope.again else {}
    if challengers:
        more["challengers"] = challengers
    model = champion.model
    provenance, written = _score(session, read, champion, report, more)
    for scorer in others:
        try:
            written = written.and_then(_score(session, read, scorer, report, more)[1])
        except DlassetsError as error:
            report.warning(_not_heard(scorer.model, error))
    details = {"model": model.name, "model_version": model.version, **more}
    return Made(provenance, {PREDICTIONS.name: written}, details)


@step(SERVED_REQUESTS, reads=[LABELED_IMAGES])
def served_requests(session: Session, read: Reads, report: Report) -> Made:  # noqa: ARG001
    """Take in what servers on this machine have answered and written down since; a later label judges an answer."""
    from dlassets.scoring.served import merge_served

    provenance = read.provenance()
    return Made(
        provenance, {SERVED_REQUESTS.name: merge_served(session.engine, session.settings, provenance.as_dict())}
    )


def _scorers(session: Session, read: Reads, report: Report) -> list[Scorer]:
    """Return who scores: the champion, with challengers that read the same features; then each other challenger."""
    model = read.champion or session.required_champion()
    champion, beside, others = _scorer(session, read, model), {}, []
    for challenger in session.challengers():
        try:
            scorer = _scorer(session, read, challenger)
        except DlassetsError as error:
            report.warning(_not_heard(challenger, error))
            continue
        if scorer.package.feature_version == champion.package.feature_version:
            beside[challenger] = scorer.package
        else:
            others.append(scorer)
    return [replace(champion, challengers=beside), *others]


def _scorer(session: Session, read: Reads, model: ModelVersion) -> Scorer:
    from dlassets.scoring.batch import Scope, Scorer

    package = session.package(model)
    has_features = session.feature_version == package.feature_version
    embedder = None if has_features else session.embedder(read[RAW_IMAGES])
    return Scorer(model, package, session.settings.scoring, embedder, scope=Scope.parse(session.scope))


def _score(
    session: Session, read: Reads, scorer: Scorer, report: Report, parameters: Mapping[str, Any]
) -> tuple[Provenance, Written]:
    from dlassets.scoring.batch import score_new

    labels = session.settings.labels
    sees_photos = [DELETED_FILES, QUARANTINED_FILES] if scorer.embedder else []
    tables = read.named(RAW_IMAGES, LABELED_IMAGES, IMAGE_FEATURES, *sees_photos)
    provenance = read.provenance(
        scorer.model, conflicts=labels.conflicts, labeled=scorer.settings.labeled, **parameters
    )
    done, progress = read.own(PREDICTIONS), report.progress("images scored")
    written = score_new(session.engine, tables, done, scorer, labels, provenance.as_dict(), progress)
    _tell_of_failed(written, PREDICTIONS, report)
    return provenance, written


def _not_heard(challenger: ModelVersion, error: DlassetsError) -> str:
    return f"The challenger {challenger} scores nothing now: {error}"


@step(PREDICTIONS_CURRENT, reads=[PREDICTIONS, RAW_IMAGES, DELETED_FILES, VALIDATED_VERSION])
def predictions_current(session: Session, read: Reads, report: Report) -> Made:  # noqa: ARG001
    """Keep what the champion says now of every photo that is there."""
    from dlassets.lakehouse.snapshots import replanned
    from dlassets.scoring.current import update_current

    model, tables = read.champion or session.required_champion(), read.named(PREDICTIONS, RAW_IMAGES, DELETED_FILES)
    provenance = read.provenance(model)

    def update() -> Written:
        now = {**tables, PREDICTIONS_CURRENT.name: read.own(PREDICTIONS_CURRENT)}
        return update_current(session.engine, now, model, provenance.as_dict())

    details = {"model": model.name, "model_version": model.version}
    return Made(provenance, {PREDICTIONS_CURRENT.name: replanned(update)}, details)


@step(
    LABEL_REQUESTS,
    reads=[
        RAW_IMAGES,
        DELETED_FILES,
        QUARANTINED_FILES,
        CLASSES,
        PREDICTIONS,
        LABELED_IMAGES,
        HUMAN_LABELS,
        LABEL_ERRORS,
        VALIDATED_VERSION,
    ],
)
def label_requests(session: Session, read: Reads, report: Report) -> Made:
    """Close the requests that need no answer any more, and send people what the champion is unsure of."""
    from dlassets.labeling.closing import close_requests
    from dlassets.labeling.requests import send_requests
    from dlassets.labeling.standing import show_standing

    settings, model = session.settings, read.champion
    images = read.named(RAW_IMAGES, DELETED_FILES, QUARANTINED_FILES)
    snapshots = images | read.named(CLASSES, PREDICTIONS, LABELED_IMAGES, LABEL_ERRORS, HUMAN_LABELS)
    provenance = read.provenance(model, **settings.labeling.model_dump(), conflicts=settings.labels.conflicts)
    commit = commit_of(provenance)
    if model is None:
        report.warning("No version is champion, so nobody is asked about more images.")
    closed, withdrawn = close_requests(session.engine, session.lake, snapshots, model, settings, commit)
    sent, unasked = send_requests(session.engine, session.lake, session.labeling, snapshots, model, settings, commit)
    if unasked:
        report.info(
            f"{sent.inserted:,} of {sent.inserted + unasked:,} photos are asked about now, the least sure first: no "
            f"more than {settings.labeling.batch_limit:,} wait for people at once (labeling.batch_limit). The other "
            f"{unasked:,} are asked about when these are answered."
        )
    shown = {LABEL_REQUESTS.name: read.own(LABEL_REQUESTS), **read.named(HUMAN_LABELS, CLASSES)}
    _told(report, functools.partial(show_standing, session.engine, session.labeling, shown))
    details = {
        "requests_sent": sent.inserted,
        "requests_closed": closed.updated - withdrawn,
        "requests_withdrawn": withdrawn,
        "photos_left_to_ask": unasked,
    }
    return Made(provenance, {LABEL_REQUESTS.name: sent if sent.changed else closed}, details)


@step(HUMAN_LABELS, reads=[CLASSES], looks_back=[LABEL_REQUESTS])
def human_labels(session: Session, read: Reads, report: Report) -> Made:
    """Write down what people have answered since, accepted or refused with a reason."""
    from dlassets.labeling.answers import collect_answers
    from dlassets.lakehouse.classes import classes_of
    from dlassets.lakehouse.snapshots import replanned

    requests = read[LABEL_REQUESTS]
    classes = {label: each.names for label, each in classes_of(session.engine, read[CLASSES]).items()}
    provenance = read.provenance()
    commit = commit_of(provenance)
    written, refusals = replanned(
        lambda: collect_answers(session.engine, session.labeling, read.own(HUMAN_LABELS), requests, classes, commit)
    )
    _told(report, functools.partial(session.labeling.show_refusals, refusals))
    return Made(provenance, {HUMAN_LABELS.name: written}, {"answers_refused_now": len(refusals)})


def _told(report: Report, tell: Callable[[], None]) -> None:
    """Let people know; where that cannot be, what they answered counts all the same."""
    try:
        tell()
    except DlassetsError as error:
        report.warning(str(error))


STEPS = (
    ingested_files,
    classes,
    image_profiles,
    human_labels,
    labeled_images,
    image_features,
    training_set,
    label_errors,
    tuned_hyperparameters,
    trained_model,
    evaluated_rows,
    registered_version,
    validated_version,
    edge_model,
    predictions,
    predictions_current,
    served_requests,
    label_requests,
)


# ---- what images, and a training, take


def images_to_embed(session: Session, read: Reads) -> list[str]:
    """Return a path of every image that `image_features` would embed."""
    from dlassets.lakehouse.derived import images_without

    derivation = _features(session, read)
    paths = images_without(session.engine, read.own(IMAGE_FEATURES), derivation, _images(read))["path"].to_pylist()
    return [str(path) for path in paths]


def _features(session: Session, read: Reads) -> Derivation:
    from dlassets.lakehouse.content import USABLE
    from dlassets.lakehouse.derived import Derivation
    from dlassets.lakehouse.labels import usable_with_label

    return Derivation(
        IMAGE_FEATURES,
        session.embedder(read[RAW_IMAGES]).kernel(session.backbone),
        done_where=f"feature_version = '{session.feature_version}'",
        images=usable_with_label(session.settings.labels) if LABELED_IMAGES in read else USABLE,
    )


def _images(read: Reads) -> dict[str, Snapshot]:
    """Return the tables that images are chosen from."""
    tables = (RAW_IMAGES, DELETED_FILES, QUARANTINED_FILES, LABELED_IMAGES)
    return read.named(*(table for table in tables if table in read))


def _derived(
    session: Session, read: Reads, derivation: Derivation, report: Report, what: str, **parameters: Any
) -> Made:
    """Fill a table that a kernel makes of images; warn, by name, of those that it could not be made of."""
    from dlassets.lakehouse.derived import derive, images_without

    table, inputs, photos = derivation.table, _images(read), session.photos(read[RAW_IMAGES])
    provenance = read.provenance(**parameters)
    written = derive(photos, session.lake, derivation, inputs, provenance.as_dict(), report.progress(what))
    _tell_of_failed(written, table, report)
    if written.left_out:
        now = {**inputs, QUARANTINED_FILES.name: session.pin(QUARANTINED_FILES)}
        paths = images_without(session.engine, read.own(table), derivation, now)["path"].to_pylist()
        report.warning(
            f"{table.name} has no row of {written.left_out} photos, whose bytes are gone, damaged or cannot be read "
            f"now: {some_of(paths, MOST_SAID)}. All others are in. Replace these files, or delete them; `dlassets "
            "verify` tells which are damaged."
        )
    return Made(provenance, {table.name: written}, parameters)


def _tell_of_failed(written: Written, table: Table, report: Report) -> None:
    if written.failed:
        report.warning(
            f"{table.name} could not be made of {len(written.failed)} photos: {some_of(written.failed, MOST_SAID)}. "
            "They are quarantined, and all others are in. `dlassets quarantine list --reason failed` says why."
        )


def training_inputs(session: Session, read: Reads) -> TrainingInputs:
    """Return all that decides what a training on the handed training set learns: settings that tuning found, too."""
    from dlassets.registry.tracking import TrainingInputs
    from dlassets.tuning.study import winner

    training = session.settings.training
    if session.settings.tuning.use:
        read.declared(TUNED_HYPERPARAMETERS)
        mlflow = session.mlflow
        training = winner(mlflow.client, mlflow.experiment, training, session.feature_version) or training
    return TrainingInputs.of(session.lake, _settled_training_set(read), session.backbone, training)


def chosen_rows(session: Session, read: Reads, made_of: str) -> Choice:
    """Return the rows of a training set that is made of features of this version, or of pixels."""
    from dlassets.lakehouse.training_set import choose, chosen_from

    return choose(session.engine, read.named(*chosen_from(made_of)), made_of, session.settings.labels)


def train(
    session: Session,
    read: Reads,
    inputs: TrainingInputs,
    run: AbstractContextManager[Any],
    tags: Mapping[str, str],
    report: Report,
) -> str:
    """Train, and write everything down in `run`, which gives MLflow's interface to a new run; return that one's id.

    Where the settings say: in this process, in several, or on Spark. `read` gives the photos, profiles and labels that
    pictures and slices of the evaluation are made of.
    """
    from dlassets.lakehouse.training_set import attributes_of
    from dlassets.learning.training.launch import launch, place_of
    from dlassets.learning.training.pixels import note_unseen
    from dlassets.registry.tracking import train_and_log

    def fit(job: Job, on_event: OnEvent, splits: Splits) -> Trained:
        trained = launch(job, place_of(job.settings.compute, session.engine), on_event, splits=splits)
        if trained.left_out:
            commit = commit_of(read.provenance())
            note_unseen(embedder.photos, trained.left_out, job.backbone.view, TRAINED_MODEL.name, commit)
        return trained

    attributes = attributes_of(session.engine, inputs.job.training_set, read[IMAGE_PROFILES], read[LABELED_IMAGES])
    embedder = session.embedder(read[RAW_IMAGES])
    with run as mlflow:
        run_id = str(mlflow.active_run().info.run_id)
        with _events_to(report, session, f"{inputs.job.settings.trainable}-{run_id[:8]}") as on_event:
            for remark in train_and_log(mlflow, inputs, fit, embedder, attributes, tags, on_event):
                report.warning(remark)
        return run_id


@contextmanager
def _events_to(report: Report, session: Session, name: str) -> Iterator[OnEvent]:
    """Give what tells the report of each step and epoch, and TensorBoard, where it is there and the settings say so."""
    from dlassets.extras import TENSORBOARD, installed
    from dlassets.learning.training.curves import curves

    if not session.settings.mlflow.tensorboard or is_object_storage(session.lake.root) or not installed(TENSORBOARD):
        yield report.event
        return
    with curves(local_path(session.lake.tensorboard) / name) as write:

        def both(event: Event) -> None:
            write(event)
            report.event(event)

        yield both


def _settled_training_set(read: Reads) -> Snapshot:
    """Return the version that first had these rows: what care of the table made of it is nothing new to learn from."""
    from dlassets.lakehouse.snapshots import settled

    return settled(read[TRAINING_SET])


def _tags_of_run(session: Session) -> dict[str, str]:
    """Return who trains, and on which engine, in how many processes."""
    from dlassets.registry.lifecycle import TAG_ASSET

    settings = session.settings
    tags = {
        TAG_ASSET: TRAINED_MODEL.name,
        "dlassets.engine": settings.engine,
        "dlassets.processes": str(settings.training.compute.processes),
    }
    if settings.engine == "spark":
        tags["dlassets.spark"] = masked(settings.spark.remote or settings.spark.master)
    if session.run_id:
        link = f"{settings.ui.dagster}/runs/{session.run_id}"
        tags["mlflow.note.content"] = f"Materialized by Dagster run [{session.run_id}]({link})."
    return tags
