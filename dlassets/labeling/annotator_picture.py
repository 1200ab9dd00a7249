"""Each person's accuracy and agreement as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dlassets.learning.evaluation.pictures import as_png, new_figure

# Those who answer most; a name's letters.
MOST_SHOWN, _NAME = 30, 30
_MEASURES = (
    ("accuracy", "right on honeypots", "tab:blue", -0.15),
    ("agreement", "as the consensus", "tab:orange", 0.15),
)


def annotator_picture(people: Sequence[Mapping[str, Any]]) -> bytes:
    """Return a PNG of the shares of `people`, rows of `annotators`, with their intervals at 95%."""
    shown = sorted(people, key=lambda person: (-person["answers"], person["annotator"] or ""))[:MOST_SHOWN]
    figure = new_figure(8, 1.4 + 0.35 * len(shown))
    axes = figure.subplots()
    for name, title, colour, shift in _MEASURES:
        known = [(place, person) for place, person in enumerate(shown) if person[name] is not None]
        places = [place + shift for place, _ in known]
        axes.plot([person[name] for _, person in known], places, "o", color=colour, label=title)
        axes.hlines(places, [p[f"{name}_low"] for _, p in known], [p[f"{name}_high"] for _, p in known], color=colour)
    axes.set_yticks(range(len(shown)), [f"{_named(person)} ({person['answers']:,})" for person in shown])
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.set_xlim(0, 1.02)
    axes.set_xlabel("share of their answers, with its interval at 95%")
    axes.legend(loc="lower left", fontsize=8)
    return as_png(figure)


def _named(person: Mapping[str, Any]) -> str:
    name = "".join(letter if letter.isprintable() else "?" for letter in person["annotator"] or "(no name)")
    return name if len(name) <= _NAME else f"{name[: _NAME - 1]}…"
