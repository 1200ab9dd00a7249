"""A few acts of what `make soak MODE=lakes` does to whole lakes."""

import sys

import pytest

from dlassets_tests.programs import dlassets


@pytest.mark.slow
def test_a_lake_that_is_harmed_again_and_again_ends_as_one_that_never_was() -> None:
    some = ("--seed", "1", "--seconds", "0", "--acts", "3")
    done = dlassets(*some, command=(sys.executable, "-m", "dlassets_tests.soak.lakes"))

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("no mismatch in 1 lakes, seeds 1 to 1\n")
