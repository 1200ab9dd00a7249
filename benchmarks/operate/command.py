"""What running a lake costs: the parts that `make bench-operate` measures."""

from __future__ import annotations

from benchmarks.operate import days, launch, looks, places, starts
from benchmarks.part_command import Parts, part_command

PARTS: Parts = {
    "launch": launch.measure,
    "looks": looks.measure,
    "starts": starts.measure,
    "days": days.measure,
    "places": places.measure,
}

main = part_command(
    "operate", PARTS, "Measure running a lake (all PARTs by default), with real servers on this machine."
)
