"""Taking in what another service's file says: as lines of the interchange form, among the answers that people give."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

from filelock import FileLock

from dlassets.errors import DlassetsError
from dlassets.labeling.answers import class_of
from dlassets.labeling.exchange.base import Beginning, FileFormat, ForeignAnswer
from dlassets.labeling.exchange.registry import format_of
from dlassets.labeling.exchange.resolving import Known, Target
from dlassets.labeling.formats import MOST_PROBLEMS, UNUSABLE
from dlassets.labeling.layout import READ_BYTES
from dlassets.lakehouse.classes import Class
from dlassets.storage.files import is_there, open_regular, remove_file, write_lines_where_changed
from dlassets.storage.lake import is_local, local_path
from dlassets.storage.records import as_text

# Where they come to lie in the folder of answers.
IMPORTED = "imported"
_SUFFIX = ".jsonl"
_LOCK = ".lock"
# No file of answers is read beyond so many that it would be too much at once; this is well below.
LINES_A_FILE = 100_000
# Answers whose photos are looked up at once: each time, the names of all photos of the lake are gone through.
_LOOKED_UP_AT_ONCE = 20_000
_MOST_EXAMPLES = 5


@dataclass
class Imported:
    """What one file came to. Of those that cannot be used, `problems` counts the reasons, and `examples` are the first.

    `answers` are those that can be used, `never_asked` of them about photos that nobody was asked about.
    """

    file: str
    format: FileFormat
    target: str
    answers: int = 0
    skipped: int = 0
    unanswered: int = 0
    never_asked: int = 0
    unusable: int = 0
    examples: list[str] = field(default_factory=list)
    annotators: Counter[str] = field(default_factory=Counter)
    written: bool = False

    def part(self, number: int) -> str:
        """Return the file of the first, the second … LINES_A_FILE lines."""
        return self.target if number == 1 else f"{self.target.removesuffix(_SUFFIX)}-{number}{_SUFFIX}"

    def refuse(self, place: str, problem: str) -> None:
        self.unusable += 1
        if len(self.examples) < _MOST_EXAMPLES:
            self.examples.append(f"{place}: {problem}")


@dataclass(frozen=True)
class Import:
    """How files are taken in: into which folder of answers, by whom they are where they do not say, and as what.

    With `dry_run` nothing is written.
    """

    known: Known
    answers: str
    classes: Mapping[int, Class]
    format: FileFormat | None = None
    annotator: str | None = None
    dry_run: bool = False
    _known_labels: dict[str, bool] = field(default_factory=dict, repr=False)

    def file(self, path: Path) -> Imported:
        """Take in one file. The same one again changes nothing, but for what has become known since.

        An answer of an unknown class is passed on as it is, since the class may be added; what can be used in no case
        is passed on with why. Raises DlassetsError where the file cannot be read, is of no format, or cannot be
        written to the answers.
        """
        try:
            with open_regular(path.resolve()) as file:
                chunks = iter(lambda: file.read(READ_BYTES), b"")
                digest = hashlib.sha256()
                for chunk in chunks:
                    digest.update(chunk)
                file.seek(0)
                chunks = iter(lambda: file.read(READ_BYTES), b"")
                begun = next(chunks, b"")
                suffix = path.suffix.lower()
                file_format = self.format or format_of(Beginning(suffix, begun))
                imported = Imported(path.name, file_format, self._place(digest.hexdigest()))
                lines = self._lines(imported, file_format.read(chain([begun], chunks), suffix))
                if self.dry_run:
                    deque(lines, maxlen=0)
                else:
                    self._write(imported, lines)
        except DlassetsError as error:
            raise DlassetsError(f"{path.name} cannot be imported: {error}") from error
        except OSError as error:
            raise DlassetsError(
                f"{path.name} cannot be imported: {error}. Make it readable, and {self.answers} writable and with room "
                "for it, then import it again: no file is half there, and nothing counts twice."
            ) from error
        return imported

    def _write(self, imported: Imported, lines: Iterator[bytes]) -> None:
        with self._alone():
            number = 1
            while (first := next(lines, None)) is not None:
                part = chain([first], islice(lines, LINES_A_FILE - 1))
                imported.written |= write_lines_where_changed(imported.part(number), part)
                number += 1
            while is_there(left := imported.part(number)):  # of an import when less was known
                remove_file(left)
                number += 1

    def _place(self, digest: str) -> str:
        return f"{self.answers}/{IMPORTED}/{digest}{_SUFFIX}"

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Have no other import write into the folder meanwhile, and nothing of a killed one lie there. Raises OSError.

        In a bucket there is no half of an object, and of two imports of a file the last one's objects stand.
        """
        if not is_local(self.answers):
            yield
            return
        folder = local_path(self.answers) / IMPORTED
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / _LOCK):  # one at a time: what is unfinished there then is nobody's
            for unfinished in folder.glob(".*"):
                if unfinished.name != _LOCK:  # an import was killed that was writing it
                    unfinished.unlink()
            yield

    def _lines(self, imported: Imported, said: Iterator[ForeignAnswer]) -> Iterator[bytes]:
        """Yield a line for each answer and each that is none; of these, MOST_PROBLEMS and how many more there are."""
        while part := list(islice(said, _LOOKED_UP_AT_ONCE)):
            yield from self._of_part(imported, part)
        if imported.unusable > MOST_PROBLEMS:
            yield _line(imported, "further places", unusable=f"{imported.unusable - MOST_PROBLEMS:,} more")

    def _of_part(self, imported: Imported, part: Sequence[ForeignAnswer]) -> Iterator[bytes]:
        answers = [each for each in part if each.problem is None and (each.label or each.act != "answered")]
        targets = iter(self.known.targets(answers))
        for each in part:
            if each.problem is not None:
                target = Target(problem=each.problem)
            elif each.label or each.act != "answered":
                target = next(targets)
            else:
                imported.unanswered += 1
                continue
            if target.problem is None:
                yield self._answer(imported, each, target)
                continue
            imported.refuse(each.place, target.problem)
            if imported.unusable <= MOST_PROBLEMS:
                yield _line(imported, each.place, unusable=target.problem)

    def _is_class(self, label: str) -> bool:
        if label not in self._known_labels:
            if len(self._known_labels) > _LOOKED_UP_AT_ONCE:  # of a hostile file, each label is another text
                self._known_labels.clear()
            self._known_labels[label] = class_of(label, self.classes) is not None
        return self._known_labels[label]

    def _answer(self, imported: Imported, answer: ForeignAnswer, target: Target) -> bytes:
        annotator = answer.annotator or self.annotator
        label = None if answer.label is None else as_text(answer.label)
        imported.annotators[annotator or ""] += 1
        imported.never_asked += not target.request_id
        if answer.act == "skipped":
            imported.skipped += 1
        elif label is not None and not self._is_class(label):
            imported.refuse(answer.place, f"unknown class {label[:60]}")
        else:
            imported.answers += 1
        return _line(
            imported,
            answer.place,
            request_id=target.request_id or None,
            image_id=target.image_id or None,
            label=label,
            annotator=annotator,
            answered_at=None if answer.answered_at is None else answer.answered_at.isoformat(),
            seconds=answer.seconds,
            status=None if answer.act == "answered" else answer.act,
        )


def _line(imported: Imported, place: str, unusable: str | None = None, **told: Any) -> bytes:
    origin = as_text(f"{imported.file}, {place}")
    if unusable is not None:
        told[UNUSABLE] = as_text(f"imported from {origin}: {unusable}")
    record = {**told, "service": imported.format.name, "origin": origin}
    said = {name: value for name, value in record.items() if value is not None}
    return f"{json.dumps(said, ensure_ascii=False)}\n".encode()
