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

_operations: dict[Operation, float] = {}


def _of(kind: int, share: float = 1) -> Callable[[Operation], Operation]:
    def note(operation: Operation) -> Operation:
        _operations[operation] = kind * share
        return operation

    return note


# --- files ------------------------------------------------------------------------------------------------------------


@_of(FILES, 0.2)
def write_good(world: World, random: Random) -> None:
    for _ in range(random.randint(1, 4)):
        world.write(random.choice(PATHS), random.choice(good()))


@_of(FILES, 0.1)
def write_bad(world: World, random: Random) -> None:
    world.write(random.choice(PATHS), random.choice(bad()))


@_of(FILES, 0.05)
def write_unreadable(world: World, random: Random) -> None:
    # Modes are made to hold for the superuser in this process, and in none of Spark's.
    world.write(random.choice(PATHS), random.choice(good()), readable=world.has_spark)


@_of(FILES, 0.15)
def overwrite(world: World, random: Random) -> None:
    if world.paths:
        world.write(random.choice(world.paths), random.choice(random.choice((good(), bad()))))


@_of(FILES, 0.05)
def overwrite_by_as_many_bytes(world: World, random: Random) -> None:
    if world.paths:
        world.overwrite_by_as_many_bytes(random.choice(world.paths), random.randrange(3))


@_of(FILES, 0.05)
def overwrite_at_the_same_time(world: World, random: Random) -> None:
    if world.paths:
        world.overwrite_at_the_same_time(random.choice(world.paths), random.choice(good()))


@_of(FILES, 0.05)
def touch(world: World, random: Random) -> None:
    if world.paths:
        world.touch(random.choice(world.paths))


@_of(FILES, 0.1)
def delete(world: World, random: Random) -> None:
    for path in random.sample(world.paths, min(len(world.paths), random.randint(1, 3))):
        world.delete(path)


@_of(FILES, 0.1)
def restore(world: World, random: Random) -> None:
    if world.restorable:
        world.restore(random.choice(world.restorable))


@_of(FILES, 0.05)
def rename(world: World, random: Random) -> None:
    if world.paths:
        world.rename(random.choice(world.paths), random.choice(PATHS))


@_of(FILES, 0.025)
def swap(world: World, random: Random) -> None:
    if world.paths:
        world.swap(random.choice(world.paths), random.choice(world.paths))


@_of(FILES, 0.05)
def duplicate(world: World, random: Random) -> None:
    if world.paths:
        world.duplicate(random.choice(world.paths), random.choice(PATHS), same_time=random.random() < 0.5)


@_of(FILES, 0.025)
def move_folder(world: World, random: Random) -> None:
    if world.paths:
        world.move_folder(str(PurePath(random.choice(world.paths)).parent), str(PurePath(random.choice(PATHS)).parent))


# --- events -----------------------------------------------------------------------------------------------------------


@_of(EVENTS, 0.6)
def note_events(world: World, random: Random) -> None:
    never_were = [random.choice(PATHS) for _ in range(random.randrange(2))]
    world.tell(random.choice((0, 0, 0, 2, 3)), *never_were)


@_of(EVENTS, 0.1)
def produce(world: World, random: Random) -> None:
    for path in random.sample(world.paths, min(len(world.paths), 2)) * random.randint(1, 2):
        world.produce(path, random.randrange(4))


@_of(EVENTS, 0.1)
def produce_half(world: World, random: Random) -> None:
    world.produce_half(random.choice(world.paths or PATHS))


@_of(EVENTS, 0.1)
def produce_garbage(world: World, random: Random) -> None:
    world.produce_garbage(random.choice(list(ZONES)), random.randrange(10))


@_of(EVENTS, 0.05)
def lose_events(world: World, random: Random) -> None:
    world.lose_events(random.choice(list(ZONES)))


@_of(EVENTS, 0.05)
def tidy_events(world: World, random: Random) -> None:
    world.tidy_events(random.choice(list(ZONES)))


# --- settings ---------------------------------------------------------------------------------------------------------


