"""As if the process were killed: an end that nothing which catches errors catches."""

import itertools
from collections.abc import Iterator
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
