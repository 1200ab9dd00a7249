"""The file of users: who there is, in which roles, and what of a password is kept, by which none can be found.

Passwords are kept as scrypt has them (RFC 7914), with a salt each; tokens, which are long and random, as SHA-256.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
import secrets
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock

from dlassets.errors import DlassetsError, SettingsError
from dlassets.settings import ROLES, Role
from dlassets.storage.files import write_whole

SHORTEST = 10
# 16 MiB of memory and some 50 ms a try, as OWASP's password storage cheat sheet has it for logging in at once.
_N, _R, _P = 2**14, 8, 1
_NAMES = r"[A-Za-z0-9](?:[\w.@+-]{0,98}[A-Za-z0-9])?"


@dataclass(frozen=True)
class User:
    name: str
    roles: tuple[Role, ...]
    password: str = field(default="", repr=False)
    tokens: tuple[str, ...] = field(default=(), repr=False)

    @property
    def proof(self) -> str:
        """What changes with the password, and tells nothing of it: sessions of an older one are over."""
        return hashlib.sha256(f"session {self.password}".encode()).hexdigest()[:16]


class UsersFile:
    """The users of a file, which is read anew when it has changed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int] | None = None
        self._users: Mapping[str, User] = {}
        self._of_tokens: Mapping[str, User] = {}
        self._nobody = hashed(secrets.token_urlsafe())

    def all(self) -> Mapping[str, User]:
        """Return the users by name. Raises DlassetsError for a file that is missing or damaged."""
        try:
            now = self._path.stat()
            if now.st_mode & stat.S_IROTH:
                raise SettingsError(
                    f"Anybody on this machine may read {self._path}, which holds passwords' hashes: chmod o-rwx "
                    f"{self._path}"
                )
            seen = now.st_mtime_ns, now.st_ino
            if seen != self._seen:
                self._users = _parsed(self._path, self._path.read_text())
                self._of_tokens = {token: user for user in self._users.values() for token in user.tokens}
                self._seen = seen
        except FileNotFoundError as error:
            raise SettingsError(
                f"There is no file of users {self._path} (access.users_file), so that nobody could log in. Make it by "
                "its first user: dlassets users add <name> --role operator --role approver"
            ) from error
        except OSError as error:
            raise DlassetsError(f"The file of users {self._path} cannot be read: {error}") from error
        return self._users

    def with_password(self, name: str, password: str) -> User | None:
        """Return the user whose password this is, after as long as for one who is not there."""
        user = self.all().get(name)
        is_right = is_hash_of(user.password if user and user.password else self._nobody, password)
        return user if user is not None and user.password and is_right else None

    def with_token(self, token: str) -> User | None:
        self.all()
        return self._of_tokens.get(hash_of_token(token))


@contextmanager
def changed(path: Path) -> Iterator[dict[str, User]]:
    """Give the users of a file to be changed, and write it, for its owner and group alone. Raises DlassetsError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.lock")):
        users = dict(UsersFile(path).all()) if path.exists() else {}
        yield users
        tree = {user.name: _as_written(user) for user in users.values()}
        before = os.umask(0o077)
        try:
            write_whole(path, yaml.safe_dump(tree, sort_keys=True).encode())
        finally:
            os.umask(before)


def checked(name: str, roles: tuple[str, ...]) -> User:
    """Return a user of that name and roles. Raises SettingsError for what can be neither."""
    if re.fullmatch(_NAMES, name, re.ASCII) is None:
        raise SettingsError(f"{name!r} is no name of a user: use letters, digits, and between them . _ @ + and - alone")
    known = tuple(role for role in ROLES if role in roles)
    if unknown := sorted(set(roles) - set(known)):
        raise SettingsError(f"{name} has the role {unknown[0]!r}, and the roles are {', '.join(ROLES)}")
    return User(name, known or ("viewer",))


def with_new_password(user: User, password: str) -> User:
    """Return the user with another password. Raises DlassetsError for one that is too short."""
    if len(password) < SHORTEST:
        raise DlassetsError(f"A password has at least {SHORTEST} characters.")
    return replace(user, password=hashed(password))


def with_new_token(user: User) -> tuple[User, str]:
    """Return the user with one more token, and the token, which nothing else has."""
    token = f"dla_{secrets.token_urlsafe(32)}"
    return replace(user, tokens=(*user.tokens, hash_of_token(token))), token


def hashed(password: str) -> str:
    salt = secrets.token_bytes(16)
    return f"scrypt${_N}${_R}${_P}${_text(salt)}${_text(_scrypt(password, salt, _N, _R, _P))}"


def is_hash_of(kept: str, password: str) -> bool:
    _, n, r, p, salt, digest = kept.split("$")
    found = _scrypt(password, base64.b64decode(salt), int(n), int(r), int(p))
    return hmac.compare_digest(found, base64.b64decode(digest))


def hash_of_token(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _scrypt(password: str, salt: bytes, n: int, r: int, p: int) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, n=n, r=r, p=p, maxmem=2**27, dklen=32)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _as_written(user: User) -> dict[str, Any]:
    tree: dict[str, Any] = {"roles": list(user.roles)}
    return (
        tree
        | ({"password": user.password} if user.password else {})
        | ({"tokens": [*user.tokens]} if user.tokens else {})
    )


def _parsed(path: Path, text: str) -> Mapping[str, User]:
    try:
        tree = yaml.safe_load(text) or {}
        users = {str(name): _user(str(name), dict(entry)) for name, entry in tree.items()}
    except (yaml.YAMLError, AttributeError, TypeError, ValueError) as error:
        # What is wrong may be in the middle of a hash, so that nothing of it is shown.
        raise DlassetsError(
            f"The file of users {path} is not as `dlassets users` writes it. Put it back from a copy, or remove it and "
            "add its users again."
        ) from error
    return users


def _user(name: str, entry: dict[str, Any]) -> User:
    user = checked(name, tuple(entry.pop("roles")))
    password, tokens = entry.pop("password", ""), tuple(entry.pop("tokens", ()))
    if entry or (password and not re.fullmatch(r"scrypt\$\d+\$\d+\$\d+\$[\w+/=]+\$[\w+/=]+", password)):
        raise ValueError(name)
    return replace(user, password=password, tokens=tokens)
