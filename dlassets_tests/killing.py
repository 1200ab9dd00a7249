"""As if the process were killed: an end that nothing which catches errors catches."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest


class Killed(BaseException):
    pass


@contextmanager
def killed_at(owner: object, name: str) -> Iterator[None]:
    """What is done within is killed where it calls this function, and must come there."""

    def kill(*_: object, **__: object) -> None:
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, kill)
        with pytest.raises(Killed):
            yield
