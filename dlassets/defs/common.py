"""What every asset says of itself, and the result every table asset returns. No logic of any one asset."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from dlassets.engines.base import Snapshot, Written
from dlassets.engines.schema import Table
from dlassets.lakehouse.provenance import Provenance
from dlassets.resources.lake import LakeResource

INGEST, TRAINING, SCORING, LABELING = "ingest", "training", "scoring", "labeling"
OWNERS = ["team:ml-platform"]
PIPELINE_TAG = "dlassets/pipeline"


def table_spec(table: Table, group: str, *, reads: Sequence[Table] = (), code_version: str = "1") -> dg.AssetSpec:
    """Return the spec of the asset that writes `table`."""
    return dg.AssetSpec(
        table.name,
        deps=[read.name for read in reads],
        description=table.description,
        group_name=group,
        owners=OWNERS,
        kinds={"deltalake", "image" if table.wide else "table"},
        tags={"dlassets/storage": "wide" if table.wide else "narrow"},
        code_version=code_version,
        metadata={
            "dagster/column_schema": column_schema(table),
            "dagster/table_name": table.name,
            "key": ", ".join(table.key),
        },
    )


def column_schema(table: Table) -> dg.TableSchema:
    return dg.TableSchema(
        [
            dg.TableColumn(
                column.name,
                column.type,
                column.description,
                constraints=dg.TableColumnConstraints(nullable=column.nullable, unique=table.key == (column.name,)),
            )
            for column in table.columns
        ]
    )


def provenance(context: dg.AssetExecutionContext, asset: str, read: Sequence[Snapshot], **more: Any) -> Provenance:
    return Provenance.of(asset, read, run_id=context.run.run_id, **more)


def table_result(
    lake: LakeResource,
    table: Table,
    written: Written,
    origin: Provenance,
    *,
    metadata: Mapping[str, Any] | None = None,
) -> dg.MaterializeResult:
    """Return what a table asset reports: its Delta version as data version, its size, and what it was made of."""
    from dlassets.lakehouse.snapshots import row_count

    (now,) = lake.pin(table.name)
    return dg.MaterializeResult(
        asset_key=table.name,
        data_version=dg.DataVersion(str(now.version)),
        metadata={
            "dagster/row_count": row_count(now),
            "dagster/uri": now.uri,
            "delta_version": now.version,
            "rows_inserted": written.inserted,
            "rows_updated": written.updated,
            "changed": "a new version" if written.changed else "nothing new: the table was left as it is",
            "engine": lake.settings.engine,
            "provenance": dg.MetadataValue.json(json.loads(json.dumps(origin.as_dict()))),
            **(metadata or {}),
        },
    )
