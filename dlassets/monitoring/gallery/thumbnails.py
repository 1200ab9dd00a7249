"""The pictures themselves: the thumbnails of images that are shown, and a sheet of a few of them."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from itertools import islice, zip_longest
from typing import TYPE_CHECKING

from PIL import Image, ImageOps

from dlassets.engines.base import Engine, Snapshot
from dlassets.engines.schema import text_column
from dlassets.lakehouse.tables import IMAGE_PROFILES
from dlassets.monitoring.gallery.queries import Row

if TYPE_CHECKING:
    import pyarrow as pa

_COLUMNS, _ROWS, _TILE = 5, 4, 80


def thumbnails_of(engine: Engine, image_profiles: Snapshot, image_ids: set[str]) -> dict[str, bytes]:
    """Return JPEGs by image_id, of the images that have one."""
    keys = engine.rows(text_column("image_id", sorted(image_ids)))
    columns = IMAGE_PROFILES.columns_named("image_id", "thumbnail")
    rows = engine.map(image_profiles, ["image_id", "thumbnail"], keys, _same, columns).arrow()
    pairs = zip(rows["image_id"].to_pylist(), rows["thumbnail"].to_pylist(), strict=True)
    return {image_id: thumbnail for image_id, thumbnail in pairs if thumbnail}


def _same(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Kernel: the rows themselves."""
    return batch


def contact_sheet(sections: Sequence[Row], thumbnails: Mapping[str, bytes]) -> bytes | None:
    """Return a JPEG with a picture of each section, then a second of each, and so on; None where there is none."""
    in_turn = (row for place in zip_longest(*(section["rows"] for section in sections)) for row in place if row)
    chosen = [thumbnails[row["image_id"]] for row in islice(in_turn, _COLUMNS * _ROWS)]
    if not chosen:
        return None
    sheet = Image.new("RGB", (_COLUMNS * _TILE, -(-len(chosen) // _COLUMNS) * _TILE), "white")
    for number, content in enumerate(chosen):
        row, column = divmod(number, _COLUMNS)
        with Image.open(io.BytesIO(content)) as image:
            tile = ImageOps.pad(image, (_TILE - 2, _TILE - 2), color="white")
            sheet.paste(tile, (column * _TILE + 1, row * _TILE + 1))
    out = io.BytesIO()
    sheet.save(out, "JPEG", quality=75)
    return out.getvalue()
