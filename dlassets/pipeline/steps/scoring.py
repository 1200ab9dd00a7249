"""The steps in which models say what photos are, in batches and to those who have asked a server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dlassets.engines.base import Written
from dlassets.errors import DlassetsError
from dlassets.lakehouse.tables import (
    DELETED_FILES,
    IMAGE_FEATURES,
    IMAGE_PROFILES,
    LABELED_IMAGES,
    PREDICTIONS,
    PREDICTIONS_CURRENT,
    QUARANTINED_FILES,
    RAW_IMAGES,
    SERVED_REQUESTS,
)
from dlassets.pipeline.report import Report
from dlassets.pipeline.session import Session
from dlassets.pipeline.step import Made, Reads, step
from dlassets.pipeline.steps.shared import tell_of_failed
from dlassets.registry.models import VALIDATED_VERSION, ModelVersion

if TYPE_CHECKING:
    from dlassets.lakehouse.provenance import Provenance
    from dlassets.scoring.batch import Scorer


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
    tell_of_failed(written, PREDICTIONS, report)
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
