"""People: which images they are asked about, and what they answered."""

import dagster as dg

from dlassets.defs.common import LABELING, provenance, table_result, table_spec
from dlassets.engines.base import Commit
from dlassets.lakehouse.tables import (
    DELETED_FILES,
    HUMAN_LABELS,
    LABEL_ERRORS,
    LABEL_REQUESTS,
    LABELED_IMAGES,
    PREDICTIONS,
    RAW_IMAGES,
)
from dlassets.resources.labeling import LabelingResource
from dlassets.resources.lake import LakeResource
from dlassets.resources.mlflow import MlflowResource


@dg.multi_asset(specs=[table_spec(HUMAN_LABELS, LABELING)])
def human_labels(
    context: dg.AssetExecutionContext,
    lake: dg.ResourceParam[LakeResource],
    labeling: dg.ResourceParam[LabelingResource],
) -> dg.MaterializeResult:
    from dlassets.labeling.answers import collect_answers
    from dlassets.lakehouse.labels import known_classes
    from dlassets.lakehouse.snapshots import replanned

    requests, labeled = lake.pin(LABEL_REQUESTS.name, LABELED_IMAGES.name)
    origin = provenance(context, HUMAN_LABELS.name, [requests, labeled])
    classes = known_classes(lake.engine, labeled)
    written = replanned(
        lambda: collect_answers(
            lake.engine,
            labeling.service,
            lake.pin(HUMAN_LABELS.name)[0],
            requests,
            classes,
            Commit(origin.as_dict()),
        )
    )
    return table_result(lake, HUMAN_LABELS, written, origin)


@dg.multi_asset(
    specs=[
        table_spec(
            LABEL_REQUESTS,
            LABELING,
            reads=[RAW_IMAGES, DELETED_FILES, PREDICTIONS, LABELED_IMAGES, HUMAN_LABELS, LABEL_ERRORS],
        )
    ]
)
def label_requests(
    context: dg.AssetExecutionContext,
    lake: dg.ResourceParam[LakeResource],
    mlflow: dg.ResourceParam[MlflowResource],
    labeling: dg.ResourceParam[LabelingResource],
) -> dg.MaterializeResult:
    from dlassets.labeling.requests import close_answered, send_requests
    from dlassets.labeling.selection import ModelVersion
    from dlassets.registry.lifecycle import version_of

    reads = (RAW_IMAGES, DELETED_FILES, PREDICTIONS, LABELED_IMAGES, LABEL_ERRORS, HUMAN_LABELS)
    snapshots = {table.name: lake.pin(table.name)[0] for table in reads}
    name = lake.settings.registry.model_name
    version = version_of(mlflow.client, name)
    model = None if version is None else ModelVersion(name, version)
    parameters = lake.settings.labeling.model_dump() | lake.settings.labels.model_dump()
    by = model and f"{name}/{version}"
    origin = provenance(context, LABEL_REQUESTS.name, [*snapshots.values()], model=by, parameters=parameters)
    commit = Commit(origin.as_dict())
    closed = close_answered(lake.engine, lake.lake, snapshots[HUMAN_LABELS.name], commit)
    sent = send_requests(lake.engine, lake.lake, labeling.service, snapshots, model, lake.settings, commit)
    return table_result(
        lake,
        LABEL_REQUESTS,
        sent if sent.changed else closed,
        origin,
        metadata={"requests_sent": sent.inserted, "requests_closed": closed.updated},
    )
