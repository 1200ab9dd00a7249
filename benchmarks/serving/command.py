"""What a model's use costs: the parts that `make bench-serving` measures."""

from __future__ import annotations

from benchmarks.part_command import Parts, part_command
from benchmarks.serving import arrival, batch, edge, moving, rescore, rest

PARTS: Parts = {
    "rest": rest.measure,
    "moving": moving.measure,
    "batch": batch.measure,
    "rescore": rescore.measure,
    "edge": edge.measure,
    "arrival": arrival.measure,
}

main = part_command(
    "serving",
    PARTS,
    "Measure serving and scoring (all PARTs by default), beside its peers on the same photos and cores.",
)
