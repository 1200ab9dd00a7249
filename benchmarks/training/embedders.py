"""From photos in a Delta table to embeddings on disk: dlassets on both engines, a bare loop, and the peers.

All but torch's run the same network in the same form, OpenVINO's. A job is run twice in one process, and the whole
second one counts, for everyone alike: that is what a user waits for, and nobody is charged for what is imported or
compiled once. Ray and Daft start their workers anew for each job, though, which is much of one on few photos: beside it
stands, where it can be told, the speed between the first finished batch and the last, without starting, planning and
committing, of ours as of theirs.
"""

from __future__ import annotations

import functools
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.ingest.usage import Meter
from dlassets.pipeline.report import Report

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import pyarrow as pa


Figures = dict[str, float]

NAME = "efficientnet_lite0"
# Photos a step of the peers, as of our engines.
STEP = 64


def loop(lake: str, workers: int) -> Figures:
    """The limit: threads that decode, resize and infer photos lying in memory, and keep nothing."""
    import pyarrow.parquet as pq

    contents = [
        content for file in files_of(lake) for content in pq.read_table(file, columns=["content"])[0].to_pylist()
    ]
    return bare(contents, workers)


def bare(contents: list[bytes], workers: int) -> Figures:
    """Do so with photos that are in memory already."""
    embed = embedder()

    def job() -> int:
        with ThreadPoolExecutor(workers) as threads:
            parts = (contents[rank::workers] for rank in range(workers))
            return sum(threads.map(lambda part: len(embed(part)), parts))

    return second(job)


def local(lake: str, workers: int) -> Figures:

    del workers  # it has those of the machine
    return _derived("local", lake)


def spark(lake: str, workers: int) -> Figures:

    spark_with(workers)  # which is then everyone's in this process
    return _derived("spark", lake)


def spark_openvino(lake: str, workers: int) -> Figures:
    """The usual loop over Arrow batches, without an engine around it."""
    session, out = spark_with(workers), out_of(lake)

    def embedded(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        embed = embedder()
        for batch in batches:
            features = list(embed(batch.column("content").to_pylist()))
            yield pa.RecordBatch.from_pydict({"image_id": batch.column("image_id"), "features": features})

    def job() -> int:
        photos = session.read.parquet(*files_of(lake)).select("image_id", "content")
        rows = photos.mapInArrow(embedded, "image_id string, features array<float>")
        rows.write.mode("overwrite").parquet(out)
        return int(session.read.parquet(out).count())

    return second(job)


def spark_torch(lake: str, workers: int) -> Figures:
    """Torch as it comes, in a pandas function: fewer photos, since it is slow."""
    session, out = spark_with(workers), out_of(lake)

    def embedded(parts: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        import pandas as pd

        embed = with_torch()
        for part in parts:
            yield pd.DataFrame({"image_id": part["image_id"], "features": list(embed(list(part["content"])))})

    def job() -> int:
        photos = session.read.parquet(*few_of(lake, workers))
        rows = photos.mapInPandas(embedded, "image_id string, features array<float>")
        rows.write.mode("overwrite").parquet(out)
        return int(session.read.parquet(out).count())

    return second(job)


def ray(lake: str, workers: int) -> Figures:
    import ray

    # Reading and writing are tasks as well, and wait for a core that the workers leave free.
    ray.init(address="local", num_cpus=2 * workers, include_dashboard=False, log_to_driver=False)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    out = out_of(lake)

    def job() -> int:
        shutil.rmtree(out, ignore_errors=True)
        blocks = 8 * workers  # left to itself it makes one of a file, which one worker would be given
        photos = ray.data.read_parquet(files_of(lake), columns=["image_id", "content"], override_num_blocks=blocks)
        rows = photos.map_batches(_embedded, batch_size=STEP, batch_format="pyarrow", concurrency=workers, num_cpus=1)
        rows.write_parquet(out)
        return 0

    return peers_second(job, out)


@functools.cache
def _kept() -> Callable[[list[bytes]], np.ndarray]:
    """Return a process's own: of Ray's tasks the processes go on from job to job, of its actors they do not."""
    return embedder()


def _embedded(batch: pa.Table) -> pa.Table:
    import pyarrow as pa

    features = list(_kept()(batch["content"].to_pylist()))
    done = [time.time()] * batch.num_rows
    return pa.table({"image_id": batch["image_id"], "features": features, "done": done})


def daft(lake: str, workers: int) -> Figures:
    import daft

    out = out_of(lake)
    dtype = daft.DataType.struct(
        {"features": daft.DataType.list(daft.DataType.float32()), "done": daft.DataType.float64()}
    )

    @daft.udf(return_dtype=dtype, concurrency=workers, batch_size=STEP, num_cpus=1, use_process=True)
    class Embed:
        def __init__(self) -> None:
            self._embed = embedder()

        def __call__(self, contents: Any) -> list[Any]:
            features = self._embed(contents.to_pylist())
            done = time.time()
            return [{"features": row, "done": done} for row in features]

    def job() -> int:
        shutil.rmtree(out, ignore_errors=True)
        photos = daft.read_parquet(files_of(lake)).select("image_id", "content")
        made = Embed(photos["content"])  # type: ignore[call-arg]  # the decorator made it a function of columns
        rows = photos.with_column("made", made).exclude("content")
        rows.select("image_id", rows["made"]["features"], rows["made"]["done"]).write_parquet(out)
        return 0

    return peers_second(job, out)


def written(images: str, lake: str, photos: int) -> int:
    """Take so many photos into raw_images, copies of the given ones, and return how many there are."""
    from benchmarks.ingest.data import originals
    from benchmarks.ingest.data import written as copied
    from dlassets.engines.local import LocalEngine
    from dlassets.intake.ingest import ingest
    from dlassets.lakehouse.snapshots import pin, row_count
    from dlassets.settings import LandingZone, Settings
    from dlassets.storage.lake import Lake

    copied(originals(Path(images)), photos, Path(lake, "landing", "labeled"))
    settings = Settings(root=lake, landing={"labeled": LandingZone(uri="labeled", labelled=True)})
    ingest(LocalEngine(), Lake.at(lake), settings, {})
    embedder()  # converts the network, once a machine
    return row_count(pin(Lake.at(lake), "raw_images"))


def _derived(engine: str, root: str) -> Figures:
    """Materialize image_features as its asset does, anew each time."""
    from dlassets.lakehouse.tables import IMAGE_FEATURES
    from dlassets.learning.backbones import BackboneRef
    from dlassets.pipeline import steps
    from dlassets.pipeline.session import Session
    from dlassets.settings import Settings

    session, clock = Session(Settings(root=root, engine=engine), embeds_with=BackboneRef(NAME)), Clock()

    def job() -> int:
        clock.counts.clear()
        shutil.rmtree(session.lake.table(IMAGE_FEATURES.name), ignore_errors=True)
        return steps.image_features.run(session, clock).written[IMAGE_FEATURES.name].inserted

    return {**second(job), **clock.between()}


def embedder() -> Callable[[list[bytes]], np.ndarray]:
    """Return the loop that everyone writes: simplejpeg, torch's resize, OpenVINO."""
    import numpy as np
    import simplejpeg
    import torch
    from torch.nn.functional import interpolate

    from dlassets.learning.backbones import BackboneRef
    from dlassets.learning.embedding import BATCH, load_backbone

    torch.set_num_threads(1)
    backbone = load_backbone(BackboneRef(NAME), "openvino")

    def decoded(content: bytes) -> np.ndarray:
        pixels = simplejpeg.decode_jpeg(content)
        height, width = pixels.shape[:2]
        side = round(min(height, width) * 224 / 256)
        top, left = (height - side) // 2, (width - side) // 2
        middle = torch.from_numpy(pixels[top : top + side, left : left + side]).permute(2, 0, 1)[None]
        resized = interpolate(middle, size=(224, 224), mode="bicubic", antialias=True)
        shown: np.ndarray = resized[0].permute(1, 2, 0).numpy()
        return shown

    def embed(contents: list[bytes]) -> np.ndarray:
        steps = (contents[start : start + BATCH] for start in range(0, len(contents), BATCH))
        return np.concatenate([backbone.embed(np.stack([decoded(content) for content in step])) for step in steps])

    return embed


def with_torch() -> Callable[[list[bytes]], np.ndarray]:
    """Return what the guides show: Pillow, torchvision's transforms, the network in eager mode."""
    import io

    import torch
    from PIL import Image
    from torchvision import transforms

    from dlassets.learning.backbones import BackboneRef, network

    torch.set_num_threads(1)
    made = network(BackboneRef(NAME))
    resize = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224), transforms.PILToTensor()])

    def embed(contents: list[bytes]) -> np.ndarray:
        photos = [resize(Image.open(io.BytesIO(content)).convert("RGB")).permute(1, 2, 0) for content in contents]
        with torch.inference_mode():
            features: np.ndarray = made(torch.stack(photos)).numpy()
        return features

    return embed


