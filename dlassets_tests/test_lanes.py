"""Which tests a lane has, in which process and order they run, until when, and what is printed of their time."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import dlassets_tests
from dlassets_tests.lanes import LONG

pytest_plugins = ["pytester"]

# Two files: of either lane, on either engine; each test says in which process it ran.
TESTS = """
    import os
    import time
    import pytest

    @pytest.fixture(params=["local", pytest.param("spark", marks=pytest.mark.spark)])
    def engine(request):
        return request.param

    def in_process(name):
        print(f"<{name} in {os.environ.get('PYTEST_XDIST_WORKER')}>")

    def test_quick():
        in_process("quick")

    @pytest.mark.slow
    def test_long():
        in_process("long")

    def test_repeated(engine):
        in_process("repeated")

    @pytest.mark.contract
    def test_promise(engine):
        in_process(f"promise of {engine}")
"""


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    monkeypatch.setenv("PYTHONPATH", str(Path(dlassets_tests.__file__).parent.parent))  # it is not installed
    pytester.makeini("[pytest]\nmarkers =\n    spark\n    slow\n    contract\naddopts = -p dlassets_tests.lanes -vs")
    pytester.makepyfile(test_one=TESTS, test_other=TESTS)
    return pytester


def ran(result: pytest.RunResult) -> list[str]:
    return re.findall(r"(test_\w+\.py::\S+) .*?PASSED", re.sub(r"\n(?!test_)", " ", result.stdout.str()))


@pytest.mark.parametrize(
    ("lane", "tests"),
    [
        ("fast", ["test_quick", "test_repeated[local]", "test_promise[local]", "test_promise[spark]"]),
        ("slow", ["test_long", "test_repeated[spark]"]),
    ],
)
def test_a_lane_has_its_tests_and_both_have_all(suite, lane, tests) -> None:
    assert ran(suite.runpytest_inprocess("test_one.py", "--lane", lane)) == [f"test_one.py::{test}" for test in tests]


def test_without_a_lane_everything_runs(suite) -> None:
    suite.runpytest_inprocess().assert_outcomes(passed=12)


def test_turns_begin_elsewhere_and_go_round(suite) -> None:
    turns = [ran(suite.runpytest_inprocess("--lane", "slow", "--turn", turn)) for turn in ("a", "a", "b", "c", "d")]

    assert turns[0] == turns[1]
    assert len({tuple(turn) for turn in turns}) > 1
    everything = sorted(turns[0])
    assert len(everything) == 4
    for turn in turns:
        assert sorted(turn) == everything
        assert turn + turn == turns[0][turns[0].index(turn[0]) :] + turns[0] + turns[0][: turns[0].index(turn[0])]


def test_no_test_starts_when_the_time_is_over_and_those_that_ran_are_named(suite) -> None:
    over = suite.runpytest_inprocess("--lane", "slow", "--until", "-1")
    in_time = suite.runpytest_inprocess("--lane", "slow", "--until", "60")

    over.assert_outcomes(skipped=4)
    over.stdout.fnmatch_lines(["0 ran in this turn, 4 wait for theirs:"])
    in_time.assert_outcomes(passed=4)
    in_time.stdout.fnmatch_lines(["4 ran in this turn, 0 wait for theirs:", "*test_one.py::test_long"])


def test_a_failure_in_a_turn_fails(suite) -> None:
    suite.makepyfile(test_wrong="import pytest\n@pytest.mark.slow\ndef test_wrong():\n    assert False")

    assert suite.runpytest_inprocess("--lane", "slow", "--until", "60").ret == pytest.ExitCode.TESTS_FAILED


def test_the_time_is_printed_beside_the_budget_and_being_over_it_is_no_failure(suite, monkeypatch) -> None:
    monkeypatch.setattr("dlassets_tests.lanes.BUDGET_OF_A_TEST", 0)

    result = suite.runpytest_inprocess("--lane", "fast", "test_one.py", "-k", "quick")

    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(
        ["* s of a budget of 600 s", "* s in test_one.py", "1 tests are over the 0 s *", "* s test_one.py::test_quick"]
    )


def test_a_file_is_run_by_one_process_and_all_of_spark_by_one(suite) -> None:
    result = suite.runpytest_subprocess("-n", "2", "--lane", "all", "-rP")

    result.assert_outcomes(passed=12)
    workers: dict[str, set[str]] = {}
    for worker, test in re.findall(r"\[(gw\d)\].*? PASSED (\S+)", result.stdout.str()):
        workers.setdefault("spark" if test.endswith("[spark]") else test.partition("::")[0], set()).add(worker)
    assert workers.keys() == {"spark", "test_one.py", "test_other.py"}
    assert all(len(processes) == 1 for processes in workers.values())


def test_what_takes_long_is_begun_first_and_files_of_few_tests_last(suite) -> None:
    one = "def test_alone():\n    pass\n"
    suite.makepyfile(test_few=one, **{LONG[1].removesuffix(".py"): one})

    result = suite.runpytest_subprocess("-n", "1", "--lane", "fast")

    began = re.findall(r"PASSED (\S+)\.py::(\S+)", result.stdout.str())
    files = list(dict.fromkeys("spark" if test.endswith("[spark]") else file for file, test in began))
    assert files == ["spark", LONG[1].removesuffix(".py"), "test_one", "test_other", "test_few"]


def test_the_files_that_take_long_are_there() -> None:
    assert [file for file in LONG if not Path(dlassets_tests.__file__).parent.parent.joinpath(file).is_file()] == []


def test_files_that_are_named_run_alone_though_coverage_is_asked_for(suite) -> None:
    result = suite.runpytest_subprocess("--lane", "fast", "--cov=dlassets_tests.lanes", "test_one.py", "-x")

    assert {test.partition("::")[0] for test in ran(result)} == {"test_one.py"}
