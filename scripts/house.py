#!/usr/bin/env python
"""Draw the house to docs/house.svg: every room in its layer, what it is for, and which rooms it imports.

Layers and rules are those of [tool.importlinter] in pyproject.toml, a room's sentence is the first paragraph of its
docstring, and what it imports is read from the code. The same code makes the same bytes.
"""

from __future__ import annotations

import ast
import re
import sys
import textwrap
import tomllib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path

import grimp

REPOSITORY = Path(__file__).resolve().parent.parent
DRAWING = Path("docs", "house.svg")

# Pixels. Each room has a row and, right of the sentences, a column; its arrow comes down the column to its row.
WIDTH, WALL, ROOF, ROW, COLUMN = 1000, 20, 92, 48, 19.5
NAME_X, SENTENCE_X, LEAD_X = WALL + 14, WALL + 142, WALL + 518
DOT_RADII = 2.5, 7.0
SENTENCE_LETTERS, LEGEND_LETTERS = 60, 185

LEGEND = (
    "Follow a room's row to its dots, and from a dot the arrow down to the room that it imports; the larger the dot, "
    "the more imports there are. A small grey dot is a room that it may import and does not. Where there is none it "
    "may not: a room imports no room above it, and none beside it on its floor, between dotted lines."
)

STYLE = """
svg { --paper: #fff; --floor: #f6f8fa; --ink: #1f2328; --soft: #59636e; --line: #d1d9e0 }
svg { --roof: #a8452d; --rule: #a8452d; --dot: #0969da }
@media (prefers-color-scheme: dark) {
svg { --paper: #0d1117; --floor: #161c24; --ink: #f0f6fc; --soft: #9aa4af; --line: #3d444d }
svg { --roof: #9c4630; --rule: #e8896d; --dot: #58a6ff }
}
text { font: 13px -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; fill: var(--ink) }
.roof { fill: var(--roof) }
.title, .total { fill: #fff; text-anchor: middle }
.title { font-size: 25px; font-weight: 600 }
.name { font-size: 15px; font-weight: 600 }
.small { font-size: 11px; fill: var(--soft) }
.end { text-anchor: end }
.paper { fill: var(--paper) }
.floor { fill: var(--floor) }
path { stroke: var(--line); fill: none }
path.roof { stroke: none; fill: var(--roof) }
.beside { stroke-dasharray: 2 4 }
.lead { stroke-dasharray: 1 4; stroke-linecap: round }
.rule { stroke: var(--rule); stroke-dasharray: 7 5 }
.ruled { font-size: 11px; fill: var(--rule); stroke: var(--paper); stroke-width: 6px; paint-order: stroke }
.arrow { stroke: var(--dot); stroke-opacity: 0.45; stroke-width: 1.5 }
.head { stroke: none; fill: var(--dot) }
.dot { fill: var(--dot) }
.may { stroke: var(--soft); stroke-opacity: 0.6; stroke-width: 2.5; stroke-linecap: round }
"""


@dataclass(frozen=True)
class Room:
    """`floor` is counted from the roof."""

    name: str
    floor: int
    sentence: str
    modules: int
    lines: int


@dataclass(frozen=True)
class House:
    """`rooms` from the roof down, how often each imports another, and by floor what holds of all from there down."""

    name: str
    rooms: list[Room]
    imports: Counter[tuple[str, str]]
    rules: dict[int, str]


def survey(repository: Path) -> House:
    """Read the package that import-linter looks at; it must be importable."""
    linter = tomllib.loads(_text(repository / "pyproject.toml"))["tool"]["importlinter"]
    package, contracts = linter["root_package"], linter["contracts"]
    (layers,) = (contract["layers"] for contract in contracts if contract["type"] == "layers")
    rooms = [
        _room(repository / package / name, floor)
        for floor, layer in enumerate(layers)
        for name in re.findall(r"\w+", layer)
    ]
    rules = {}
    for contract in contracts:
        if contract["type"] == "forbidden":
            ruled = {name.removeprefix(f"{package}.") for name in contract["source_modules"]}
            rules[min(room.floor for room in rooms if room.name in ruled)] = contract["name"]
    return House(package, rooms, _imports(package), rules)


def _room(place: Path, floor: int) -> Room:
    head = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    files = sorted(place.rglob("*.py")) if place.is_dir() else [head]
    sentence, _, _ = (ast.get_docstring(ast.parse(_text(head))) or "").partition("\n\n")
    return Room(
        place.name,
        floor,
        " ".join(sentence.replace("`", "").split()),
        sum(file.name != "__init__.py" for file in files),
        sum(len(_text(file).splitlines()) for file in files),
    )


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8")


def _imports(package: str) -> Counter[tuple[str, str]]:
    graph = grimp.build_graph(package, cache_dir=None)
    return Counter(
        (module.split(".")[1], imported.split(".")[1])
        for module in graph.modules - {package}
        for imported in graph.find_modules_directly_imported_by(module) - {package}
    )


