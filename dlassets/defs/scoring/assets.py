"""What the champion says of every image, by each version that was champion and as it stands now."""

from collections.abc import Sequence
from typing import Any

import dagster as dg

from dlassets.defs.common import SCORING, details, few_photos, table_asset
from dlassets.lakehouse.tables import CLASSES, LABELED_IMAGES, PREDICTIONS, SERVED_REQUESTS
from dlassets.pipeline import steps
from dlassets.pipeline.session import Session
from dlassets.pipeline.step import Made, Reads
from dlassets.registry.models import ModelVersion


def _served(session: Session, read: Reads, made: Made) -> dict[str, Any]:
    """Return how often each version was right, as far as labels came since."""
    from dlassets.monitoring import markdown
    from dlassets.monitoring.outcomes import judged_answers

    labels = session.settings.labels
    classes = session.pin(CLASSES)
    rows = judged_answers(session.engine, read.own(SERVED_REQUESTS), read[LABELED_IMAGES], classes, labels)
    return {**made.details, "answers": dg.MetadataValue.md(markdown.served(rows))} if rows else dict(made.details)


def _compared(session: Session, champion: ModelVersion, challengers: Sequence[str]) -> dict[str, Any]:
    """Return how each challenger differs from the champion, with a link to the page that shows the photos."""
    from dlassets.monitoring import markdown
    from dlassets.monitoring.views.comparison import compare, versions_that_answered
    from dlassets.monitoring.views.reading import Reading

    reading, shown = Reading(session.settings), {}
    answered = versions_that_answered(reading)
    for version in (int(name.rpartition("/")[2]) for name in challengers):
        if version in answered:
            text = markdown.comparison(compare(reading, champion.version, version))
            address = session.settings.ui.page("compare", a=champion.version, b=version)
            shown[f"beside_version_{version}"] = dg.MetadataValue.md(f"{text}\n\n[With the photos]({address})")
    return shown


def _scored(session: Session, read: Reads, made: Made) -> dict[str, Any]:
    """Return who scored; where anything was, also the classes, the confidence and the least sure photos of it."""
    from dlassets.monitoring import markdown
    from dlassets.monitoring.outcomes import scored_last

    if not made.changed or read.champion is None:
        return dict(made.details)
    compared = _compared(session, read.champion, made.details.get("challengers", ()))
    scored = scored_last(session.engine, read.own(PREDICTIONS), read.champion)
    columns = {"predicted_name": "predicted", "confidence": "confidence", "path": "path"}
    return {
        **made.details,
        "classes": dg.MetadataValue.md(markdown.classes(scored)),
        "confidence": dg.MetadataValue.md(markdown.confidence(scored)),
        "least_sure": few_photos(session, read, scored.least_sure, columns),
        **compared,
    }


SCOPE = dg.Field(
    str,
    default_value="new",
    description="Which photos are scored. new: those that have no prediction by the champion. since 2026-11-01: "
    "those that were taken in since that day again, too (on 2026-11-01: on that day). all: every photo again.",
)

predictions = table_asset(steps.predictions, SCORING, _scored, {"scope": SCOPE})
predictions_current = table_asset(steps.predictions_current, SCORING, details)
served_requests = table_asset(steps.served_requests, SCORING, _served)
