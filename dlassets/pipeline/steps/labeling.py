"""The steps that ask people, and take what they answer."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

from dlassets.engines.base import Written
from dlassets.errors import DlassetsError
from dlassets.lakehouse.tables import (
    CLASSES,
    DELETED_FILES,
    HUMAN_LABELS,
    IMAGE_FEATURES,
    IMAGE_PROFILES,
    LABEL_ERRORS,
    LABEL_REQUESTS,
    LABELED_IMAGES,
    PREDICTIONS,
    QUARANTINED_FILES,
    RAW_IMAGES,
)
from dlassets.pipeline.report import Report
from dlassets.pipeline.session import Session
from dlassets.pipeline.step import Made, Reads, commit_of, step
from dlassets.registry.models import VALIDATED_VERSION

if TYPE_CHECKING:
    from dlassets.labeling.services import LabelingService, Refusal


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
    snapshots |= read.named(IMAGE_PROFILES, IMAGE_FEATURES)
    asking = settings.labeling.model_dump(exclude={"label_studio"})
    provenance = read.provenance(model, **asking, conflicts=settings.labels.conflicts)
    commit = commit_of(provenance)
    if model is None:
        report.warning("No version is champion, so nobody is asked about more images.")
    closed, withdrawn = close_requests(session.engine, session.lake, snapshots, model, settings, commit)
    asked = session.labeling.asked
    sent, unasked = send_requests(session.engine, session.lake, asked, snapshots, model, settings, commit)
    if unasked:
        report.info(
            f"{sent.inserted:,} of {sent.inserted + unasked:,} photos are asked about now: the settings "
            f"labeling.batch_limit, day_limit and run_limit allow no more. The other {unasked:,} are asked about when "
            "these are answered, or another day or run begins."
        )
    shown = {LABEL_REQUESTS.name: read.own(LABEL_REQUESTS), **read.named(HUMAN_LABELS, CLASSES)}
    for service in session.labeling.read:
        _told(report, functools.partial(show_standing, session.engine, service, shown))
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
    refused, away = 0, []

    def collect(service: LabelingService) -> tuple[Written, list[Refusal]]:
        return collect_answers(session.engine, service, read.own(HUMAN_LABELS), requests, classes, commit)

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


def _told(report: Report, tell: Callable[[], None]) -> None:
    """Let people know; where that cannot be, what they answered counts all the same."""
    try:
        tell()
    except DlassetsError as error:
        report.warning(str(error))
