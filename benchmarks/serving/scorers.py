"""From photos in a Delta table to a model's predictions in another: dlassets on both engines, and the peers.

The model is the lake's champion. All but torch's run its network in the same form, OpenVINO's; see
`benchmarks.training.embedders` for how jobs are counted.
"""

from __future__ import annotations

import functools
import shutil
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from benchmarks.serving.lake import package_of
from benchmarks.training.embedders import (
    STEP,
    Clock,
    Figures,
    embedder,
    few_of,
    files_of,
    out_of,
    peers_second,
    second,
    spark_with,
    with_torch,
)

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

_COLUMNS = ("label", "confidence")


def local(lake: str, workers: int) -> Figures:
    del workers  # it has those of the machine
    return _scored("local", lake)


def spark(lake: str, workers: int) -> Figures:
    spark_with(workers)  # which is then everyone's in this process
    return _scored("spark", lake)


def _scored(engine: str, root: str) -> Figures:
    """Materialize image_features and predictions as their assets do, anew each time."""
    from dlassets.lakehouse.tables import IMAGE_FEATURES, PREDICTIONS
    from dlassets.pipeline import steps
    from dlassets.pipeline.session import Session
    from dlassets.settings import Settings

    session, clock = Session(Settings(root=root, engine=engine)), Clock()

    def job() -> int:
        clock.counts.clear()
        for table in (IMAGE_FEATURES, PREDICTIONS):
            shutil.rmtree(session.lake.table(table.name), ignore_errors=True)
        steps.image_features.run(session, clock)
        return steps.predictions.run(session, clock).written[PREDICTIONS.name].inserted

    return {**second(job), **clock.between()}


class _Classifier:
    """What a worker of a peer makes of photos."""

    def __init__(self, lake: str) -> None:
        self._head, self._embed = package_of(lake).head, embedder()

    def answers(self, contents: list[bytes]) -> list[dict[str, Any]]:
        from dlassets.registry.package import ranked

        return ranked(self._head, self._head.probabilities(self._embed(contents)), 5)

    def __call__(self, batch: pa.Table) -> pa.Table:
        import pyarrow as pa

        rows = self.answers(batch["content"].to_pylist())
        said = {name: [row[name] for row in rows] for name in _COLUMNS}
        return pa.table({"image_id": batch["image_id"], **said, "done": [time.time()] * batch.num_rows})


@functools.cache
def _kept(lake: str) -> _Classifier:
    """Return a process's own: of Ray's tasks the processes go on from job to job, of its actors they do not."""
    return _Classifier(lake)


def _classified(batch: pa.Table, lake: str) -> pa.Table:
    return _kept(lake)(batch)


def ray(lake: str, workers: int) -> Figures:
    import ray

    ray.init(address="local", num_cpus=2 * workers, include_dashboard=False, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    out = out_of(lake)

    def job() -> int:
        shutil.rmtree(out, ignore_errors=True)
        photos = ray.data.read_parquet(files_of(lake), columns=["image_id", "content"], override_num_blocks=8 * workers)
        rows = photos.map_batches(
            _classified, fn_args=(lake,), batch_size=STEP, batch_format="pyarrow", concurrency=workers, num_cpus=1
        )
        rows.write_parquet(out)
        return 0

    return peers_second(job, out)


def daft(lake: str, workers: int) -> Figures:
    import daft

    out = out_of(lake)
    dtype = daft.DataType.struct(
        {"label": daft.DataType.int64(), "confidence": daft.DataType.float64(), "done": daft.DataType.float64()}
    )

    @daft.udf(return_dtype=dtype, concurrency=workers, batch_size=STEP, num_cpus=1, use_process=True)
    class Classify:
        def __init__(self) -> None:
            self._classifier = _Classifier(lake)

        def __call__(self, contents: Any) -> list[Any]:
            rows, done = self._classifier.answers(contents.to_pylist()), time.time()
            return [{**{name: row[name] for name in _COLUMNS}, "done": done} for row in rows]

    def job() -> int:
        shutil.rmtree(out, ignore_errors=True)
        photos = daft.read_parquet(files_of(lake)).select("image_id", "content")
        made = Classify(photos["content"])  # type: ignore[call-arg]  # the decorator made it a function of columns
        rows = photos.with_column("made", made).exclude("content")
        said = [rows["made"][name] for name in (*_COLUMNS, "done")]
        rows.select("image_id", *said).write_parquet(out)
        return 0

    return peers_second(job, out)


def original(lake: str, workers: int) -> Figures:
    """Torch as it comes in a pandas function, merged into the one wide table: fewer photos, since it is slow."""
    session, wide = spark_with(workers), f"{lake}/wide"

    def classified(parts: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        import pandas as pd

        head, embed = package_of(lake).head, with_torch()
        for part in parts:
            chances = head.probabilities(embed(list(part["content"])))
            labels = [head.labels[place] for place in chances.argmax(axis=1)]
            yield pd.DataFrame({"image_id": part["image_id"], "label": labels, "confidence": chances.max(axis=1)})

    few = few_of(lake, workers)
    unscored = "image_id", "content", "CAST(NULL AS bigint) AS label", "CAST(NULL AS double) AS confidence"

    def job() -> int:
        session.read.parquet(*few).selectExpr(*unscored).write.format("delta").mode("overwrite").save(wide)
        photos = session.read.format("delta").load(wide).select("image_id", "content")
        scored = photos.mapInPandas(classified, "image_id string, label bigint, confidence double")
        scored.write.format("delta").mode("overwrite").save(f"{lake}/scored")  # a source of a MERGE is read twice
        session.sql(
            f"MERGE INTO delta.`{wide}` AS t USING delta.`{lake}/scored` AS s ON t.image_id = s.image_id "
            "WHEN MATCHED THEN UPDATE SET t.label = s.label, t.confidence = s.confidence"
        )
        return int(session.read.format("delta").load(wide).where("label IS NOT NULL").count())

    return second(job)
