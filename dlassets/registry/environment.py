"""What a training ran with, beside data and settings: code, locked packages, machine. Written down with each run."""

from __future__ import annotations

import functools
import hashlib
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

from dlassets.engines.processors import processors
from dlassets.lakehouse.provenance import code_version

LOCK = Path(__file__).resolve().parents[2] / "requirements.lock"


def environment() -> dict[str, Any]:
    """Return code version (with git's commit, and whether it is dirty), the lock's digest, and the machine.

    The machine is its processor, the cores this process may use, memory in GiB, and the names of the GPUs.
    """
    import psutil
    import torch

    return {
        "code_version": code_version(),
        "lock_sha256": lock_sha256(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": processor(),
        "cores": processors(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "gpus": [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())],
    }


def lock_sha256() -> str:
    """Return the digest of the checkout's requirements.lock; of an installed package, which has none, that word."""
    return hashlib.sha256(LOCK.read_bytes()).hexdigest() if LOCK.is_file() else "none"


@functools.cache
def processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def installed() -> list[str]:
    """Return every installed package with its version, as pip names them."""
    return sorted({f"{d.metadata['Name']}=={d.version}" for d in metadata.distributions()}, key=str.lower)
