"""The processes that train one model together, and this one's place among them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

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
