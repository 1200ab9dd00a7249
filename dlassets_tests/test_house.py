"""The drawing of the rooms: what it reads of a package, and what it draws of that."""

import tomllib
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from dlassets_tests.programs import python
from scripts.house import REPOSITORY, House, Room, draw, survey

PROJECT = """
[tool.importlinter]
root_package = "cottage"
contracts = [
    { name = "From above", type = "layers", layers = ["attic", "(hall) | kitchen", "cellar"] },
    { name = "No wine upstairs", type = "forbidden", source_modules = ["cottage.hall", "cottage.cellar"] },
]
"""
FILES = {
    "__init__.py": "",
    "attic/__init__.py": '"""Old things, `dusty` & dear.\n\nNobody goes there."""\n',
    "attic/chest.py": "from cottage.cellar import wine\nfrom cottage.hall import door\n",
    "attic/trunk.py": "import cottage.cellar\nfrom cottage.attic import chest\n",
    "hall/__init__.py": '"""Where one comes in."""\n',
    "hall/door.py": "",
    "kitchen.py": '"""Where it is warm."""\n\nimport cottage.cellar\n',
    "cellar/__init__.py": '"""Wine."""\n',
    "cellar/wine.py": "",
}


@pytest.fixture
def cottage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> House:
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    for name, text in FILES.items():
        (tmp_path / "cottage" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "cottage" / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    return survey(tmp_path)


def test_rooms_imports_and_rules_are_read_from_the_package_and_its_linter(cottage: House) -> None:
    assert cottage.rooms == [
        Room("attic", 0, "Old things, dusty & dear.", 2, 7),
        Room("hall", 1, "Where one comes in.", 1, 1),
        Room("kitchen", 1, "Where it is warm.", 1, 3),
        Room("cellar", 2, "Wine.", 1, 1),
    ]
    apart = Counter({pair: count for pair, count in cottage.imports.items() if len({*pair}) > 1})
    assert apart == {("attic", "cellar"): 2, ("attic", "hall"): 1, ("kitchen", "cellar"): 1}
    assert cottage.rules == {1: "No wine upstairs"}


def test_a_dot_is_an_import_and_a_small_one_what_is_allowed_and_not_done(cottage: House) -> None:
    picture = ET.fromstring(draw(cottage))

    def drawn(kind: str) -> list[ET.Element]:
        return [element for element in picture.iter() if element.get("class") == kind]

    assert [name.text for name in drawn("name")] == ["attic", "hall", "kitchen", "cellar"]
    assert [dot[0].text for dot in drawn("dot")] == [
        "attic imports hall: 1",
        "attic imports cellar: 2",
        "kitchen imports cellar: 1",
    ]
    assert sum(line.get("d", "").count("h0") for line in drawn("may")) == 2  # attic to kitchen, hall to cellar
    assert len(drawn("head")) == 2
    assert [rule.text for rule in drawn("ruled")] == ["No wine upstairs"]
    assert "4 rooms, 5 modules, 12 lines" in [text.text for text in drawn("total")]


def test_this_house_is_drawn_in_the_same_bytes_each_time() -> None:
    program = "from scripts.house import *; print(draw(survey(REPOSITORY)))"
    first, second = (python(program, PYTHONHASHSEED=seed) for seed in "12")

    assert first == second
    assert len(first) < 150_000
    linter = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["importlinter"]
    rooms = " | ".join(linter["contracts"][0]["layers"]).split(" | ")
    names = [element.text for element in ET.fromstring(first).iter() if element.get("class") == "name"]
    assert names == rooms
