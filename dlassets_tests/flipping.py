"""Flips bits of what a table holds of photos, as a bad disk would."""

from pathlib import Path

from dlassets.images.digest import image_id_of
from dlassets.storage.lake import Lake


def flip_in_training_set(lake: Lake, split: str) -> list[str]:
    """Flip a bit of a split that lies in one file; return the paths of the photos that are others for it.

    The file is compressed: of photos that have bytes in common more than one may be.
    """
    import pyarrow.parquet as pq

    (file,) = Path(lake.table("training_set"), f"split={split}").glob("*.parquet")
    group = pq.read_metadata(file).row_group(0)
    chunks = [group.column(place) for place in range(group.num_columns)]
    (content,) = [chunk for chunk in chunks if chunk.path_in_schema == "content"]
    data = bytearray(file.read_bytes())
    data[content.data_page_offset + content.total_compressed_size // 2] ^= 1
    file.write_bytes(data)
    rows = pq.ParquetFile(file).read(["path", "image_id", "content"]).to_pylist()
    damaged = sorted(row["path"] for row in rows if image_id_of(row["content"]) != row["image_id"])
    assert damaged
    return damaged
