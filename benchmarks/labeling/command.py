"""What asking people costs: the parts that `make bench-labeling` measures."""

from __future__ import annotations

from benchmarks.labeling import label_studio
from benchmarks.part_command import Parts, part_command

PARTS: Parts = {"label-studio": label_studio.measure}

main = part_command("labeling", PARTS, "Measure labelling (all PARTs by default), with real servers on this machine.")
