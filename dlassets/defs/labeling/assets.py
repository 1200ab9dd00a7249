"""People: which images they are asked about, and what they answered."""

from typing import Any

import dagster as dg

from dlassets.defs.common import LABELING, details, file_page, page, table_asset
from dlassets.pipeline import steps
from dlassets.pipeline.session import Session
from dlassets.pipeline.step import Made, Reads


def _waiting(session: Session, _: Reads, made: Made) -> dict[str, Any]:
    """Return what waits for people, with links to it, to the newest batch's contact sheet and to where to answer."""
    from dlassets.monitoring.views.reading import Reading
    from dlassets.monitoring.views.waiting import waiting

    queue = waiting(Reading(session.settings), batches=1, most=1)
    metadata = {**made.details, "requests_open": queue.open, "requests_page": page(session, "requests")}
    if queue.open:
        label = session.settings.ui.label
        metadata["answer_on"] = dg.MetadataValue.url(label) if label else "the page of `dlassets label`"
    for batch in queue.batches:
        sheet = f"{session.lake.requests}/{batch.id}/index.html"
        metadata |= {"contact_sheet": file_page(session, sheet), "contact_sheet_path": dg.MetadataValue.path(sheet)}
    return metadata


human_labels = table_asset(steps.human_labels, LABELING, details)
label_requests = table_asset(steps.label_requests, LABELING, _waiting)
