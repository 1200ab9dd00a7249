"""The limit: processes that decode photos lying in memory, resize them and keep nothing else."""

from __future__ import annotations

import multiprocessing
import time
from multiprocessing.synchronize import Barrier
from pathlib import Path

EPOCHS = 2


def loop(images: str, processes: int = 2) -> float:
    """Return images/s of the second epoch: from when all processes begin it to when the last has ended it."""
    files = sorted(map(str, Path(images).glob("*/*.jp*g")))
    context = multiprocessing.get_context("spawn")
    barrier, times = context.Barrier(processes), context.SimpleQueue()
    workers = [
        context.Process(target=_decode, args=(files[rank::processes], barrier, times)) for rank in range(processes)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    spans = [times.get() for _ in workers]
    return len(files) / (max(end for _, end in spans) - min(start for start, _ in spans))


def _decode(files: list[str], barrier: Barrier, times: multiprocessing.SimpleQueue[tuple[float, float]]) -> None:
    import simplejpeg
    import torch

    torch.set_num_threads(1)
    contents = [Path(file).read_bytes() for file in files]
    for _ in range(EPOCHS):
        barrier.wait()
        started = time.monotonic()
        for content in contents:
            pixels = simplejpeg.decode_jpeg(content)
            height, width = pixels.shape[:2]
            side = round(min(height, width) * 224 / 256)
            top, left = (height - side) // 2, (width - side) // 2
            middle = torch.from_numpy(pixels[top : top + side, left : left + side]).permute(2, 0, 1)[None]
            torch.nn.functional.interpolate(middle, size=(224, 224), mode="bicubic", antialias=True).float()
    times.put((started, time.monotonic()))