def draw(house: House) -> str:
    """Return the house as an SVG document, for a light page and for a dark one."""
    legend = _wrapped(LEGEND, LEGEND_LETTERS)
    bottom = ROOF + ROW * len(house.rooms)
    height = bottom + 16 * len(legend) + 22
    title = f"The rooms of {house.name}, what each is for, and which it imports"
    elements = (
        f"<title>{title}</title>",
        f"<style>{STYLE}</style>",
        f'<rect class="paper" width="{WIDTH}" height="{height}" rx="8"/>',
        *_roof(house),
        *(element for place in range(len(house.rooms)) for element in _floor(house, place)),
        _line("wall", f"M{WALL} {ROOF}V{bottom}H{WIDTH - WALL}V{ROOF}"),
        *_rules(house),
        *(element for place in range(len(house.rooms)) for element in _arrow(house, place)),
        *(_words("small", NAME_X, bottom + 22 + 16 * number, line) for number, line in enumerate(legend)),
    )
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{title}">'
    return "\n".join((head, *elements, "</svg>\n"))


def _roof(house: House) -> Iterator[str]:
    middle, eaves = WIDTH // 2, ROOF - 6
    modules, lines = sum(room.modules for room in house.rooms), sum(room.lines for room in house.rooms)
    yield f'<rect class="roof" x="{middle + 230}" y="10" width="34" height="50"/>'
    yield _line("roof", f"M4 {eaves}L{middle} 6L{WIDTH - 4} {eaves}z")
    yield _words("title", middle, eaves - 30, house.name)
    yield _words("total", middle, eaves - 10, f"{len(house.rooms)} rooms, {modules:,} modules, {lines:,} lines")


def _floor(house: House, place: int) -> Iterator[str]:
    room, top = house.rooms[place], ROOF + ROW * place
    shade = "paper" if room.floor % 2 else "floor"
    yield f'<rect class="{shade}" x="{WALL}" y="{top}" width="{WIDTH - 2 * WALL}" height="{ROW}"/>'
    is_beside = place > 0 and house.rooms[place - 1].floor == room.floor
    yield _line("beside" if is_beside else "slab", f"M{WALL} {top}H{WIDTH - WALL}")
    yield _words("name", NAME_X, top + 22, room.name)
    modules = f"{room.modules} modules, " if room.modules > 1 else ""
    yield _words("small", NAME_X, top + 37, f"{modules}{room.lines:,} lines")
    lines = _wrapped(room.sentence, SENTENCE_LETTERS)
    for number, line in enumerate(lines):
        yield _words("sentence", SENTENCE_X, _middle(place) + 4.5 + 17 * number - 8.5 * (len(lines) - 1), line)


def _rules(house: House) -> Iterator[str]:
    for floor, rule in sorted(house.rules.items()):
        top = ROOF + ROW * next(place for place, room in enumerate(house.rooms) if room.floor == floor)
        yield _line("rule", f"M{WALL} {top}H{WIDTH - WALL}")
        yield _words("ruled", SENTENCE_X, top + 4, rule)


def _arrow(house: House, place: int) -> Iterator[str]:
    """Draw a room's column: a dot in the row of every room that imports it, and the arrow from there down to it."""
    room, above = house.rooms[place], house.rooms[:place]
    x, end = WIDTH - WALL - COLUMN * (len(house.rooms) - place - 0.3), _middle(place) - 9
    used_by = {user: count for user, other in enumerate(above) if (count := house.imports[other.name, room.name])}
    if used_by:
        yield _words("small end", x - 9, _middle(place) + 4, room.name)
        yield _line("lead", f"M{LEAD_X} {_middle(place)}H{x - 15 - 6 * len(room.name):g}")
        yield _line("arrow", f"M{x:g} {_middle(min(used_by))}V{end}")
        yield _line("head", f"M{x - 4.5:g} {end}h9l-4.5 8z")
    may = [user for user, other in enumerate(above) if user not in used_by and other.floor < room.floor]
    if may:
        yield _line("may", "".join(f"M{x:g} {_middle(user)}h0" for user in may))
    most = max(house.imports[pair] for pair in house.imports if pair[0] != pair[1])
    for user, count in used_by.items():
        radius = DOT_RADII[0] + (DOT_RADII[1] - DOT_RADII[0]) * (count / most) ** 0.5
        title = f"<title>{above[user].name} imports {room.name}: {count}</title>"
        yield f'<circle class="dot" cx="{x:g}" cy="{_middle(user)}" r="{radius:.1f}">{title}</circle>'


def _wrapped(text: str, most: int) -> list[str]:
    """Return as few lines as lines of so many letters need, but of like length."""
    return min((textwrap.wrap(text, letters) for letters in range(most // 2, most + 1)), key=len)


def _middle(place: int) -> int:
    return ROOF + ROW * place + ROW // 2


def _line(kind: str, path: str) -> str:
    return f'<path class="{kind}" d="{path}"/>'


def _words(kind: str, x: float, y: float, words: str) -> str:
    return f'<text class="{kind}" x="{x:g}" y="{y:g}">{escape(words, quote=False)}</text>'


def main() -> None:
    (REPOSITORY / DRAWING).write_text(draw(survey(REPOSITORY)), encoding="utf-8")
    sys.stdout.write(f"{DRAWING} is drawn.\n")


if __name__ == "__main__":
    main()
