"""`python -m benchmarks.worker MODULE TASK ARGUMENTS`: one task in a process of its own, its figures as JSON.

A task is a function of a module of these packages: it gets everything ready (imports, files), and measures from
then on.
"""

from __future__ import annotations

import importlib
import json
import os
import sys

FIGURES = "figures: "


def main(module: str, task: str, arguments: str) -> None:
    figures = getattr(importlib.import_module(module), task)(**json.loads(arguments))
    print(FIGURES + json.dumps(figures), flush=True)
    os._exit(0)  # what a peer leaves running must not keep the next one waiting


if __name__ == "__main__":
    main(*sys.argv[1:])
