"""A few rounds of what `make soak-stores` does for half an hour."""

import sys

import pytest

from dlassets_tests.programs import dlassets


@pytest.mark.slow
def test_stores_that_are_killed_while_they_are_made_or_made_by_several_are_of_use() -> None:
    rounds = ("--kills", "6", "--openers", "2", "--seed", "1")
    done = dlassets(*rounds, command=(sys.executable, "-m", "dlassets_tests.soak.stores"))

    assert done.returncode == 0, done.stderr
    assert done.stdout == "0 of 6 kills, 0 of 2 openings at once broke it\n"
