"""What every part is given: photos, a folder for all that is made, and a way to run tasks in processes of their own."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.processes import REPOSITORY, clean_environment, run
from benchmarks.worker import FIGURES
from dlassets.errors import DlassetsError

PEERS = REPOSITORY / ".venv-peers"


@dataclass(frozen=True)
class Bench:
    """`images` are photos in NNN.class/ folders. `say` tells of progress; `runs` is how often a figure is taken."""

    images: Path
    folder: Path
    runs: int = 3
    peers: bool = True
    cores: int = 2
    say: Callable[[str], None] = field(default=print, compare=False)

    @property
    def without_peers(self) -> str | None:
        """Why no peer can be measured; None where they can."""
        if not self.peers:
            return "left out by --no-peers"
        return None if (PEERS / ".ready").exists() else "not installed here: see `scripts/setup.sh peers`"

    def task(self, module: str, task: str, *, peer: bool = False, **arguments: Any) -> Any:
        """Run the function `task` of `module` in a process of its own, in the peers' environment if it is one's.

        It gets and returns what JSON can say. Raises DlassetsError with what it said where it fails.
        """
        self.say(f"{module.rpartition('.')[2]}: {task}")
        python = PEERS / "bin" / "python" if peer else sys.executable
        command = [str(python), "-m", "benchmarks.worker", module, task, json.dumps(arguments)]
        ran = run(command, clean_environment(OMP_NUM_THREADS=str(self.cores)))
        said = [line for _, line in ran.lines if line.startswith(FIGURES)]
        if not said:
            raise DlassetsError(f"{task} of {module} ended without figures: {ran.lines[-5:]}")
        return json.loads(said[-1].removeprefix(FIGURES))

    def place(self, name: str) -> Path:
        """Return an empty folder."""
        place = self.folder / name
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        return place
