"""Delta tables for the loader's tests, in small row groups."""

import json
from pathlib import Path
from typing import Any


def write(uri: str, rows: list[dict[str, Any]]) -> None:
    """Append rows to a table that is partitioned by split, in row groups of 8."""
    import pyarrow as pa
    from deltalake import WriterProperties, write_deltalake

    schema = pa.schema(
        {
            "path": pa.string(),
            "image_id": pa.string(),
            "label": pa.int64(),
            "label_name": pa.string(),
            "weight": pa.float64(),
            "features": pa.list_(pa.float32()),
            "content": pa.binary(),
            "thumbnail": pa.binary(),
            "split": pa.string(),
        }
    )
    write_deltalake(
        uri,
        pa.Table.from_pylist(rows, schema=schema),
        mode="append",
        partition_by=["split"],
        writer_properties=WriterProperties(max_row_group_size=8),
    )


def write_log(folder: Path, protocol: dict[str, Any], configuration: dict[str, str]) -> str:
    """Write the log of a table of version 0 that says of itself what delta-rs would not write; return its URI."""
    field = {"name": "label", "type": "long", "nullable": True, "metadata": {}}
    if "delta.columnMapping.mode" in configuration:
        field["metadata"] = {"delta.columnMapping.id": 1, "delta.columnMapping.physicalName": "col-1"}
    metadata = {
        "id": "a",
        "format": {"provider": "parquet", "options": {}},
        "schemaString": json.dumps({"type": "struct", "fields": [field]}),
        "partitionColumns": [],
        "configuration": configuration,
        "createdTime": 0,
    }
    lines = [json.dumps({"protocol": protocol}), json.dumps({"metaData": metadata})]
    (folder / "_delta_log").mkdir()
    (folder / "_delta_log" / f"{0:020}.json").write_text("\n".join(lines))
    return str(folder)
