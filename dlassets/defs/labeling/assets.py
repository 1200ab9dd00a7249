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


def _people(_: Session, __: Reads, made: Made) -> dict[str, Any]:
    """Return how far all agree, and each person's shares as a picture."""
    from dlassets.images.data_uri import data_uri
    from dlassets.labeling.annotator_picture import annotator_picture

    kappa = made.details["fleiss_kappa"]
    metadata: dict[str, Any] = {
        "annotators": len(made.details["people"]),
        **({} if kappa is None else {"fleiss_kappa": kappa}),
    }
    if people := made.details["people"]:
        metadata["picture"] = dg.MetadataValue.md(f"![people]({data_uri(annotator_picture(people))})")
    return metadata


def _bought(session: Session, _: Reads, made: Made) -> dict[str, Any]:
    """Return the figures as they stand, with pictures of them, where there is anything to tell."""
    from dlassets.images.data_uri import data_uri
    from dlassets.monitoring import markdown
    from dlassets.monitoring.labeling_report import pictures
    from dlassets.monitoring.views.bought import bought
    from dlassets.monitoring.views.reading import Reading

    found = bought(Reading(session.settings))
    metadata = {**made.details, "page": page(session, "labeling")}
    if not found.in_all:
        return metadata
    metadata |= {"requests_open": found.open, "versions": dg.MetadataValue.md(markdown.bought(found))}
    drawn = {"accuracy": pictures.accuracy_and_labels, "requests": pictures.asking_and_answering}
    for name, draw in drawn.items():
        metadata[name] = dg.MetadataValue.md(f"![{name}]({data_uri(draw(found.known))})")
    return metadata


human_labels = table_asset(steps.human_labels, LABELING, details)
consensus = table_asset(steps.consensus, LABELING, details)
annotators = table_asset(steps.annotators, LABELING, _people)
label_requests = table_asset(steps.label_requests, LABELING, _waiting)
labeling_report = table_asset(steps.labeling_report, LABELING, _bought)
