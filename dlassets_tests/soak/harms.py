"""What may happen to a whole lake before and during an act, and what must be seen of it then.

Each harm leaves the lake such that the act, run to its end, must make of it what it makes of one that nothing happened
to. One that finds nothing to harm yet returns False.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from dlassets_tests.soak import deeds
from dlassets_tests.soak.forked import Ended, Forked
from dlassets_tests.soak.story import Act, settings_of, tells_people
from dlassets_tests.soak.world import MismatchError

SIGNALS = (signal.SIGKILL, signal.SIGINT, signal.SIGTERM)
DATABASES = ("mlflow/mlflow.db", "dagster/history/runs.db", "dagster/history/runs/index.db")
TABLES = ("raw_images", "image_profiles", "labeled_images", "image_features", "training_set", "predictions")


@dataclass
class Harmed:
    """One lake that is about to be harmed, and how long the act takes where nothing happens."""

    root: Path
    chance: Random
    act: Act
    seconds: float

    @property
    def log(self) -> Path:
        return self.root.with_suffix(".log")

    def begin(self, work: Callable[..., Any] | None = None, *arguments: Any) -> Forked:
        """Begin the act, or other work."""
        return Forked(work or self.act.work, self.root, *arguments, log=self.log)

    def run(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """Run what must come to its end, and return what it returns."""
        ended = self.begin(work, *arguments).end()
        if not ended.is_well:
            raise MismatchError(f"{work.__name__} ended with {ended}")
        return ended.value

    def must_be_said(self, where: str) -> None:
        """Run the act on what is broken, and then ask the doctor: what is wrong is said in our words."""
        refuse_raw(self.begin().end(), where)
        code, said = self.run(deeds.doctor)
        if code != 1 or where not in said:
            raise MismatchError(f"the doctor did not find what is wrong with {where}: {said}")


def refuse_raw(ended: Ended, where: str) -> None:
    """Raise a MismatchError where something ended with an error that says nothing to people."""
    said = [*ended.value.values()] if ended.is_well else [ended.error] if ended.error else []
    if raw := [text for text in said if not tells_people(text)]:
        raise MismatchError(f"with {where} broken, this was said: {raw}")


# ---- what kills


def killed(lake: Harmed) -> bool:
    for _ in range(lake.chance.randint(1, 3)):
        process = lake.begin()
        time.sleep(lake.chance.uniform(0, lake.seconds))  # where it is then is what this is about
        process.send(lake.chance.choice(SIGNALS))
        process.end()
    return True


def raced(lake: Harmed) -> bool:
    for process in [lake.begin() for _ in range(lake.chance.randint(2, 3))]:
        refuse_raw(process.end(), "nothing")
    return True


def killed_in_restoring(lake: Harmed) -> bool:
    """Write an older version of a table elsewhere, be killed midway, and do it again."""
    if len(commits_of(lake, "raw_images")) < 2:
        return False
    copy = lake.root.with_name("restored") / "tables" / "raw_images"
    process = lake.begin(deeds.restore_first, copy)
    time.sleep(lake.chance.uniform(0, 0.2))
    process.send(signal.SIGKILL)
    process.end()
    is_the_same = lake.run(deeds.restore_first, copy)
    shutil.rmtree(lake.root.with_name("restored"))
    if not is_the_same:
        raise MismatchError("what was restored has other rows")
    return True


# ---- what damages


def bits_flipped(lake: Harmed) -> bool:
    """Flip a bit of some photos: they are named, and put back."""
    if not lake.run(deeds.files_in_force, "raw_images"):
        return False
    unnoticed = lake.run(deeds.flip, lake.chance.randrange(2**31))
    left = lake.run(deeds.put_all_back)
    if unnoticed or left:
        raise MismatchError(f"{unnoticed} were flipped and not noticed, and {left} are damaged still")
    return True


def data_damaged(lake: Harmed) -> bool:
    table = lake.chance.choice(TABLES)
    if not (files := lake.run(deeds.files_in_force, table)):
        return False
    with broken(lake.root / lake.chance.choice(files), lake.chance.choice((cut, emptied, Path.unlink))):
        lake.must_be_said(table)
    return True


def log_damaged(lake: Harmed) -> bool:
    """Damage the last commit of a table, or have the one before it be gone."""
    table, damage = lake.chance.choice(TABLES), lake.chance.choice((cut, emptied, Path.unlink))
    place = -2 if damage is Path.unlink else -1
    commits = commits_of(lake, table)
    if len(commits) < -place or list(lake.root.glob(f"tables/{table}/_delta_log/*.checkpoint.parquet")):
        return False
    with broken(commits[place], damage):
        lake.must_be_said(table)
    return True


def database_damaged(lake: Harmed) -> bool:
    file = lake.root / lake.chance.choice(DATABASES)
    if not file.exists():
        return False
    with broken(file, overwritten):
        lake.must_be_said(file.name)
    return True


def package_edited(lake: Harmed) -> bool:
    """Change one byte of the champion's package: nobody scores with it."""
    if not (files := lake.run(deeds.champion_files)):
        return False
    with broken(lake.root / lake.chance.choice(files), lambda file: change_a_byte(file, lake.chance)):
        refuse_raw(lake.begin().end(), "the champion's package")
        if not lake.run(deeds.champion_is_refused):
            raise MismatchError("an edited package is loaded")
    return True


@contextmanager
def broken(file: Path, damage: Callable[[Path], None]) -> Iterator[None]:
    """Have a file be damaged, and then as it was."""
    content, stat = file.read_bytes(), file.stat()
    damage(file)
    try:
        yield
    finally:
        file.write_bytes(content)
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def cut(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


def emptied(file: Path) -> None:
    file.write_bytes(b"")


def overwritten(file: Path) -> None:
    file.write_bytes(b"no database " * (1 + file.stat().st_size // 12))


def change_a_byte(file: Path, chance: Random) -> None:
    content = bytearray(file.read_bytes())
    content[chance.randrange(len(content))] ^= 1
    file.write_bytes(content)


def commits_of(lake: Harmed, table: str) -> list[Path]:
    return sorted(lake.root.glob(f"tables/{table}/_delta_log/*.json"))


# ---- what asks the wrong store


def cared_for_by_another_store(lake: Harmed) -> bool:
    """Delete all that may be deleted, as another registry has it: what models learned from stays."""
    store, settings = lake.root / "mlflow" / "mlflow.db", settings_of(lake.root)
    if not store.exists():
        return False
    other_name = settings.registry.model_copy(update={"model_name": "another"})
    other_store = settings.mlflow.model_copy(update={"tracking_uri": f"sqlite:///{lake.root.with_suffix('.db')}"})
    if lake.chance.random() < 0.5:
        settings = settings.model_copy(update={"registry": other_name})
    else:
        settings = settings.model_copy(update={"mlflow": other_store})
    lake.run(deeds.care, settings)
    if lost := lake.run(deeds.unreadable):
        raise MismatchError(f"these versions that models need are gone: {lost}")
    return True


HARMS: tuple[Callable[[Harmed], bool], ...] = (
    killed,
    raced,
    killed_in_restoring,
    bits_flipped,
    data_damaged,
    log_damaged,
    database_damaged,
    package_edited,
    cared_for_by_another_store,
)
