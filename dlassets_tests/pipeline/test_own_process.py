"""A call in a process of its own: what comes back of it, and when it ends."""

import os
import subprocess
import sys
from typing import Any

import psutil
import pytest

from dlassets.pipeline.own_process import Call, TimedOutError
from dlassets.pipeline.report import Report
from dlassets_tests.pipeline import elsewhere
from dlassets_tests.pipeline.elsewhere import fail, go_on, own_processes, tell, until


class Heard(Report):
    def __init__(self) -> None:
        self.said: list[Any] = []

    def info(self, message: str) -> None:
        self.said.append(message)

    def count(self, what: str, done: int, total: int | None) -> None:
        self.said.append((what, done, total))


def test_a_call_elsewhere_reports_while_it_goes_on_and_returns_what_it_would_here() -> None:
    heard = Heard()
    result, process = Call(tell, (3,)).run(heard)

    assert result == 4
    assert process != os.getpid()
    assert heard.said == ["begun", ("photos", 3, None)]


@pytest.mark.parametrize(
    ("kind", "error", "said"),
    [
        ("conflict", "ConflictError", "^again$"),
        ("other", "ProcessFailedError", r"(?s)Traceback.*KeyError: 'lost'"),
        ("killed", "ProcessFailedError", r"was killed in the middle \(SIGKILL\).*no memory left"),
    ],
)
def test_an_error_elsewhere_is_raised_as_what_it_was_there(kind, error, said) -> None:
    with pytest.raises(Exception, match=said) as raised:
        Call(fail, (kind,)).run(Report())

    assert type(raised.value).__name__ == error


class Interrupted(Report):
    def info(self, message: str) -> None:
        raise KeyboardInterrupt(message)


def test_a_call_is_ended_where_the_caller_is_interrupted() -> None:
    with pytest.raises(KeyboardInterrupt, match="begun"):
        Call(tell, (3,)).run(Interrupted())

    assert own_processes() == []


@pytest.mark.slow
def test_a_call_whose_time_is_over_is_ended_with_what_it_started(tmp_path) -> None:
    file = tmp_path / "pids"
    with pytest.raises(TimedOutError):
        Call(go_on, (str(file),)).run(Report(), seconds=3)

    assert [pid for pid in map(int, file.read_text().split()) if psutil.pid_exists(pid)] == []


@pytest.mark.slow
def test_a_call_ends_with_who_called(tmp_path) -> None:
    file = tmp_path / "pids"
    program = f"from {elsewhere.__name__} import *; Call(go_on, ({str(file)!r},)).run(Report())"
    caller = subprocess.Popen([sys.executable, "-c", program])
    until(file.exists)
    until(file.read_text)
    caller.kill()
    caller.wait()

    until(lambda: not any(psutil.pid_exists(pid) for pid in map(int, file.read_text().split())))
