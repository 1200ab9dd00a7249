"""What the champion says of every image, by each version that was champion and as it stands now."""

from typing import Any

import dagster as dg

from dlassets.defs.common import SCORING, details, few_photos, table_asset
from dlassets.lakehouse.tables import PREDICTIONS
from dlassets.pipeline import steps
from dlassets.pipeline.session import Session
from dlassets.pipeline.step import Made, Reads


def _scored(session: Session, read: Reads, made: Made) -> dict[str, Any]:
    """Return who scored; where anything was, also the classes, the confidence and the least sure photos of it."""
    from dlassets.monitoring import markdown
    from dlassets.monitoring.outcomes import scored_last

    if not made.changed or read.champion is None:
        return dict(made.details)
    scored = scored_last(session.engine, read.own(PREDICTIONS), read.champion)
    columns = {"predicted_name": "predicted", "confidence": "confidence", "path": "path"}
    return {
        **made.details,
        "classes": dg.MetadataValue.md(markdown.classes(scored)),
        "confidence": dg.MetadataValue.md(markdown.confidence(scored)),
        "least_sure": few_photos(session, read, scored.least_sure, columns),
    }


SCOPE = dg.Field(
    str,
    default_value="new",
    description="Which photos are scored. new: those that have no prediction by the champion. since 2026-11-01: "
    "those that were taken in since that day again, too (on 2026-11-01: on that day). all: every photo again.",
)

predictions = table_asset(steps.predictions, SCORING, _scored, {"scope": SCOPE})
predictions_current = table_asset(steps.predictions_current, SCORING, details)
