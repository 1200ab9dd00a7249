"""The steps that ask people, and take what they answer."""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from dlassets.engines.base import Commit, Snapshot, Written
from dlassets.errors import DlassetsError
from dlassets.lakehouse.tables import (
    ANNOTATORS,
    CLASSES,
    CONSENSUS,
    DELETED_FILES,
    EVALUATED_ROWS,
    HUMAN_LABELS,
    IMAGE_FEATURES,
    IMAGE_PROFILES,
    LABEL_ERRORS,
    LABEL_REQUESTS,
    LABELED_IMAGES,
    LABELING_REPORT,
    MODEL_VERSIONS,
    PREDICTIONS,
    QUARANTINED_FILES,
    RAW_IMAGES,
    TRAINING_SET,
)
from dlassets.pipeline.report import Report
from dlassets.pipeline.session import Session
from dlassets.pipeline.step import Made, Reads, commit_of, step
from dlassets.registry.models import VALIDATED_VERSION

if TYPE_CHECKING:
    from dlassets.labeling.services import LabelingService, Refusal
    from dlassets.monitoring.labeling_report.report import Counted


@step(
    LABEL_REQUESTS,
    reads=[
        RAW_IMAGES,
        DELETED_FILES,
        QUARANTINED_FILES,
        CLASSES,
        PREDICTIONS,
        LABELED_IMAGES,
        IMAGE_PROFILES,
        IMAGE_FEATURES,
        HUMAN_LABELS,
        CONSENSUS,
        LABEL_ERRORS,
        VALIDATED_VERSION,
    ],
)
def label_requests(session: Session, read: Reads, report: Report) -> Made:
    """Close the requests that need no answer any more, and send people what the champion is unsure of."""
    from dlassets.labeling.closing import close_requests, reopen_requests
    from dlassets.labeling.overlap import without_names
    from dlassets.labeling.requests import send_requests
    from dlassets.lakehouse.classes import known_classes
    from dlassets.lakehouse.labels import NAMES_WANTED

    settings, model = session.settings, read.champion
    images = read.named(RAW_IMAGES, DELETED_FILES, QUARANTINED_FILES)
    snapshots = images | read.named(CLASSES, PREDICTIONS, LABELED_IMAGES, LABEL_ERRORS, HUMAN_LABELS, CONSENSUS)
    snapshots |= read.named(IMAGE_PROFILES, IMAGE_FEATURES)
    asking = settings.labeling.model_dump(exclude={"label_studio"})
    provenance = read.provenance(model, **asking, conflicts=settings.labels.conflicts)
    commit = commit_of(provenance)
    if model is None:
        report.warning("No version is champion, so nobody is asked about more images.")
    reopened = reopen_requests(session.engine, session.lake, snapshots, settings.labeling, commit)
    written, closed = close_requests(session.engine, session.lake, snapshots, model, settings, commit)
    asked = session.labeling.asked
    send_lost = functools.partial(_send_lost, session, snapshots, commit, report)
    # Once it is said that a service cannot be told anything, that is not tried again.
    away = [service for service in asked if not _told(report, functools.partial(send_lost, service))]
    sent, unasked = send_requests(session.engine, session.lake, asked, snapshots, model, settings, commit)
    if unasked:
        report.info(
            f"{sent.inserted:,} of {sent.inserted + unasked:,} photos are asked about now: the settings "
            f"labeling.batch_limit, day_limit and run_limit allow no more. The other {unasked:,} are asked about when "
            "these are answered, or another day or run begins."
        )
    shown = {LABEL_REQUESTS.name: read.own(LABEL_REQUESTS), **read.named(HUMAN_LABELS, CLASSES)}
    if nameless := without_names(session.engine, shown):
        report.warning(
            f"{nameless:,} requests want answers of several people, and somebody without a name has answered them. "
            f"{NAMES_WANTED}"
        )
    classes = known_classes(session.engine, read[CLASSES])
    for service in session.labeling.read:
        if service not in away:
            _told(report, functools.partial(_show, session, service, classes, shown))
    details = {
        "requests_sent": sent.inserted,
        "requests_closed": closed.answered,
        "requests_withdrawn": closed.withdrawn,
        "requests_asked_on": closed.asked_on,
        "requests_reopened": reopened.updated,
        "photos_left_to_ask": unasked,
    }
    written = sent if sent.changed else reopened.and_then(written)
    return Made(provenance, {LABEL_REQUESTS.name: written}, details)


@step(HUMAN_LABELS, reads=[RAW_IMAGES, CLASSES], looks_back=[LABEL_REQUESTS])
def human_labels(session: Session, read: Reads, report: Report) -> Made:
    """Write down what people have answered since, accepted or refused with a reason."""
    from dlassets.labeling.answers import collect_answers
    from dlassets.lakehouse.snapshots import replanned

    sources = read.named(LABEL_REQUESTS, RAW_IMAGES, CLASSES)
    provenance = read.provenance()
    commit = commit_of(provenance)
    refused, away = 0, []

    def collect(service: LabelingService) -> tuple[Written, list[Refusal]]:
        return collect_answers(session.engine, service, read.own(HUMAN_LABELS), sources, commit)

    written = Written(read.own(HUMAN_LABELS).version, changed=False)
    for service in session.labeling.read:
        try:
            more, refusals = replanned(functools.partial(collect, service))
        except DlassetsError as error:  # what people answered elsewhere counts all the same
            away.append(error)
            continue
        written = written.and_then(more)
        refused += len(refusals)
        _told(report, functools.partial(service.show_refusals, refusals))
    if away and not written.changed:
        raise away[0]
    for told in away:
        report.warning(str(told))
    return Made(provenance, {HUMAN_LABELS.name: written}, {"answers_refused_now": refused})


