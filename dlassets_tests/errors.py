"""Errors for people, each of which must leave another process as what it was there."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from dlassets.errors import SettingsError
from dlassets.images.decode import BombError, ImageError

HARD_TO_TELL = ImageError("Das Foto »Größe: 2« ist keins:\n\n  die dritte Zeile; ${x} \\n.")
ERRORS = (
    SettingsError("training.l2 is odd: make it even."),
    HARD_TO_TELL,
    BombError("its tags say that they take more than the whole file"),
)


@contextmanager
def raising(error: Exception) -> Iterator[None]:
    """Expect an error of that very kind, with the whole of its message."""
    with pytest.raises(Exception) as raised:  # noqa: PT011 - compared below
        yield
    assert (type(raised.value), str(raised.value)) == (type(error), str(error))
