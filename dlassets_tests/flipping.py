"""Flips bits of what a table holds, as a bad disk would."""

from pathlib import Path

from dlassets.images.digest import image_id_of
from dlassets.storage.lake import Lake


def flip_a_bit(lake: Lake, content: bytes, place: int = 30) -> int:
    """Flip one bit of these bytes in every file of the lake that holds them; return how many do."""
    files = [path for folder in ("tables/raw_images", "files") for path in Path(lake.under(folder)).rglob("*")]
    found = 0
    for file in filter(Path.is_file, files):
        data = bytearray(file.read_bytes())
        if (start := data.find(content)) >= 0:
            data[start + place] ^= 1
            file.write_bytes(data)
            file.with_name(f".{file.name}.crc").unlink(missing_ok=True)  # by which Spark would read nothing of the file
            found += 1
    return found


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


def flip_footer(file: Path) -> None:
    """Turn the bits of a Parquet file's footer over: as many bytes as before."""
    content = bytearray(file.read_bytes())
    content[-60:-12] = bytes(byte ^ 0xFF for byte in content[-60:-12])
    file.write_bytes(content)
