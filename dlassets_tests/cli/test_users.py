"""`dlassets users`: people are added, shown, changed and removed, and no password is in what it says or writes."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from dlassets.cli import main
from dlassets.web.gate.users import UsersFile


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "etc" / "users.yaml"
    monkeypatch.setenv("DLASSETS_ACCESS__USERS_FILE", str(path))
    return path


def users(*words: str, typed: str = "") -> Result:
    return CliRunner().invoke(main, ["users", *words], input=typed)


def test_somebody_is_added_changed_and_removed(path) -> None:
    added = users("add", "anna", "--role", "approver", "--role", "labeller", typed="a long password\n")
    assert (added.exit_code, added.output) == (0, "anna may log in as labeller, approver.\n")
    assert "a long password" not in path.read_text()
    assert path.stat().st_mode & 0o077 == 0
    assert UsersFile(path).with_password("anna", "a long password").roles == ("labeller", "approver")

    assert users("role", "anna", "operator").exit_code == 0
    assert users("password", "anna", typed="another password\n").exit_code == 0
    assert UsersFile(path).with_password("anna", "a long password") is None
    assert UsersFile(path).with_password("anna", "another password").roles == ("operator",)

    assert users("remove", "anna").exit_code == 0
    assert UsersFile(path).all() == {}


def test_a_program_has_a_token_and_no_password(path) -> None:
    assert users("add", "robot", "--no-password").output == "robot may log in as viewer.\n"
    token = users("token", "robot").output.strip()

    assert UsersFile(path).with_token(token).name == "robot"
    assert UsersFile(path).with_password("robot", "") is None
    assert users("list").output.split()[-4:] == ["robot", "viewer", "no", "1"]
    assert users("token", "robot", "--revoke").exit_code == 0
    assert UsersFile(path).with_token(token) is None


@pytest.mark.parametrize(
    ("words", "typed", "why"),
    [
        (("add", "anna"), "short\n", "A password has at least 10 characters"),
        (("add", "anna"), "", "A password has at least 10 characters"),
        (("add", "an na"), "a long password\n", "is no name of a user"),
        (("add", "vera"), "a long password\n", "vera is there already"),
        (("remove", "anna"), "", r"There is no user anna. There are: vera."),
    ],
)
def test_what_cannot_be_is_said_and_changes_nothing(path, words, typed, why) -> None:
    users("add", "vera", typed="the password of vera\n")
    before = path.read_bytes()
    refused = users(*words, typed=typed)

    assert refused.exit_code != 0
    assert why in refused.output
    assert "the password of vera" not in refused.output
    assert path.read_bytes() == before


def test_without_a_file_it_says_what_to_set(monkeypatch) -> None:
    monkeypatch.delenv("DLASSETS_ACCESS__USERS_FILE", raising=False)

    assert "set DLASSETS_ACCESS__USERS_FILE" in users("list").output
