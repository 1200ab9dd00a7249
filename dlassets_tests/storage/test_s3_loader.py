"""The loader reads a table in a bucket in place, through Arrow, with nothing but the environment to reach it."""

from pathlib import Path

from dlassets.learning.loader import Sampling, decode_to_tensor, torch_loader
from dlassets_tests.learning.loader.tables import write


def test_photos_of_a_partitioned_table_in_a_bucket_are_loaded(bucket: str, photos: Path) -> None:
    uri = f"s3://{bucket}/lake/tables/training set"
    files = sorted(photos.glob("*/*"))[:20]
    write(
        uri,
        [
            {"path": file.name, "label": 1, "features": None, "content": file.read_bytes(), "split": split}
            for file in files
            for split in ("train", "test")
        ],
    )

    loader = torch_loader(uri, 0, "train", ["path", "content"], decode_to_tensor(32), Sampling(batch_size=6))
    batches = list(loader)

    assert sorted(path for batch in batches for path in batch["path"]) == [file.name for file in files]
    local = {file.name: decode_to_tensor(32).decode(file.read_bytes()) for file in files}
    assert all(
        bool((pixels == local[path]).all())
        for batch in batches
        for path, pixels in zip(batch["path"], batch["content"], strict=True)
    )
