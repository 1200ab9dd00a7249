"""Alerts: each is raised once, and sent until everybody has it, whoever is away meanwhile."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dlassets.alerts.channels import Channel, channels_of
from dlassets.alerts.outbox import Alert, Entry, raise_alerts, read_alerts, send_waiting
from dlassets.engines.local import LocalEngine
from dlassets.errors import SettingsError
from dlassets.masking import learn
from dlassets.settings import AlertSettings
from dlassets.storage.lake import Lake
from dlassets_tests.alerts.receivers import Receiver, hook_receiver, mail_server
from dlassets_tests.killing import killed_at, overtaken_at
from dlassets_tests.programs import invoke

ENGINE = LocalEngine()
FAILED = Alert(
    "run_failed", "Run of training_pipeline failed", "too few photos", "run 1", "http://127.0.0.1:3000/runs/1"
)
NOW = dt.datetime.now(dt.UTC)
ALL = ("waiting", "sent", "given_up")


def failed(*numbers: int) -> list[Alert]:
    return [Alert("run_failed", f"Run {number} failed", "too few photos", f"run {number}") for number in numbers]


def later(minutes: float) -> dt.datetime:
    return dt.datetime.now(dt.UTC) + dt.timedelta(minutes=minutes)


@pytest.fixture(scope="module")
def hooks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receiver]:
    receiver = hook_receiver(tmp_path_factory.mktemp("hooks"))
    with receiver.up():
        yield receiver


@pytest.fixture
def hook(hooks: Receiver) -> Receiver:
    """The receiver, with nothing received."""
    for file in hooks.folder.iterdir():
        file.unlink()
    return hooks


@pytest.fixture
def mail(tmp_path: Path) -> Receiver:
    """A mail server that is not up."""
    return mail_server(tmp_path / "mail")


def told(lake: Lake, *receivers: Receiver, at: dt.datetime | None = None, **settings: Any) -> list[Entry]:
    """Send what is due to these, and return it."""
    chosen = AlertSettings(urls=tuple(each.url for each in receivers), **settings)
    return send_waiting(ENGINE, lake, chosen, channels_of(chosen), at or later(1))


class Taker:
    """Stands in for one of Apprise's services."""

    def notify(self, body: str, *_: object, **__: object) -> bool:
        return True


def test_an_alert_is_raised_and_sent_once_however_often_it_is_noticed(lake, engine) -> None:
    assert [raise_alerts(engine, lake, [FAILED]) for _ in range(2)] == [1, 0]
    channel = Channel("a chat", Taker())

    (sent,) = send_waiting(engine, lake, AlertSettings(), [channel], later(1))

    assert (sent.status, sent.sent_to, sent.problem) == ("sent", ["a chat"], None)
    assert raise_alerts(engine, lake, [FAILED]) == 0
    assert send_waiting(engine, lake, AlertSettings(), [channel], later(99)) == []
    (row,) = read_alerts(engine, lake, *ALL)
    assert (row.subject, row.link, row.status, row.attempts) == (FAILED.subject, FAILED.link, "sent", 0)


def test_of_two_that_notice_the_same_at_once_one_raises_it(lake) -> None:
    raise_alerts(ENGINE, lake, failed(1))
    with overtaken_at(LocalEngine, "append", lambda: raise_alerts(ENGINE, lake, failed(2, 3))):
        assert raise_alerts(ENGINE, lake, failed(2, 4)) == 1

    assert sorted(row.key for row in read_alerts(ENGINE, lake, "waiting")) == ["run 1", "run 2", "run 3", "run 4"]


def test_no_secret_stands_in_the_table(lake) -> None:
    learn("AbCd1234", "password")
    raise_alerts(ENGINE, lake, [Alert("run_failed", "no AbCd1234", "as AbCd1234 was wrong", "1")])

    (row,) = read_alerts(ENGINE, lake, "waiting")

    assert (row.subject, row.body) == ("no …", "as … was wrong")


def test_many_at_once_are_one_message_once_others_had_time_to_join(lake, hook) -> None:
    raise_alerts(ENGINE, lake, failed(*range(30)))
    assert told(lake, hook, at=NOW, group_seconds=60) == []
    assert hook.hooks == []

    assert len(told(lake, hook, at=later(2), group_seconds=60)) == 30

    (message,) = hook.hooks
    assert message["title"] == "dlassets: 30 alerts: 30 failed runs"
    assert message["message"].count("too few photos") == 20
    assert "And 10 more: `dlassets alerts list`." in message["message"]
    assert read_alerts(ENGINE, lake, "waiting", "given_up") == []


def test_one_message_says_what_where_and_when(lake, hook) -> None:
    raise_alerts(ENGINE, lake, [FAILED])
    told(lake, hook)

    (message,) = hook.hooks
    assert (message["title"], message["type"]) == ("dlassets: Run of training_pipeline failed", "failure")
    lines = message["message"].splitlines()
    assert lines[:2] == ["too few photos", "http://127.0.0.1:3000/runs/1"]
    assert lines[-1] == f"Lake: {lake.root}"