@_of(SETTINGS)
def change_settings(world: World, random: Random) -> None:
    name, values = random.choice(
        [
            ("events", [world.model.options.events ^ {zone} for zone in ZONES]),
            ("storage", ["table", "files", "landing"]),
            ("max_file_bytes", [300, 1000, 100 * 2**20]),
            ("files_per_batch", [1, 3, 1000]),
            ("pattern", ["", r"\.jpg$", r"^[^%]*$"]),
            ("capture", [(), ("camera",), ("taken_at", "latitude")]),
        ]
    )
    world.set(**{name: random.choice(values)})


@_of(SETTINGS, 0.5)
def change_engine(world: World, random: Random) -> None:
    world.use(random.choice(world.engines))


# --- what is noted beside the tables ----------------------------------------------------------------------------------


@_of(LOSSES, 0.5)
def lose_checkpoint(world: World, random: Random) -> None:
    world.lose_checkpoint(random.choice((*ZONES, None)))


@_of(LOSSES, 0.5)
def damage_state(world: World, random: Random) -> None:
    world.damage_state(random.choice(list(ZONES)), random.choice(list(DAMAGES)))


# --- ingests ----------------------------------------------------------------------------------------------------------


@_of(INGESTS, 0.2)
def ingest_by_sensors(world: World, random: Random) -> None:
    path = random.choice(world.paths if world.paths and random.random() < 0.8 else PATHS)
    world.ingest_by_sensors(random.choice((None, "written", "deleted")), path, random.choice((*good(), *bad())))


@_of(INGESTS, 0.2)
def ingest(world: World, random: Random) -> None:
    for _ in range(random.randint(1, 2)):
        world.ingest()


@_of(INGESTS, 0.2)
def ingest_twice_at_once(world: World, _: Random) -> None:
    world.ingest_twice_at_once()


@_of(INGESTS, 0.2)
def ingest_while_files_change(world: World, random: Random) -> None:
    if isinstance(world.engine, LocalEngine):
        write_good(world, random)
        path = random.choice(world.paths if random.random() < 0.8 else PATHS)
        change, content = random.choice(("written", "deleted")), random.choice((*good(), *bad()))
        world.ingest_while_files_change(random.randint(1, 3), change, path, content)


@_of(INGESTS, 0.1)
def maintain(world: World, _: Random) -> None:
    world.maintain()


@_of(INGESTS, 0.1)
def maintain_meanwhile(world: World, _: Random) -> None:
    world.maintain_meanwhile()


@_of(KILLS, 0.5)
def ingest_killed(world: World, random: Random) -> None:
    something_to_do(world, random)
    steps = STEPS if isinstance(world.engine, LocalEngine) else DRIVER_STEPS
    world.ingest_killed(random.choice(steps), _times(random))


@_of(KILLS, 0.2)
def ingest_sigkilled(world: World, random: Random) -> None:
    if world.processes:
        something_to_do(world, random)
        world.ingest_sigkilled(random.choice(STEPS), _times(random), random.uniform(0, 0.03))


@_of(KILLS, 0.2)
def ingest_sigkilled_at_any_moment(world: World, random: Random) -> None:
    for _ in range(random.randint(1, 3) if world.processes else 0):
        something_to_do(world, random)
        world.ingest_sigkilled(seconds=random.uniform(0, 0.5))


@_of(KILLS, 0.1)
def ingest_twice_in_processes(world: World, random: Random) -> None:
    if world.processes:
        something_to_do(world, random)
        world.ingest_twice_in_processes(random.choice((None, *STEPS)), _times(random))


def something_to_do(world: World, random: Random) -> None:
    """Do what makes an ingest write all three tables, most of the time."""
    write_good(world, random)
    write_bad(world, random)
    overwrite(world, random)
    delete(world, random)
    if random.random() < 0.7:
        world.tell()


def _times(random: Random) -> int:
    return random.choice((1, 1, 1, 1, 2, 3))


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
            (operation,) = random.choices(list(_operations), list(_operations.values()))
            operation(world, random)
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