def spark_with(workers: int) -> Any:
    from dlassets.engines.spark_session import spark_session
    from dlassets.settings import SparkSettings

    return spark_session(SparkSettings(master=f"local[{workers}]"))


def files_of(lake: str) -> list[str]:
    from deltalake import DeltaTable

    return DeltaTable(f"{lake}/tables/raw_images").file_uris()


def few_of(lake: str, workers: int, photos: int = 2 * STEP) -> list[str]:
    """Write so many of the photos to a file a worker, and return the files."""
    import pyarrow.dataset as pads
    import pyarrow.parquet as pq

    found = pads.dataset(files_of(lake)).head(photos * workers, columns=["image_id", "content"])
    files = [f"{lake}/few-{rank}.parquet" for rank in range(workers)]
    for rank, file in enumerate(files):
        pq.write_table(found.slice(rank * photos, photos), file)
    return files


def out_of(lake: str) -> str:
    return f"{lake}/embedded"


class Clock(Report):
    """Notes when how many photos were done."""

    def __init__(self) -> None:
        self.counts: list[tuple[float, str, int]] = []

    def count(self, what: str, done: int, total: int | None) -> None:  # noqa: ARG002 - as every report
        self.counts.append((time.time(), what, done))

    def between(self) -> Figures:
        """Return images/s from the first batch of the first step to the last of the last, where there are several."""
        first, what, done = self.counts[0]
        images = max(count for _, of, count in self.counts if of == what)
        return {"between": (images - done) / (self.counts[-1][0] - first)} if images > done else {}


def second(job: Callable[[], int]) -> Figures:
    """Run a job twice, and return what the second took, and how long the first."""
    first = Meter()
    job()
    first_s, meter = first.read().wall_s, Meter()
    images = job()
    return {"images": images, "first_s": first_s, **asdict(meter.read())}


def peers_second(job: Callable[[], int], out: str) -> Figures:
    """As `second`, of a job that notes when each row was `done`, in files in `out`, with the speed `between` batches.

    The workers are no children of this process that it could ask what they took of the processors.
    """
    import pyarrow.dataset as pads

    figures = second(job)
    done = sorted(pads.dataset(out, format="parquet").to_table(["done"])["done"].to_pylist())
    later = sum(at > done[0] for at in done)
    between = {"between": later / (done[-1] - done[0])} if later else {}
    return {"images": len(done), "first_s": figures["first_s"], "wall_s": figures["wall_s"], **between}
