"""What feeds a training: dlassets, and each peer the way its documentation shows it, on as many workers.

Each function makes the peer's own format of the photos, where it has one, and returns what the second epoch took. The
peers resize as torchvision does by default; none of them is held up by a network.
"""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.ingest.usage import Meter

if TYPE_CHECKING:
    import pandas as pd
    import torch
    from PIL.Image import Image

Figures = dict[str, float]

BATCH = 32
_SHARDS = 8


def torchvision(images: str, place: str, workers: int) -> Figures:
    """ImageFolder and DataLoader."""
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder

    del place
    dataset = ImageFolder(images, transform=_transform())
    loader = DataLoader(dataset, batch_size=BATCH, shuffle=True, num_workers=workers, persistent_workers=True)
    return _second_epoch(lambda: loader)


def webdataset(images: str, place: str, workers: int) -> Figures:
    import webdataset as wds

    files = _shuffled(images)
    for shard in range(_SHARDS):
        with wds.TarWriter(f"{place}/{shard:03}.tar") as tar:
            for number, (content, label) in enumerate(files[shard::_SHARDS]):
                tar.write({"__key__": f"{number:06}", "jpg": content, "cls": label})
    dataset = (
        wds.WebDataset(f"{place}/{{000..{_SHARDS - 1:03}}}.tar", shardshuffle=_SHARDS)
        .shuffle(256)
        .decode("pil")
        .to_tuple("jpg", "cls")
        .map_tuple(_transform(), _same)
        .batched(BATCH)
    )
    loader = wds.WebLoader(dataset, batch_size=None, num_workers=workers, persistent_workers=True)
    return _second_epoch(lambda: loader)


def litdata(images: str, place: str, workers: int) -> Figures:
    import litdata as ld

    ld.optimize(
        fn=_same, inputs=_shuffled(images), output_dir=place, chunk_bytes="16MB", num_workers=1, start_method="spawn"
    )

    loader = ld.StreamingDataLoader(
        ld.StreamingDataset(place, shuffle=True, transform=_decoded_row),
        batch_size=BATCH,
        num_workers=workers,
        persistent_workers=True,
    )
    return _second_epoch(lambda: loader)


def mosaicml_streaming(images: str, place: str, workers: int) -> Figures:
    from streaming import MDSWriter, StreamingDataset
    from torch.utils.data import DataLoader

    with MDSWriter(out=place, columns={"image": "bytes", "label": "int"}, size_limit="16mb") as writer:
        for content, label in _shuffled(images):
            writer.write({"image": content, "label": label})

    class Photos(StreamingDataset):  # type: ignore[misc]
        def __getitem__(self, index: Any) -> tuple[torch.Tensor, int]:
            row = super().__getitem__(index)
            return _decoded(row["image"]), row["label"]

    dataset = Photos(local=place, shuffle=True, batch_size=BATCH)
    loader: DataLoader[Any] = DataLoader(dataset, batch_size=BATCH, num_workers=workers, persistent_workers=True)
    return _second_epoch(lambda: loader)


def petastorm(table: str, version: int, workers: int) -> Figures:
    """Its batch reader with the usual pandas transform, over the table that dlassets reads, adapted to run at all."""
    import numpy as np

    from dlassets.learning.loader.petastorm_reader import Plan, adapted_petastorm
    from dlassets.learning.loader.row_groups import row_groups

    module = adapted_petastorm()
    from petastorm.pytorch import BatchedDataLoader
    from petastorm.transform import TransformSpec
    from petastorm.workers_pool.thread_pool import ThreadPool

    source = row_groups(table, version, [("split", "=", "train")])
    module.reader.ThreadPool = ThreadPool  # its own, not the one that keeps its order

    def decoded(frame: pd.DataFrame) -> pd.DataFrame:
        frame["content"] = frame["content"].map(lambda content: _decoded(content).numpy())
        return frame[["content", "label"]]

    def batches() -> Iterator[Any]:
        with (
            module.make_batch_reader(
                [f"file:///{place}" for place in range(len(source.groups))],
                schema_fields=["content", "label"],
                transform_spec=TransformSpec(
                    decoded,
                    edit_fields=[("content", np.float32, (3, 224, 224), False)],
                    selected_fields=["content", "label"],
                ),
                workers_count=workers,
                seed=1,
                filesystem=Plan(source, range(len(source.groups))),
            ) as reader,
            BatchedDataLoader(reader, batch_size=BATCH) as loader,
        ):
            for batch in loader:
                yield batch["content"], batch["label"]

    return _second_epoch(batches)


def dlassets(table: str, version: int, workers: int) -> Figures:
    from dlassets.learning.loader import Sampling, decode_to_tensor, torch_loader

    loader = torch_loader(
        table,
        version,
        "train",
        ["content", "label"],
        decode_to_tensor(as_float=True),
        Sampling(batch_size=BATCH),
        workers,
    )
    return _second_epoch(lambda: ((batch["content"], batch["label"]) for batch in loader))


def _second_epoch(batches: Callable[[], Iterable[Any]]) -> Figures:
    for _ in range(2):
        count, meter = 0, Meter()
        for batch in batches():
            count += len(batch[0])
        used = meter.read()
    return {"images": count, **asdict(used)}


def _transform() -> Callable[[Image], torch.Tensor]:
    from torchvision import transforms

    steps = [transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor()]
    transform: Callable[[Image], torch.Tensor] = transforms.Compose(steps)
    return transform


def _decoded(content: bytes) -> torch.Tensor:
    from PIL import Image

    return _transform()(Image.open(io.BytesIO(content)).convert("RGB"))


def _decoded_row(row: tuple[bytes, int]) -> tuple[torch.Tensor, int]:
    return _decoded(row[0]), row[1]


def _same(value: Any) -> Any:
    return value


def _shuffled(images: str) -> list[tuple[bytes, int]]:
    """Return bytes and class of each photo, in an order that is always the same."""
    files = sorted(Path(images).glob("*/*.jp*g"))
    random.Random(0).shuffle(files)
    classes = {name: place for place, name in enumerate(sorted({file.parent.name for file in files}))}
    return [(file.read_bytes(), classes[file.parent.name]) for file in files]
