"""Files of JSON, an entry at a time: an object's members, and what is there twice."""

import json

import pytest

from dlassets.storage.lines import LONGEST_LINE
from dlassets.storage.records import Member, read_members, read_records

WHOLE = {"info": {"a": [1]}, "images": [{"id": 1}, {"id": "ü"}], "none": [], "n": -1.5e3}
MEMBERS = [
    Member("info", "info", {"a": [1]}),
    Member("images, item 1", "images", {"id": 1}),
    Member("images, item 2", "images", {"id": "ü"}),
    Member("n", "n", -1.5e3),
]


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("indent", [None, 2])
def test_an_object_is_read_member_by_member_in_chunks_of_any_size(size: int, encoding: str, indent: int | None) -> None:
    data = json.dumps(WHOLE, ensure_ascii=False, indent=indent).encode(encoding)

    assert list(read_members(data[at : at + size] for at in range(0, len(data), size))) == MEMBERS


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "Expecting '{' at column 1"),
        ("[1]", "Expecting '{' at column 1"),
        ('{"a": 1', "Expecting ',' at column 8"),
        ('{"a": [1, 2', "Expecting ',' at column 12"),
        ('{"a": [1 2]}', "Expecting ',' at column 10"),
        ('{"a" 1}', "Expecting ':' at column 6"),
        ("{1: 2}", "Expecting property name enclosed in double quotes"),
        ('{"a": 1} x', "Extra data at column 10"),
        ('{"a": [' + "[" * 100_000, "is not JSON that can be read"),
        ('{"a": "' + "x" * (LONGEST_LINE + 10), "Unterminated string"),
    ],
)
def test_what_is_no_object_ends_with_a_problem(text: str, problem: str) -> None:
    last = list(read_members([text.encode()]))[-1]

    assert problem in (last.problem or "")


def test_a_name_that_is_there_twice_is_a_problem_of_that_entry_alone() -> None:
    entries = ['{"a": 1, "a": 2}', '{"a": {"b": 1, "b": 1}}', '{"a": 1}']
    wrong = ["says 'a' twice", "says 'b' twice", {"a": 1}]

    lines = [said for _, said in read_records(["\n".join(entries).encode()], ".jsonl")]
    items = [said for _, said in read_records([f"[{', '.join(entries)}]".encode()], ".json")]
    members = list(read_members([f'{{"x": [{", ".join(entries)}]}}'.encode()]))

    assert lines == items == wrong
    assert [member.problem for member in members] == [*wrong[:2], None]


def test_a_broken_line_takes_no_other_with_it() -> None:
    lines = b'{"a": {"b": 1, "b": 1}, \n{"a": 1}\n'

    (_, broken), whole = read_records([lines], ".jsonl")

    assert str(broken).startswith("is not JSON")
    assert whole == ("line 2", {"a": 1})
