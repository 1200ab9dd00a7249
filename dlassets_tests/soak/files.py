"""`python -m dlassets_tests.soak.files`: random operations and faults for a given time, then a table of what was tried.

It ends at the first mismatch, with the seed and the fewest operations that still lead there.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from random import SystemRandom

from dlassets.engines.base import Engine
from dlassets.engines.local import LocalEngine
from dlassets_tests.soak.operations import Places, Setting, failure, shortest
from dlassets_tests.soak.processes import Processes
from dlassets_tests.soak.world import Tally

OPERATIONS = 60


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    first = SystemRandom().randrange(2**31) if options.seed is None else options.seed
    places = options.only or range(options.operations)
    _say(f"seed {first}")
    ends, seed, tally = time.monotonic() + options.seconds, first, Tally()
    with Processes() as processes, _engines(spark=options.spark) as engines:
        setting = Setting(tally, engines, processes)
        while time.monotonic() < ends:
            if error := failure(setting, seed, places):
                _say("".join(traceback.format_exception(error)))
                _say_tally(tally)
                _say("\nThe same with fewer operations:")
                _explain(Setting(Tally(), engines, processes), seed, places)
                return 1
            seed += 1
            if options.only:
                break
    _say_tally(tally)
    _say(f"no mismatch, seeds {first} to {seed - 1}")
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m dlassets_tests.soak.files", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, help="of the first lake; the next ones count on from it")
    parser.add_argument("--operations", type=int, default=OPERATIONS, help="for each lake")
    parser.add_argument("--only", type=int, nargs="+", metavar="PLACE", help="those operations of one lake alone")
    parser.add_argument("--spark", action="store_true", help="change between both engines; far fewer operations")
    return parser.parse_args(arguments)


def _explain(setting: Setting, seed: int, places: Places) -> None:
    fewest, error = shortest(setting, seed, places)
    if error is None:
        _say(f"It did not happen again: it takes a kill at just that moment. Seed {seed}.")
        return
    _say("".join(traceback.format_exception(error)))
    _say(f"Again: python -m dlassets_tests.soak.files --seed {seed} --only {' '.join(map(str, fewest))}")


@contextmanager
def _engines(*, spark: bool) -> Iterator[tuple[Engine, ...]]:
    if not spark:
        yield (LocalEngine(),)
        return
    from dlassets.engines.spark import SparkEngine
    from dlassets.engines.spark_session import spark_session
    from dlassets.settings import SparkSettings

    session = spark_session(SparkSettings(driver_memory="2g"))
    yield LocalEngine(), SparkEngine(lambda: session)
    session.stop()


def _say_tally(tally: Tally) -> None:
    ingests = sum(number for name, number in tally.operations.items() if name.startswith("ingest"))
    kills = sum(number for name, number in tally.faults.items() if "kill" in name.lower())
    titles = ("operations", "faults injected", "bad files refused, by reason", "rows")
    for title, counts in zip(titles, (tally.operations, tally.faults, tally.reasons, tally.rows), strict=True):
        _say(f"\n{sum(counts.values()):>8,}  {title}")
        for name, number in counts.most_common():
            _say(f"  {number:>8,}  {name}")
    _say(
        f"\n{tally.worlds:,} lakes, {ingests:,} ingests, {kills:,} kills, "
        f"{tally.compared:,} comparisons of all three tables with the model"
    )


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - a program's answer


if __name__ == "__main__":
    sys.exit(main())
