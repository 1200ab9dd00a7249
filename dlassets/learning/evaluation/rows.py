"""What a model said of each row that it was evaluated on, as rows of `evaluated_rows`."""

from __future__ import annotations

import datetime as dt
import io
from collections.abc import Mapping
from typing import TYPE_CHECKING

from dlassets.lakehouse.tables import EVALUATED_ROWS
from dlassets.learning.evaluation.evaluate import Evaluation
from dlassets.learning.examples import Examples

if TYPE_CHECKING:
    import pyarrow as pa

_OF_A_MISTAKE = ("path", "split", "label", "label_name", "predicted_label", "predicted_name", "confidence")


def evaluated_rows(run_id: str, splits: Mapping[str, tuple[Examples, Evaluation]]) -> pa.Table:
    """Return a row for each example of each split, beside what the run's model makes of it."""
    import pyarrow as pa

    now = dt.datetime.now(dt.UTC)
    parts = [_of_split(run_id, split, examples, evaluation, now) for split, (examples, evaluation) in splits.items()]
    return pa.concat_tables(parts)


def _of_split(run_id: str, split: str, examples: Examples, evaluation: Evaluation, now: dt.datetime) -> pa.Table:
    import pyarrow as pa

    names = dict(zip(evaluation.labels, evaluation.names, strict=True))
    columns = {
        "run_id": [run_id] * len(examples),
        "path": examples.paths,
        "image_id": examples.image_ids,
        "split": [split] * len(examples),
        "label": examples.labels,
        "label_name": examples.names,
        "predicted_label": evaluation.predicted,
        "predicted_name": [names[label] for label in evaluation.predicted.tolist()],
        "confidence": evaluation.confidence,
        "evaluated_at": [now] * len(examples),
    }
    return pa.table(columns, schema=EVALUATED_ROWS.schema)


def mistakes_as_csv(rows: pa.Table) -> bytes:
    """Return the rows of `evaluated_rows` that are wrong, for people: the surest first."""
    import pyarrow.compute as pc
    from pyarrow import csv

    wrong = rows.filter(pc.not_equal(rows["label"], rows["predicted_label"])).select(_OF_A_MISTAKE)
    out = io.BytesIO()
    csv.write_csv(wrong.sort_by([("confidence", "descending"), ("path", "ascending")]), out)
    return out.getvalue()


def as_parquet(rows: pa.Table) -> bytes:
    import pyarrow.parquet as pq

    out = io.BytesIO()
    pq.write_table(rows, out, compression="zstd")
    return out.getvalue()
