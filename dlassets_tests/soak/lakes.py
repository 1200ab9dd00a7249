"""`python -m dlassets_tests.soak.lakes`: whole lakes, stores and all, are harmed at random.

Every lake lives the same story. Before each act something happens to it; in the end it must hold what the lake holds
that nothing happened to. Then its registry is lost: what models learned from stays, and the next one speaks for itself.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random, SystemRandom
from typing import Any

from dlassets_tests.soak import deeds
from dlassets_tests.soak.forked import Ended, done
from dlassets_tests.soak.harms import HARMS, Harmed
from dlassets_tests.soak.story import Act, found_in, story
from dlassets_tests.soak.world import MismatchError


class Sound:
    """The lake that nothing happens to: what each act said and how long it took, and what the lake holds in the end."""

    def __init__(self, folder: Path, acts: Sequence[Act]) -> None:
        self.acts, self.seconds = acts, []
        self.said: list[Ended] = []
        for act in acts:
            began = time.monotonic()
            self.said.append(done(act.work, folder, log=folder.with_suffix(".log")))
            self.seconds.append(time.monotonic() - began)
            assert self.said[-1].is_well, self.said[-1]
        self.holds = _found(folder)


def live(root: Path, sound: Sound, chance: Random, tally: Counter[str]) -> None:
    """Have a lake live its story, harmed before each act. Raises MismatchError where it differs from the sound one."""
    for act, said, seconds in zip(sound.acts, sound.said, sound.seconds, strict=True):
        lake = Harmed(root, chance, act, seconds)
        if act.is_pipeline:
            harm = chance.choice(HARMS)
            _say(f"  {act.name}: {harm.__name__}")
            tally[harm.__name__ if harm(lake) else "nothing to harm yet"] += 1
        if (ended := lake.begin().end()) != said:
            raise MismatchError(f"{act.name} ended with {ended}, and not with {said}")
    _compare(_found(root), sound.holds)
    _lose_registry(Harmed(root, chance, sound.acts[-1], 0), sound, tally)


def _lose_registry(lake: Harmed, sound: Sound, tally: Counter[str]) -> None:
    """Lose MLflow's store, train and score: what was said before stays, and the new version 1 says all of its own."""
    acts = {act.name: act for act in sound.acts}
    before = lake.run(deeds.said_by_package)
    lake.run(deeds.lose_registry)
    for name in ("training", "scoring"):
        if failed := lake.run(acts[name].work):
            raise MismatchError(f"{name} after the registry was lost: {failed}")
    after = lake.run(deeds.said_by_package)
    champion = lake.run(deeds.champion_package)
    if any(after[package] != rows for package, rows in before.items() if package != champion):
        raise MismatchError(f"predictions by package were {before}, and are {after}")
    if broken := {name: count for name, count in lake.run(deeds.broken_rules).items() if count}:
        raise MismatchError(f"after the registry was lost these rules are broken: {broken}")
    tally["registry lost"] += 1


def _found(root: Path) -> dict[str, Any]:
    ended = done(found_in, root, log=root.with_suffix(".log"))
    if not ended.is_well:
        raise MismatchError(f"it cannot be looked at: {ended}")
    holds: dict[str, Any] = ended.value
    return holds


def _compare(holds: dict[str, Any], expected: dict[str, Any]) -> None:
    for name, value in expected.items():
        if holds[name] != value:
            raise MismatchError(f"{name}: {holds[name]} in place of {value}")


def photos_into(folder: Path) -> None:
    from dlassets.samples.generated import generate

    generate(folder, classes=4, per_class=20, seed=7)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m dlassets_tests.soak.lakes", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600, help="no lake is begun after these")
    parser.add_argument("--seed", type=int, help="of the first lake; the next ones count on from it")
    parser.add_argument("--acts", type=int, help="the first acts of the story alone")
    options = parser.parse_args(arguments)
    first = SystemRandom().randrange(2**31) if options.seed is None else options.seed
    folder, tally, lakes = Path(tempfile.mkdtemp(prefix="dlassets-lakes-")), Counter[str](), 0
    _import()
    ends = time.monotonic() + options.seconds
    assert done(photos_into, folder / "photos").is_well
    sound = Sound(folder / "sound", story(folder / "photos")[: options.acts])
    _say(f"nothing happened to the sound lake for {sum(sound.seconds):.0f} s")
    while lakes == 0 or time.monotonic() < ends:
        seed, root = first + lakes, folder / f"lake-{first + lakes}"
        _say(f"seed {seed}")
        try:
            live(root, sound, Random(seed), tally)
        except MismatchError as error:
            _say(f"{error}\nAgain: --seed {seed} --seconds 0. What it said is in {root.with_suffix('.log')}")
            return 1
        shutil.rmtree(root)
        lakes += 1
    shutil.rmtree(folder)
    _say("\n".join(f"{number:>6,}  {name}" for name, number in tally.most_common()))
    _say(f"no mismatch in {lakes} lakes, seeds {first} to {first + lakes - 1}")
    return 0


def _import() -> None:
    """Import what every act needs."""
    import torch  # noqa: F401

    import dlassets.definitions  # noqa: F401


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - a program's answer


if __name__ == "__main__":
    sys.exit(main())
