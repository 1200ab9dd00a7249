"""`dlassets users`: who may log in at the gate, and in which roles."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import click

from dlassets.cli.group import show
from dlassets.errors import DlassetsError, SettingsError
from dlassets.settings import ROLES, load_settings
from dlassets.web.gate.users import User, UsersFile, changed, checked, with_new_password, with_new_token

_role = click.option(
    "--role", "roles", multiple=True, type=click.Choice(ROLES), help="May be said several times; without: viewer."
)


@click.group()
def users() -> None:
    """Say who may log in, in the file of access.users_file. The gate reads it anew whenever it changes."""


@users.command()
@click.argument("name")
@_role
@click.option("--no-password", is_flag=True, help="For a program, which brings a token (dlassets users token).")
def add(name: str, roles: tuple[str, ...], *, no_password: bool) -> None:
    """Add a user. The password is asked for, or read from standard input: a line of a command is read by others."""
    user = checked(name, roles)
    path = _path()
    if not no_password:
        user = with_new_password(user, _password(name))
    with changed(path) as all_users:
        if name in all_users:
            raise DlassetsError(f"{name} is there already: see `dlassets users role` and `dlassets users password`.")
        all_users[name] = user
    click.echo(f"{name} may log in as {', '.join(user.roles)}.")


@users.command("list")
def list_() -> None:
    """Show who there is."""
    rows = [
        (user.name, ", ".join(user.roles), "yes" if user.password else "no", str(len(user.tokens)))
        for user in UsersFile(_path()).all().values()
    ]
    show(("name", "roles", "password", "tokens"), rows)


@users.command()
@click.argument("name")
def remove(name: str) -> None:
    """Remove a user, whose log-ins end at once."""
    with changed(_path()) as all_users:
        del all_users[_there(all_users, name).name]
    click.echo(f"{name} may not log in any more.")


@users.command()
@click.argument("name")
@click.argument("roles", nargs=-1, required=True, type=click.Choice(ROLES))
def role(name: str, roles: tuple[str, ...]) -> None:
    """Give a user these roles in place of those that they have."""
    with changed(_path()) as all_users:
        all_users[name] = replace(_there(all_users, name), roles=checked(name, roles).roles)
    click.echo(f"{name} is {', '.join(all_users[name].roles)} from now on.")


@users.command()
@click.argument("name")
def password(name: str) -> None:
    """Give a user another password, which ends their log-ins."""
    path = _path()
    _there(UsersFile(path).all(), name)
    given = _password(name)
    with changed(path) as all_users:
        all_users[name] = with_new_password(_there(all_users, name), given)
    click.echo(f"{name} has another password.")


@users.command()
@click.argument("name")
@click.option("--revoke", is_flag=True, help="Take all tokens of this user back, and make none.")
def token(name: str, *, revoke: bool) -> None:
    """Print a new token, by which a program asks as this user: `Authorization: Bearer …`. It is shown this once."""
    with changed(_path()) as all_users:
        user = replace(_there(all_users, name), tokens=()) if revoke else _there(all_users, name)
        all_users[name], made = (user, "") if revoke else with_new_token(user)
    click.echo(f"{name} has no token any more." if revoke else made)


def _path() -> Path:
    path = load_settings().access.users_file
    if path is None:
        raise SettingsError("No file of users is named: set DLASSETS_ACCESS__USERS_FILE to where it is, or shall be.")
    return Path(path)


def _there(all_users: Mapping[str, User], name: str) -> User:
    if name not in all_users:
        raise DlassetsError(f"There is no user {name}. There are: {', '.join(sorted(all_users)) or 'none'}.")
    return all_users[name]


def _password(name: str) -> str:
    """Return the password that somebody types twice, or a program's first line."""
    if sys.stdin.isatty():
        return str(click.prompt(f"Password of {name}", hide_input=True, confirmation_prompt=True))
    return sys.stdin.readline().removesuffix("\n")
