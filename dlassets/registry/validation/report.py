"""A validation for people: Markdown that begins with the verdict, and pictures."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from dlassets.learning.evaluation import pictures
from dlassets.registry.gate import Verdict, shown
from dlassets.registry.validation.regressions import Comparison
from dlassets.registry.validation.robustness import Robustness
from dlassets.registry.validation.validation import Check, Validation

PAIRED, RELIABILITY, ROBUSTNESS = "gained_and_lost.png", "reliability.png", "robustness.png"
PICTURES = (PAIRED, RELIABILITY, ROBUSTNESS)
# Rows of a table of classes and slices, and bars of a picture of them: those that differ most.
_MOST = 20


def markdown(validation: Validation, shown_pictures: Sequence[str] = ()) -> str:
    """Return the report; it shows those pictures, which lie beside it."""
    question = validation.question
    against = "" if question.champion_version is None else f", against version {question.champion_version}"
    word = "passed" if validation.passed else "refused"
    verdict = f"**{word.capitalize()}**: {_escaped(validation.explanation.removesuffix(f', {word}'))}."
    return "\n\n".join(
        [
            f"# Validation of {question.model_name} version {question.version}{against}",
            verdict,
            _table(("", "check", "number", "limit", "what came of it"), map(_row, validation.checks)),
            *_regressions(validation),
            *(f"![{name}]({name})" for name in shown_pictures),
            "## Made of\n\n" + _made_of(validation),
        ]
    ) + "\n"  # fmt: skip


def draw(verdict: Verdict, compared: Sequence[Comparison], robust: Robustness, version: int) -> dict[str, bytes]:
    """Return the pictures by the names of their files; without a champion, those that need none."""
    names = [f"version {number}" for number in (version, verdict.champion_version) if number is not None]
    evaluations = [each for each in (verdict.challenger, verdict.champion) if each is not None]
    drawn = {RELIABILITY: pictures.reliability_plot(dict(zip(names, evaluations, strict=True)))}
    if compared:
        changes = [("all test photos", verdict.gained, verdict.lost)]
        changes += [(f"{e.dimension}: {e.value} ({e.rows})", e.gained, e.lost) for e in _most_changed(compared)]
        title = f"test photos that {names[0]} gained and lost on {names[1]}"
        drawn[PAIRED] = pictures.gained_and_lost(changes, title)
    if robust.photos:
        shares = dict(zip(names, robust.accuracies, strict=False))
        drawn[ROBUSTNESS] = pictures.bars(shares, f"accuracy on {robust.photos} test photos, by what was done to them")
    return drawn


def _row(check: Check) -> tuple[str, ...]:
    sign = "passed" if check.passed else "**refused**" if check.blocks else "**warns**"
    limit = "" if check.limit is None else f"{check.bound} {check.limit:.4g}"
    number = "" if check.value is None else f"{check.value:.4g}"
    return sign, check.name.replace("_", " "), number, limit, _escaped(check.sentence)


def _regressions(validation: Validation) -> Iterator[str]:
    compared = [Comparison(**each) for each in validation.details["slices"]]
    if not compared:
        return
    version, champion = validation.version, validation.champion_version
    titles = ("", "photos", f"right, version {version}", f"version {champion}", "gained", "lost", "p, corrected")
    rows = [
        (_escaped(f"{e.dimension}: {e.value}"), *map(str, (e.rows, e.right, e.champion_right, e.gained, e.lost)), _p(e))
        for e in _most_changed(compared)
    ]
    yield "## Classes and slices"
    if len(rows) < len(compared):
        yield f"The {len(rows)} of {len(compared)} that are worst beside the champion; all are in `validation.json`."
    yield _table(titles, rows)


def _p(compared: Comparison) -> str:
    return "" if compared.lost <= compared.gained else shown(compared.corrected)


def _most_changed(compared: Sequence[Comparison]) -> list[Comparison]:
    """Return those that are likeliest worse than the champion, and then those that lost most."""
    return sorted(compared, key=lambda each: (each.corrected, each.gained - each.lost))[:_MOST]


def _made_of(validation: Validation) -> str:
    question = validation.question
    rows = {
        "package": question.package,
        "the champion's package": question.champion_package,
        "SHA-256 of the test rows": question.rows_sha256,
        **{f"Delta version of {name}": version for name, version in validation.tables.items()},
    }
    return _table(("", ""), [(name, f"`{value}`") for name, value in rows.items() if value is not None])


def _table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join("| " + " | ".join(map(_plain, line)) + " |" for line in lines)


def _escaped(text: str) -> str:
    """Return a text in which a class's name, which came from outside, is no markup: neither a tag, link nor picture."""
    return re.sub(r"[\\`*\[\]]|<(?=[A-Za-z/!?])|&(?=[#\w]+;)", r"\\\g<0>", text)


def _plain(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def figures(compared: Sequence[Comparison], robust: Robustness) -> Mapping[str, object]:
    """Return what the report shows beside the checks, as it is kept."""
    return {
        "slices": [vars(each) for each in compared],
        "robustness": {"photos": robust.photos, "accuracies": robust.accuracies},
    }
