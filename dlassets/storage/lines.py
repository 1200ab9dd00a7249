"""Lines of files that others write, read so that none takes more memory than a limit, whatever the file holds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

# No event and no answer is nearly as long: S3 and EventBridge send 256 kB at most.
LONGEST_LINE = 2**20


class Line(NamedTuple):
    """A line without its end: the byte it begins at, and how many it has. `ended` says that a newline follows.

    Of a line that is longer than the limit, `data` is the beginning.
    """

    start: int
    data: bytes
    length: int
    ended: bool = True

    @property
    def is_cut(self) -> bool:
        return self.length > len(self.data)

    @property
    def end(self) -> int:
        """The byte after the line and its newline."""
        return self.start + self.length + self.ended


def bounded_lines(chunks: Iterable[bytes], most_bytes: int = LONGEST_LINE) -> Iterator[Line]:
    """Yield every line of a file that comes in chunks: in time that grows as the file, and the memory of two chunks."""
    start, begun, length = 0, bytearray(), 0
    for chunk in chunks:
        *ended, rest = chunk.split(b"\n")
        for piece in ended:
            length += len(piece)
            data = bytes(begun + piece) if begun else piece
            yield Line(start, data[:most_bytes], length)
            start += length + 1
            length = 0
            begun.clear()
        length += len(rest)
        begun += rest[: most_bytes - len(begun)]
    if length:
        yield Line(start, bytes(begun), length, ended=False)


def ended_lines(chunks: Iterable[bytes], most_bytes: int = LONGEST_LINE) -> Iterator[bytes]:
    """Yield what comes in chunks as far as lines end: the last one, that nothing ends yet, is still being written.

    One that is longer than the limit is no such line, and is yielded as it comes.
    """
    held = b""
    for chunk in chunks:
        ended, newline, held = (held + chunk).rpartition(b"\n")
        yield ended + newline
        if len(held) > most_bytes:
            yield held
            held = b""
