"""The limit: processes that decode photos lying in memory, resize them and keep nothing else."""

from __future__ import annotations

import multiprocessing
import time
from multiprocessing.synchronize import Barrier
from pathlib import Path

EPOCHS = 2


def loop(images: str, workers: int) -> dict[str, float]:
    """Return what the second epoch took: from when all processes begin it to when the last has ended it."""
    files = sorted(map(str, Path(images).glob("*/*.jp*g")))
    context = multiprocessing.get_context("spawn")
    barrier, times = context.Barrier(workers), context.SimpleQueue()
    processes = [
        context.Process(target=_decode, args=(files[rank::workers], barrier, times)) for rank in range(workers)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    begins, ends, cpu = zip(*(times.get() for _ in processes), strict=True)
    return {"images": len(files), "wall_s": max(ends) - min(begins), "cpu_s": sum(cpu)}


def _decode(files: list[str], barrier: Barrier, times: multiprocessing.SimpleQueue[tuple[float, float, float]]) -> None:
    import simplejpeg
    import torch

    torch.set_num_threads(1)
    contents = [Path(file).read_bytes() for file in files]
    for _ in range(EPOCHS):
        barrier.wait()
        started, cpu = time.monotonic(), time.process_time()
        for content in contents:
            pixels = simplejpeg.decode_jpeg(content)
            height, width = pixels.shape[:2]
            side = round(min(height, width) * 224 / 256)
            top, left = (height - side) // 2, (width - side) // 2
            middle = torch.from_numpy(pixels[top : top + side, left : left + side]).permute(2, 0, 1)[None]
            torch.nn.functional.interpolate(middle, size=(224, 224), mode="bicubic", antialias=True).float()
    times.put((started, time.monotonic(), time.process_time() - cpu))
