"""The `dlassets` command: what Dagster has no word for. Exit code 0: done; 1: a step failed; 2: used wrongly."""

from __future__ import annotations

from dlassets.cli.group import main
from dlassets.cli.loop import demo, dev, samples

for command in (demo, samples, dev):
    main.add_command(command)

__all__ = ["main"]
