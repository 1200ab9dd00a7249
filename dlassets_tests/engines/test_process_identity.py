"""A process is known again, and never taken for another of the same id."""

import dataclasses
import os
import signal
import subprocess
import sys

import pytest

from dlassets.engines.process_identity import ProcessIdentity


def test_a_process_is_alive_until_it_has_ended_and_its_text_says_which_it_was():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        identity = ProcessIdentity.of(process.pid)
        assert identity.is_alive
        assert ProcessIdentity.parse(str(identity)) == identity
        process.send_signal(signal.SIGKILL)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # dead, and its id not yet free

        assert not identity.is_alive

    assert not identity.is_alive
    assert ProcessIdentity.of(process.pid) is None


@pytest.mark.parametrize("other", [{"started": 1.5}, {"host": "elsewhere"}])
def test_another_process_of_the_same_id_is_another(other):
    identity = ProcessIdentity.this()

    assert identity.is_alive
    assert not dataclasses.replace(identity, **other).is_alive


@pytest.mark.parametrize("text", ["", "host", "host 12", "host 12 ", "host twelve 1.5", "12 1.5"])
def test_another_text_is_no_process(text):
    assert ProcessIdentity.parse(text) is None


@pytest.mark.parametrize(
    ("other", "gone"),
    [({}, False), ({"started": 1.5}, True), ({"host": "elsewhere", "started": 1.5}, False), ({"pid": 2**22 + 1}, True)],
)
def test_what_ran_on_this_machine_and_no_more_is_gone(other, gone):
    identity = ProcessIdentity.this()

    assert dataclasses.replace(identity, **other).is_gone is gone


def test_a_clock_that_was_set_meanwhile_makes_no_other_process_of_it():
    identity = ProcessIdentity.this()

    before = dataclasses.replace(identity, started=identity.started + 5)
    assert (before.is_gone, before.is_alive) == (False, True)
