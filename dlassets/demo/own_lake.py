"""A demo's lake holds one set of photos: which lake a set has, and that no other set comes into it."""

from __future__ import annotations

import hashlib
import os
import shlex
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from dlassets.lakehouse.snapshots import newest, row_count
from dlassets.lakehouse.tables import RAW_IMAGES
from dlassets.samples.one_set import files_in, filled_from
from dlassets.samples.sets import GENERATED, set_of, short_name
from dlassets.settings import JUNK, Settings
from dlassets.storage.cache import cache_path
from dlassets.storage.files import files_under
from dlassets.storage.junk import Junk
from dlassets.storage.lake import Lake, is_local, local_path

ROOT_VARIABLE = "DLASSETS_ROOT"
IMAGES, GIVEN = "images", "given"


def with_own_lake(settings: Settings, source: str, environment: Mapping[str, str] | None = None) -> Settings:
    """Return the settings with the lake that a set has: the one they name, or `<root>-<name of the set>`.

    Where the root is nobody's choice, generated samples have it, and every other set one beside it.
    """
    environment = os.environ if environment is None else environment
    is_chosen = bool(environment.get(ROOT_VARIABLE)) or settings.root != Settings.model_fields["root"].default
    if is_chosen or source == GENERATED:
        return settings
    return settings.model_copy(update={"root": f"{settings.root}-{short_name(source)}"})


def demo_images(lake: Lake, name: str) -> Path:
    """Return where the demo makes or unpacks its photos before they arrive: in the lake; of one that is no folder, in
    this machine's cache.
    """
    if is_local(lake.root):
        return local_path(lake.under("demo", name))
    return cache_path("demo", hashlib.sha256(lake.root.encode()).hexdigest()[:16], name)


def taken_by(settings: Settings, source: str) -> AbstractContextManager[None]:
    """Have the settings' lake be that of a set. Raises DlassetsError where it holds any other photos."""
    lake = Lake.at(settings.root)
    # Of an earlier version: it wrote nothing down, and drew its samples here.
    is_earlier = source == GENERATED and demo_images(lake, IMAGES).is_dir()
    return filled_from(
        set_of(source),
        f"The lake at {lake.root}",
        lake.under("demo", "set.txt"),
        lambda: not is_earlier and _has_photos(lake, settings),
        f"Give it a lake of its own: {_command(lake, source)}",
    )


def _command(lake: Lake, source: str) -> str:
    root = f"{lake.root}-{short_name(source)}"
    images = "" if source == GENERATED else f" --images {shlex.quote(source)}"
    return f"{ROOT_VARIABLE}={shlex.quote(root)} {shlex.quote(program())} demo{images}"


def program() -> str:
    """Return the path of the command `dlassets` of this environment."""
    return str(Path(sys.executable).parent / "dlassets")


def _has_photos(lake: Lake, settings: Settings) -> bool:
    zones = [lake.zone(zone.uri) for zone in settings.landing.values()]
    made = [demo_images(lake, name) for name in (IMAGES, GIVEN)] if is_local(lake.root) else []
    return any(map(_any_photo, zones)) or any(any(files_in(folder)) for folder in made) or _has_taken_in(lake)


def _any_photo(zone: str) -> bool:
    if is_local(zone):
        return any(files_in(local_path(zone)))
    return not all(map(Junk(JUNK).holds, files_under(zone)))


def _has_taken_in(lake: Lake) -> bool:
    images = newest(lake, RAW_IMAGES.name)
    return images is not None and row_count(images) > 0
