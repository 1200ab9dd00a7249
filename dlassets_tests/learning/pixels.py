"""A small training set of photos, and a small network that passes for a pretrained one."""

from collections.abc import Sequence
from pathlib import Path

from dlassets.engines.base import Snapshot
from dlassets.lakehouse.lake import Lake
from dlassets.lakehouse.snapshots import pin
from dlassets.lakehouse.training_set import PIXELS
from dlassets.learning.backbones import BackboneRef
from dlassets_tests.tables import image_id, put

NETWORK = "timm/test_efficientnet"
TRAINED_ON = 12
SHARES = {"validation": slice(12, 16), "test": slice(16, 20)}


def put_photos(lake: Lake, photos: Path, trained_on: Sequence[int] = (TRAINED_ON, TRAINED_ON)) -> Snapshot:
    """Write training_set: of each class so many photos to learn from, 4 to validate and 4 to test with."""
    rows = []
    for label, (folder, count) in enumerate(zip(sorted(photos.iterdir()), trained_on, strict=False), start=7):
        for split, share in {"train": slice(count), **SHARES}.items():
            for path in sorted(folder.iterdir())[share]:
                name = f"{folder.name}/{path.name}"
                rows.append(
                    {
                        "path": name,
                        "image_id": image_id(name),
                        "label": label,
                        "label_name": folder.name,
                        "feature_version": PIXELS,
                        "split": split,
                        "content": path.read_bytes(),
                    }
                )
    put(lake, "training_set", *rows)
    return pin(lake, "training_set")


def weights_file(folder: Path) -> BackboneRef:
    """Return a backbone whose weights come from a file, and so are not to be learned from nothing."""
    from safetensors.torch import save_file

    from dlassets.learning.backbones import network

    path = folder / "weights.safetensors"
    save_file(network(BackboneRef(NETWORK, "none")).network.state_dict(), path)
    return BackboneRef(NETWORK, str(path))
