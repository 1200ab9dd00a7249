"""What Dagster's event log and Python print of an error."""

import sys

import dagster as dg
import pytest
from dagster_shared.error import SerializableErrorInfo

from dlassets.errors import DlassetsError
from dlassets.resources.error_texts import write_readable_errors
from dlassets_tests.programs import dlassets


@pytest.fixture(autouse=True)
def _as_in_a_code_location(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(SerializableErrorInfo, "from_traceback", SerializableErrorInfo.from_traceback)
    write_readable_errors()


def text_of(error: Exception) -> str:
    @dg.asset
    def fails() -> None:
        raise error from OSError(2, "no such file")

    result = dg.materialize([fails], raise_on_error=False)
    (failure,) = (event for event in result.all_events if event.is_step_failure)
    return failure.step_failure_data.error.to_string()


def test_what_a_user_can_put_right_is_said_without_a_trace() -> None:
    said = text_of(DlassetsError("There are no weights at x. Set features.weights."))

    assert "There are no weights at x. Set features.weights." in said
    assert "no such file" in said
    assert 'File "' not in said
    assert len(said.splitlines()) <= 9


def test_what_is_a_fault_keeps_its_trace() -> None:
    said = text_of(ValueError("a fault"))

    assert "ValueError: a fault" in said
    assert f'File "{__file__}"' in said


def test_settings_that_cannot_be_are_said_without_a_trace_by_dagsters_own_commands() -> None:
    ran = dlassets(command=(sys.executable, "-c", "import dlassets.definitions"), DLASSETS_ENGINE="sparc")

    assert ran.returncode == 1
    assert ran.stderr.startswith("error: These settings cannot be:\n  engine: ")
    assert "Traceback" not in ran.stderr