def _send_lost(
    session: Session, snapshots: Mapping[str, Snapshot], commit: Commit, report: Report, service: LabelingService
) -> None:
    from dlassets.labeling.requests import send_lost

    sent = send_lost(session.engine, session.lake, service, snapshots, commit)
    if sent.updated:
        report.info(f"{sent.updated:,} open requests were no longer in {service.name}, and were sent there again.")


def _show(
    session: Session, service: LabelingService, classes: Mapping[int, str], shown: Mapping[str, Snapshot]
) -> None:
    """Show the classes of now, and where requests stand; and say where hints of answers are wanted."""
    from dlassets.labeling.standing import show_standing

    service.show_classes(classes)
    show_standing(session.engine, service, shown)
    service.ask_for_hints()


@step(CONSENSUS, reads=[HUMAN_LABELS, CLASSES], looks_back=[LABEL_REQUESTS, PREDICTIONS])
def consensus(session: Session, read: Reads, report: Report) -> Made:
    """Weigh what several people say of the same photo, and note what they do not agree on."""
    from dlassets.labeling.consensus import update_consensus

    settings, tables = session.settings.labeling, read.named(HUMAN_LABELS, CLASSES, LABEL_REQUESTS, PREDICTIONS)
    provenance = read.provenance(consensus_quality=settings.consensus_quality)
    tables[CONSENSUS.name] = read.own(CONSENSUS)
    written, facts = update_consensus(session.engine, tables, settings, commit_of(provenance))
    if "left_out" in facts:
        report.warning(facts["left_out"])
    return Made(provenance, {CONSENSUS.name: written}, facts)


@step(ANNOTATORS, reads=[HUMAN_LABELS, CLASSES, CONSENSUS], looks_back=[LABEL_REQUESTS])
def annotators(session: Session, read: Reads, report: Report) -> Made:  # noqa: ARG001 - as every step
    """Count how much and how well each person answers, and how far they agree with others."""
    from dlassets.labeling.annotators import update_annotators

    tables = read.named(HUMAN_LABELS, CLASSES, CONSENSUS, LABEL_REQUESTS)
    provenance = read.provenance()
    tables[ANNOTATORS.name] = read.own(ANNOTATORS)
    written, facts = update_annotators(session.engine, tables, commit_of(provenance))
    return Made(provenance, {ANNOTATORS.name: written}, facts)


@step(
    LABELING_REPORT,
    reads=[PREDICTIONS, LABELED_IMAGES, HUMAN_LABELS, LABEL_REQUESTS, TRAINING_SET, EVALUATED_ROWS, CLASSES],
    looks_back=[MODEL_VERSIONS],
)
def labeling_report(session: Session, read: Reads, report: Report) -> Made:
    """Say what labelling bought: how right versions are by people's answers, what these were worth and cost."""
    from dlassets.lakehouse.snapshots import replanned
    from dlassets.monitoring.labeling_report.report import count, is_known, write

    settings, current = session.settings, read.own(LABELING_REPORT)
    said = read.named(LABELED_IMAGES, HUMAN_LABELS, LABEL_REQUESTS, CLASSES)
    tables = said | read.named(PREDICTIONS, TRAINING_SET, EVALUATED_ROWS, MODEL_VERSIONS)
    decided = functools.partial(
        read.provenance, cost_per_hour=settings.labeling.cost_per_hour, conflicts=settings.labels.conflicts
    )
    if is_known(current, (provenance := decided(versions_told=True))):
        return Made(provenance, {LABELING_REPORT.name: Written(current.version, changed=False)})
    counted = count(session.engine, tables, settings, dt.datetime.now(dt.UTC))
    # Before it is written down: a run that is killed in between tells them again.
    provenance = decided(versions_told=_versions_told(session, counted, report))
    commit = commit_of(provenance)
    written = replanned(lambda: write(session.engine, read.own(LABELING_REPORT), counted, commit))
    return Made(provenance, {LABELING_REPORT.name: written}, {"measures": len(counted.measures)})


def _versions_told(session: Session, counted: Counted, report: Report) -> bool:
    """Put what is known of versions where MLflow shows them; where that cannot be, say so and go on."""
    from dlassets.monitoring.labeling_report.on_versions import tell_versions

    if not counted.versions:
        return True
    try:
        tell_versions(session.registry, counted.measures, counted.versions)
    except DlassetsError as error:
        report.warning(str(error))
        return False
    return True


def _told(report: Report, tell: Callable[[], None]) -> bool:
    """Let people know; where that cannot be, what they answered counts all the same, and False is returned."""
    try:
        tell()
    except DlassetsError as error:
        report.warning(str(error))
        return False
    return True
