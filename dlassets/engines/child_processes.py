"""Processes of Python that this one starts."""

from __future__ import annotations

import os
from pathlib import Path

import dlassets


def python_path() -> str:
    """Return the PYTHONPATH by which such a process imports the package that this one has, wherever that lies."""
    package = str(Path(dlassets.__file__).parent.parent)
    return os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
