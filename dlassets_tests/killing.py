"""What happens at the worst moment: the process is killed, with an end that nothing catches, or another is first."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest


class Killed(BaseException):
    pass


@contextmanager
def killed_at(owner: object, name: str, after: int = 0) -> Iterator[None]:
    """What is done within is killed where it calls this function, `after` some calls, and must come there."""
    function, calls = getattr(owner, name), itertools.count()

    def call_or_die(*arguments: Any, **options: Any) -> Any:
        if next(calls) >= after:
            raise Killed
        return function(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, call_or_die)
        with pytest.raises(Killed):
            yield


@contextmanager
def overtaken_at(owner: object, name: str, by: Callable[[], object], table: str | None = None) -> Iterator[None]:
    """Just before what is done within first calls this function, for this table, another does something: it must."""
    function, waiting = getattr(owner, name), [by]

    def call_as_second(*arguments: Any, **options: Any) -> Any:
        if waiting and table in {None, *(getattr(argument, "name", None) for argument in arguments)}:
            waiting.pop()()
        return function(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, call_as_second)
        yield
    assert not waiting
