"""The random operations, and a sequence of them that goes wrong made as short as can be.

The operation at each place of a sequence is a function of the seed, the place and how the world stands, so a sequence
is a seed and its places, and any of them can be left out.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from random import Random
from typing import Any

from dlassets.engines.base import Engine
from dlassets.engines.local import LocalEngine
from dlassets_tests.soak.contents import bad, good
from dlassets_tests.soak.faults import DRIVER_STEPS, STEPS
from dlassets_tests.soak.model import ZONES
from dlassets_tests.soak.processes import Processes
from dlassets_tests.soak.world import DAMAGES, PATHS, Tally, World

Places = Sequence[int]
Operation = Callable[[World, Random], None]

# Of a hundred operations so many are of each kind.
FILES, EVENTS, SETTINGS, LOSSES, INGESTS, KILLS = 40, 12, 8, 5, 15, 20


def write_good(world: World, random: Random) -> None:
    for _ in range(random.randint(1, 4)):
        world.write(random.choice(PATHS), random.choice(good()))


def write_bad(world: World, random: Random) -> None:
    world.write(random.choice(PATHS), random.choice(bad()))


def write_unreadable(world: World, random: Random) -> None:
    # Modes are made to hold for the superuser in this process, and in none of Spark's.
    world.write(random.choice(PATHS), random.choice(good()), readable=world.has_spark)


def overwrite(world: World, random: Random) -> None:
    if world.paths:
        world.write(random.choice(world.paths), random.choice(random.choice((good(), bad()))))


def delete(world: World, random: Random) -> None:
    for path in random.sample(world.paths, min(len(world.paths), random.randint(1, 3))):
        world.delete(path)


def restore(world: World, random: Random) -> None:
    if world.restorable:
        world.restore(random.choice(world.restorable))


def move_folder(world: World, random: Random, path: str) -> None:
    world.move_folder(str(PurePath(path).parent), str(PurePath(random.choice(PATHS)).parent))


def note_events(world: World, random: Random) -> None:
    never_were = [random.choice(PATHS) for _ in range(random.randrange(2))]
    world.tell(random.choice((0, 0, 0, 2, 3)), *never_were)


def produce(world: World, random: Random) -> None:
    for path in random.sample(world.paths, min(len(world.paths), 2)) * random.randint(1, 2):
        world.produce(path, random.randrange(4))


def change_settings(world: World, random: Random) -> None:
    choices: list[tuple[str, list[Any]]] = [
        ("events", [world.model.options.events ^ {zone} for zone in ZONES]),
        ("storage", ["table", "files", "landing"]),
        ("max_file_bytes", [300, 1000, 100 * 2**20]),
        ("files_per_batch", [1, 3, 1000]),
        ("pattern", ["", r"\.jpg$", r"^[^%]*$"]),
        ("capture", [(), ("camera",), ("taken_at", "latitude")]),
    ]
    name, values = random.choice(choices)
    world.set(**{name: random.choice(values)})


def ingest_by_sensors(world: World, random: Random) -> None:
    path = random.choice(world.paths if world.paths and random.random() < 0.8 else PATHS)
    world.ingest_by_sensors(random.choice((None, "written", "deleted")), path, random.choice((*good(), *bad())))


def ingest(world: World, random: Random) -> None:
    for _ in range(random.randint(1, 2)):
        world.ingest()


def ingest_while_files_change(world: World, random: Random) -> None:
    if isinstance(world.engine, LocalEngine):
        write_good(world, random)
        path = random.choice(world.paths if random.random() < 0.8 else PATHS)
        change, content = random.choice(("written", "deleted")), random.choice((*good(), *bad()))
        world.ingest_while_files_change(random.randint(1, 3), change, path, content)


def ingest_killed(world: World, random: Random) -> None:
    something_to_do(world, random)
    steps = STEPS if isinstance(world.engine, LocalEngine) else DRIVER_STEPS
    world.ingest_killed(random.choice(steps), _times(random))


def ingest_sigkilled(world: World, random: Random) -> None:
    if world.processes:
        something_to_do(world, random)
        world.ingest_sigkilled(random.choice(STEPS), _times(random), random.uniform(0, 0.03))


def ingest_sigkilled_at_any_moment(world: World, random: Random) -> None:
    for _ in range(random.randint(1, 3) if world.processes else 0):
        something_to_do(world, random)
        world.ingest_sigkilled(seconds=random.uniform(0, 0.5))


def ingest_twice_in_processes(world: World, random: Random) -> None:
    if world.processes:
        something_to_do(world, random)
        world.ingest_twice_in_processes(random.choice((None, *STEPS)), _times(random))


def something_to_do(world: World, random: Random) -> None:
    """Do what makes an ingest write all three tables, most of the time."""
    for do in (write_good, write_bad, overwrite, delete):
        do(world, random)
    if random.random() < 0.7:
        world.tell()


def _times(random: Random) -> int:
    return random.choice((1, 1, 1, 1, 2, 3))


def _of_a_file(do: Callable[[World, Random, str], None]) -> Operation:
    """Return the operation of doing this with any file; with none, it does nothing."""
    return lambda world, random: do(world, random, random.choice(world.paths)) if world.paths else None


# Each operation, by how often of a hundred.
_OPERATIONS: tuple[tuple[float, Operation], ...] = (
    (FILES * 0.2, write_good),
    (FILES * 0.1, write_bad),
    (FILES * 0.05, write_unreadable),
    (FILES * 0.15, overwrite),
    (FILES * 0.05, _of_a_file(lambda world, random, p: world.overwrite_by_as_many_bytes(p, random.randrange(3)))),
    (FILES * 0.05, _of_a_file(lambda world, random, p: world.overwrite_at_the_same_time(p, random.choice(good())))),
    (FILES * 0.05, _of_a_file(lambda world, _, path: world.touch(path))),
    (FILES * 0.1, delete),
    (FILES * 0.1, restore),
    (FILES * 0.05, _of_a_file(lambda world, random, path: world.rename(path, random.choice(PATHS)))),
    (FILES * 0.025, _of_a_file(lambda world, random, path: world.swap(path, random.choice(world.paths)))),
    (
        FILES * 0.05,
        _of_a_file(lambda world, random, path: world.duplicate(path, random.choice(PATHS), random.random() < 0.5)),
    ),
    (FILES * 0.025, _of_a_file(move_folder)),
    (EVENTS * 0.6, note_events),
    (EVENTS * 0.1, produce),
    (EVENTS * 0.1, lambda world, random: world.produce_half(random.choice(world.paths or PATHS))),
    (EVENTS * 0.1, lambda world, random: world.produce_garbage(random.choice(list(ZONES)), random.randrange(10))),
    (EVENTS * 0.05, lambda world, random: world.lose_events(random.choice(list(ZONES)))),
    (EVENTS * 0.05, lambda world, random: world.tidy_events(random.choice(list(ZONES)))),
    (SETTINGS * 1, change_settings),
    (SETTINGS * 0.5, lambda world, random: world.use(random.choice(world.engines))),
    (LOSSES * 0.5, lambda world, random: world.lose_checkpoint(random.choice((*ZONES, None)))),
    (LOSSES * 0.5, lambda world, random: world.damage_state(random.choice(list(ZONES)), random.choice(list(DAMAGES)))),
    (INGESTS * 0.2, ingest_by_sensors),
    (INGESTS * 0.2, ingest),
    (INGESTS * 0.2, lambda world, _: world.ingest_twice_at_once()),
    (INGESTS * 0.2, ingest_while_files_change),
    (INGESTS * 0.1, lambda world, _: world.maintain()),
    (INGESTS * 0.1, lambda world, _: world.maintain_meanwhile()),
    (KILLS * 0.5, ingest_killed),
    (KILLS * 0.2, ingest_sigkilled),
    (KILLS * 0.2, ingest_sigkilled_at_any_moment),
    (KILLS * 0.1, ingest_twice_in_processes),
)


# --- sequences --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Setting:
    """What all worlds of a run share."""

    tally: Tally
    engines: Sequence[Engine] = (LocalEngine(),)
    processes: Processes | None = None

    @contextmanager
    def world(self) -> Iterator[World]:
        root = tempfile.mkdtemp(prefix="dlassets-soak-")
        try:
            yield World(Path(root), self.tally, self.engines, self.processes)
        finally:
            shutil.rmtree(root)


def run(setting: Setting, seed: int, places: Places) -> None:
    """Run a sequence on a lake of its own, of which either, both or no zone is read by its events, and an ingest."""
    with setting.world() as world:
        by_events = Random(str(seed))
        world.set(events=frozenset(zone for zone in ZONES if by_events.random() < 0.5))
        for place in places:
            random = Random(f"{seed} {place}")
            ((_, do),) = random.choices(_OPERATIONS, [share for share, _ in _OPERATIONS])
            do(world, random)
        world.ingest()


def failure(setting: Setting, seed: int, places: Places) -> Exception | None:
    try:
        run(setting, seed, places)
    except Exception as error:  # noqa: BLE001 - an ingest that fails is what is looked for, too
        return error
    return None


def shortest(setting: Setting, seed: int, places: Places, seconds: float = 300) -> tuple[Places, Exception | None]:
    """Return the fewest places of a sequence that are found, in so much time, to go wrong still, and how.

    None where the sequence does not, run once more.
    """
    ends = time.monotonic() + seconds

    error, size = failure(setting, seed, places), len(places)
    while error is not None and size > 1:
        size = (size + 1) // 2
        start = 0
        while start < len(places) and time.monotonic() < ends:
            without = [*places[:start], *places[start + size :]]
            if found := failure(setting, seed, without):
                places, error = without, found
            else:
                start += size
    return places, error
