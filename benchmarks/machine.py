"""The machine a figure was measured on. A figure without it says little, and under other load it says less."""

from __future__ import annotations

import importlib.util
import os
import platform
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from rich.table import Table as Grid

from dlassets.engines.processors import processors

_SHOWN = ("dagster", "deltalake", "duckdb", "pyarrow", "openvino", "torch", "mlflow", "pyspark", "scikit-learn")

_NOT_COMPILED = "not kept: each process compiles what it imports, which takes seconds (see PYTHONDONTWRITEBYTECODE)"


@dataclass(frozen=True)
class Machine:
    """`memory_gib` is what is there; `load` is the load average of the last 1, 5 and 15 minutes.

    `compiled` is whether the installed packages lie there as bytecode; else each process compiles all it imports anew.
    """

    cores: int
    processor: str
    memory_gib: float
    system: str
    load: tuple[float, float, float]
    python: str
    compiled: bool
    dlassets: str
    versions: dict[str, str]

    @classmethod
    def here(cls) -> Machine:
        from dlassets.lakehouse.provenance import code_version
        from dlassets.registry.environment import processor

        return cls(
            cores=processors(),
            processor=processor(),
            memory_gib=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
            system=f"{platform.system()} {platform.release()}",
            load=load(),
            python=platform.python_version(),
            compiled=_is_compiled("dagster"),
            dlassets=code_version(),
            versions={name: metadata.version(name) for name in _SHOWN},
        )

    @property
    def is_busy(self) -> bool:
        """Whether others use so much of it that times are not worth keeping."""
        return self.load[0] > self.cores / 4

    def tables(self) -> list[Grid]:
        busy = "  [yellow]others are using it: times are longer than they should be[/yellow]" if self.is_busy else ""
        grid = Grid("machine", "", title="Measured on", title_justify="left")
        grid.add_row("processor", f"{self.processor}, {self.cores} cores, {self.memory_gib} GiB of memory")
        grid.add_row("system", f"{self.system}, Python {self.python}")
        grid.add_row("bytecode", "compiled" if self.compiled else f"[yellow]{_NOT_COMPILED}[/yellow]")
        grid.add_row("load average", " ".join(f"{value:.2f}" for value in self.load) + busy)
        grid.add_row("dlassets", self.dlassets)
        grid.add_row("with", ", ".join(f"{name} {version}" for name, version in self.versions.items()))
        return [grid]


def load() -> tuple[float, float, float]:
    one, five, fifteen = os.getloadavg()
    return round(one, 2), round(five, 2), round(fifteen, 2)


def _is_compiled(package: str) -> bool:
    found = importlib.util.find_spec(package)
    return bool(found and found.cached and Path(found.cached).exists())
