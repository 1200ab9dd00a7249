"""What training costs and yields: the parts that `make bench-training` measures."""

from __future__ import annotations

from benchmarks.part_command import Parts, part_command
from benchmarks.training import accuracy, embedding, head, heads, loader, retrain, scaling

PARTS: Parts = {
    "loader": loader.measure,
    "scaling": scaling.measure,
    "embedding": embedding.measure,
    "accuracy": accuracy.measure,
    "retrain": retrain.measure,
    "head": head.measure,
    "heads": heads.measure,
}

main = part_command(
    "training", PARTS, "Measure training (all PARTs by default), beside its peers on the same photos and cores."
)