def test_a_dead_mail_server_loses_none_and_once_it_is_back_it_has_all_and_others_nothing_twice(
    lake, hook, mail
) -> None:
    raise_alerts(ENGINE, lake, failed(1))
    for attempt, pause in enumerate((1, 2, 4), 1):
        (row,) = told(lake, mail, hook, at=(at := later(60 * attempt)))
        assert (row.status, row.attempts, row.retry_at) == ("waiting", attempt, at + dt.timedelta(minutes=pause))
        assert "Connection refused" in row.problem
        assert told(lake, mail, hook, at=at + dt.timedelta(minutes=pause - 0.1)) == []
    raise_alerts(ENGINE, lake, failed(2))  # which goes out by itself, and has the other go with it
    assert [(row.key, row.attempts) for row in told(lake, mail, hook, at=at)] == [("run 1", 3), ("run 2", 1)]

    with mail.up():
        told(lake, mail, hook, at=at + dt.timedelta(minutes=2))

    ((subject, text),) = mail.mails
    assert subject == "dlassets: 2 alerts: 2 failed runs"
    assert "Run 1 failed" in text
    assert "Run 2 failed" in text
    assert [message["title"] for message in hook.hooks] == ["dlassets: Run 1 failed", "dlassets: Run 2 failed"]
    assert {(row.status, row.problem, len(row.sent_to)) for row in read_alerts(ENGINE, lake, *ALL)} == {
        ("sent", None, 2)
    }


def test_one_that_is_killed_before_it_notes_that_it_has_sent_sends_again(lake, hook) -> None:
    raise_alerts(ENGINE, lake, failed(1))
    with killed_at(LocalEngine, "merge"):
        told(lake, hook)
    assert [row.status for row in read_alerts(ENGINE, lake, *ALL)] == ["waiting"]

    told(lake, hook)

    assert len(hook.hooks) == 2
    assert [row.status for row in read_alerts(ENGINE, lake, *ALL)] == ["sent"]


def test_what_is_given_up_stays_and_is_sent_by_hand(lake, tmp_path) -> None:
    receiver = hook_receiver(tmp_path / "hook")
    raise_alerts(ENGINE, lake, failed(1))
    for attempt in range(2):
        told(lake, receiver, at=later(60 * attempt + 1), attempts=2)
    assert told(lake, receiver, at=later(9999), attempts=2) == []
    environment = {"DLASSETS_ROOT": lake.root, "DLASSETS_ALERTS__URLS": receiver.url}

    listed = invoke("alerts", "list", **environment)
    in_vain = invoke("alerts", "send", **environment)
    with receiver.up():
        sent = invoke("alerts", "send", **environment)

    assert "given_up" in listed.output
    assert "Run 1 failed" in listed.output
    assert (in_vain.exit_code, sent.exit_code) == (1, 0)
    assert "0 of 1 alerts were sent." in in_vain.output
    assert "Connection refused" in in_vain.output
    assert sent.output == "1 of 1 alerts were sent.\n"
    assert [message["title"] for message in receiver.hooks] == ["dlassets: Run 1 failed"]
    assert "Qz7fToken1" not in listed.output + in_vain.output
    assert invoke("alerts", "list", **environment).output == "No alert waits, and none was given up.\n"
    assert "sent" in invoke("alerts", "list", "--all", **environment).output


def test_the_command_tries_each_address_and_says_what_came_of_it_without_its_secrets(lake, hook, mail) -> None:
    urls = f"{hook.url} {mail.url.replace('://', '://Qz7fUser1:Qz7fPass1@')}"
    result = invoke("alerts", "test", DLASSETS_ROOT=lake.root, DLASSETS_ALERTS__URLS=urls)

    assert result.exit_code == 1
    taken, refused = result.output.splitlines()
    assert taken == f"json://127.0.0.1:{hook.port}/hook/…: has taken it"
    assert refused.startswith("mailto://")
    assert "Connection refused" in refused
    assert "Qz7f" not in result.output
    assert [message["title"] for message in hook.hooks] == ["dlassets: a test"]


def test_the_command_takes_its_addresses_from_a_file_too(lake, hook, tmp_path) -> None:
    (tmp_path / "urls").write_text(f"{hook.url}\n")

    result = invoke("alerts", "test", DLASSETS_ROOT=lake.root, DLASSETS_ALERTS__URLS_FILE=str(tmp_path / "urls"))

    assert (result.exit_code, len(hook.hooks)) == (0, 1)
    assert "Qz7fToken1" not in result.output


@pytest.mark.parametrize(
    ("urls", "said"),
    [
        ("", "Nobody is to be told: set DLASSETS_ALERTS__URLS"),
        ("nosuch://Qz7fToken1/x", "The 1. URL of alerts.urls (nosuch://…) is none that Apprise can send to"),
        ("Qz7fToken1", "alerts.urls"),
    ],
)
def test_addresses_that_cannot_be_are_told_without_their_secrets(lake, urls, said) -> None:
    result = invoke("alerts", "test", DLASSETS_ROOT=lake.root, DLASSETS_ALERTS__URLS=urls)

    assert result.exit_code == 2
    assert said in result.output
    assert "Qz7fToken1" not in result.output.replace("given: 'Qz7fToken1'", "")


def test_a_file_of_addresses_that_is_not_there_is_told() -> None:
    with pytest.raises(SettingsError, match=r"alerts\.urls_file cannot be read"):
        channels_of(AlertSettings(urls_file="/nowhere"))
