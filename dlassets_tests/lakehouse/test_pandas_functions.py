"""Users' own pandas functions: the example of docs/own-columns.md as it stands there, and what is promised of parts."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dlassets.engines.local import LocalEngine
from dlassets.engines.schema import Column
from dlassets.errors import DlassetsError
from dlassets.images.digest import image_id_of
from dlassets.lakehouse import pandas_functions
from dlassets.lakehouse.pandas_functions import apply_in_pandas
from dlassets.lakehouse.snapshots import pin
from dlassets.pipeline.session import Session
from dlassets.storage.lake import Lake
from dlassets_tests.tables import image_id, put

if TYPE_CHECKING:
    import pandas as pd

DOCUMENT = Path(__file__).parents[2] / "docs" / "own-columns.md"
KEY, WIDTH = Column("image_id", "string", ""), Column("width", "int", "")


def profiles(lake: Lake, number: int) -> list[str]:
    names = [image_id(str(i)) for i in range(number)]
    rows = ({"image_id": name, "width": i, "height": 10, "brightness": i * 10.0} for i, name in enumerate(names))
    put(lake, "image_profiles", *rows)
    return names


def test_the_document_s_example_does_what_it_says(engine, lake, monkeypatch, capsys) -> None:
    names = profiles(lake, 21)
    raw = [{"path": f"z/{name}.jpg", "image_id": name, "folder": f"{i % 2}.c"} for i, name in enumerate(names)]
    put(lake, "raw_images", *raw)
    monkeypatch.setenv("DLASSETS_ROOT", lake.root)
    monkeypatch.setattr(Session, "engine", engine)
    blocks = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert len(blocks) == 3
    example: dict = {}

    exec("\n".join(blocks), example)

    found = [tuple(row.values()) for row in example["by_class"].to_pylist()]
    assert found == [
        ("0.c", "landscape", "bright", 2),
        ("0.c", "landscape", "medium", 3),
        ("0.c", "portrait", "dark", 5),
        ("0.c", "portrait", "medium", 1),
        ("1.c", "landscape", "bright", 1),
        ("1.c", "landscape", "medium", 4),
        ("1.c", "portrait", "dark", 4),
        ("1.c", "portrait", "medium", 1),
    ]
    assert "landscape" in capsys.readouterr().out


@pytest.mark.contract
def test_parts_are_bounded_and_every_row_is_in_one(engine, lake, monkeypatch) -> None:
    monkeypatch.setattr(pandas_functions, "PART_ROWS", 8)
    names = profiles(lake, 100)

    def with_the_part_s_size(part: "pd.DataFrame") -> "pd.DataFrame":
        import pandas as pd

        assert list(part.columns) == ["image_id", "width"]
        return pd.DataFrame({"rows": len(part), "image_id": part["image_id"], "width": part["width"]})

    returns = [KEY, Column("rows", "bigint", ""), WIDTH]
    rows = apply_in_pandas(engine, pin(lake, "image_profiles"), with_the_part_s_size, ["width"], returns).arrow()

    assert dict(zip(*(rows[name].to_pylist() for name in ("image_id", "width")), strict=True)) == {
        name: i for i, name in enumerate(names)
    }
    assert 1 <= max(rows["rows"].to_pylist()) <= 3 * 8


def test_a_damaged_photo_is_shown_to_no_function(lake) -> None:
    contents, taken_in = {"whole": b"a photo", "flipped": b"b photo", "elsewhere": None}, image_id_of(b"a photo")
    put(lake, "raw_images", *({"path": p, "image_id": taken_in, "content": each} for p, each in contents.items()))

    def lengths(part: "pd.DataFrame") -> "pd.DataFrame":
        assert list(part.columns) == ["path", "content"]
        return part.assign(width=part["content"].map(lambda content: len(content or b"")))[["path", "width"]]

    returns = [Column("path", "string", ""), WIDTH]
    rows = apply_in_pandas(LocalEngine(), pin(lake, "raw_images"), lengths, ["content"], returns, key="path").arrow()

    assert dict(zip(rows["path"].to_pylist(), rows["width"].to_pylist(), strict=True)) == {"whole": 7, "elsewhere": 0}


def test_parts_are_smaller_where_rows_are_large(lake, monkeypatch) -> None:
    monkeypatch.setattr(pandas_functions, "PART_BYTES", 100_000)
    contents = [bytes([i]) * 10_000 for i in range(50)]
    photos = [{"path": str(i), "image_id": image_id_of(each), "content": each} for i, each in enumerate(contents)]
    put(lake, "raw_images", *photos)
    sizes: list[int] = []

    def measure(part: "pd.DataFrame") -> "pd.DataFrame":
        sizes.append(sum(map(len, part["content"])))
        return part[["image_id"]]

    rows = apply_in_pandas(LocalEngine(), pin(lake, "raw_images"), measure, ["content"], [KEY]).arrow()

    assert rows.num_rows == 50
    assert max(sizes) <= 100_000


def test_a_function_may_return_fewer_rows_or_more(local_engine, lake) -> None:
    first, *_ = profiles(lake, 3)

    def twice_the_narrow_ones(part: "pd.DataFrame") -> "pd.DataFrame":
        import pandas as pd

        narrow = part[part["width"] < 1]
        return pd.concat([narrow, narrow])[["image_id"]]

    rows = apply_in_pandas(local_engine, pin(lake, "image_profiles"), twice_the_narrow_ones, ["width"], [KEY]).arrow()

    assert rows["image_id"].to_pylist() == [first, first]


def test_a_table_without_rows_gives_none(local_engine, lake) -> None:
    rows = apply_in_pandas(local_engine, pin(lake, "image_profiles"), lambda part: part, ["width"], [KEY]).arrow()

    assert (rows.num_rows, rows.column_names) == (0, ["image_id"])


def test_results_without_the_key_are_refused(lake) -> None:
    with pytest.raises(DlassetsError, match="Name the key 'image_id'"):
        apply_in_pandas(LocalEngine(), pin(lake, "image_profiles"), lambda part: part, ["width"], [WIDTH])


def test_what_the_function_raises_comes_out(lake) -> None:
    profiles(lake, 1)

    def fails(part: "pd.DataFrame") -> "pd.DataFrame":
        raise RuntimeError("as the user wrote it")

    with pytest.raises(RuntimeError, match="as the user wrote it"):
        apply_in_pandas(LocalEngine(), pin(lake, "image_profiles"), fails, [], [KEY]).arrow()
