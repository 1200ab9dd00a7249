"""The processes that train one model together, and this one's place among them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dlassets.errors import DlassetsError
from dlassets.settings import ComputeSettings

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Group:
    """`rank` of `size` processes, computing on `device`. Rank 0 alone logs and writes."""

    rank: int = 0
    size: int = 1
    device: str = "cpu"

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the sum of what all processes have, to each of them; every one must call it."""
        if self.size > 1:
            import torch.distributed

            tensor = tensor.clone()
            torch.distributed.all_reduce(tensor)
        return tensor

    def broadcast(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return what rank 0 has, to each process: what all must decide alike is decided on this."""
        if self.size > 1:
            import torch.distributed

            tensor = tensor.clone()
            torch.distributed.broadcast(tensor, src=0)
        return tensor

    def gather(self, value: Any) -> list[Any]:
        """Return what each process has, by rank: small values that JSON holds (torch's own way would pickle them)."""
        import torch

        said = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8).to(self.device)
        lengths = torch.zeros(self.size, dtype=torch.int64, device=self.device)
        lengths[self.rank] = len(said)
        lengths = self.sum(lengths)
        texts = torch.zeros(self.size, int(lengths.max()), dtype=torch.uint8, device=self.device)
        texts[self.rank, : len(said)] = said
        return [
            json.loads(bytes(text[:length].tolist()))
            for text, length in zip(self.sum(texts), lengths.tolist(), strict=True)
        ]


ALONE = Group()


def device_of(compute: ComputeSettings, local_rank: int = 0, local_size: int = 1) -> str:
    """Return the device of the process that is `local_rank` of `local_size` on its machine: cpu or cuda:N.

    `auto` is a GPU where each process of the machine has one of its own. Raises DlassetsError where GPUs are asked for
    and are not there.
    """
    if compute.device == "cpu":
        return "cpu"
    import torch

    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if found >= local_size:
        return f"cuda:{local_rank}"
    if compute.device == "auto":
        return "cpu"
    raise DlassetsError(
        f"training.compute.device is cuda, and torch finds {found} GPUs here for {local_size} processes. Set it to "
        "auto or cpu, lower training.compute.processes, or install a driver and a torch built for the GPU."
    )
