"""How long the code location takes to load, beside `import dagster` alone and beside what is kept out of it."""

from __future__ import annotations

import json
import statistics
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass

from rich.table import Table as Grid

from benchmarks.processes import REPOSITORY, clean_environment, run

GOAL = 1.5

DAGSTER, LOCATION, EAGER = "import dagster", "the code location, its jobs resolved", "dagster, mlflow and torch"
STATEMENTS: Mapping[str, str] = {
    DAGSTER: "import dagster",
    LOCATION: "import dlassets.definitions as d; d.defs.resolve_all_job_defs()",
    # What a location pays that imports these at the top of its modules.
    EAGER: "import dagster, dagster_mlflow, torch",
}
_PROGRAM = """
import json, sys, time
wall, cpu = time.perf_counter(), time.process_time()
{statement}
wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
print(json.dumps({{"wall_s": wall, "cpu_s": cpu, "heavy": [name for name in {heavy} if name in sys.modules]}}))
"""


@dataclass(frozen=True)
class Import:
    """Medians over fresh processes, and the heavy packages that were imported."""

    what: str
    processes: int
    wall_s: float
    cpu_s: float
    heavy: list[str]


@dataclass(frozen=True)
class Loading:
    imports: list[Import]

    def ratio(self, one: Import) -> float:
        """How many times as long as `import dagster` alone."""
        return one.wall_s / self.imports[0].wall_s

    def cpu_ratio(self, one: Import) -> float:
        return one.cpu_s / self.imports[0].cpu_s

    def tables(self) -> list[Grid]:
        grid = Grid(
            "in a fresh process", "processes", "median", "CPU", "ratio", "CPU ratio", "goal", "heavy packages imported",
            title="Loading the code location", title_justify="left",
        )  # fmt: skip
        for one in self.imports:
            grid.add_row(
                one.what,
                str(one.processes),
                f"{one.wall_s:.2f} s",
                f"{one.cpu_s:.2f} s",
                f"{self.ratio(one):.2f}",
                f"{self.cpu_ratio(one):.2f}",
                f"≤{GOAL}, none heavy" if one.what == LOCATION else "",
                ", ".join(one.heavy) or "none",
            )
        return [grid]


def measure(processes: int, statements: Mapping[str, str] = STATEMENTS) -> Loading:
    """Import each in `processes` fresh processes, in turn, so that a busy minute hits them alike."""
    heavy = heavy_packages()
    taken: dict[str, list[dict[str, float]]] = {name: [] for name in statements}
    imported: dict[str, list[str]] = {}
    for turn in range(processes):
        for name, statement in statements.items():
            if name == EAGER and turn:
                continue  # several times as long as both others, and once says that
            ran = run([sys.executable, "-c", _PROGRAM.format(statement=statement, heavy=heavy)], clean_environment())
            said = json.loads(ran.lines[-1][1])
            imported[name] = said.pop("heavy")
            taken[name].append(said)
    return Loading(
        [
            Import(
                name,
                len(times),
                statistics.median(time["wall_s"] for time in times),
                statistics.median(time["cpu_s"] for time in times),
                imported[name],
            )
            for name, times in taken.items()
        ]
    )


def heavy_packages() -> list[str]:
    """Return the packages that no module may import at its top, from where the linter reads them."""
    lint = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["ruff"]["lint"]
    return sorted(lint["flake8-tidy-imports"]["banned-module-level-imports"])
