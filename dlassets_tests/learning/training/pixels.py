"""A small training set of photos, and a small network that passes for a pretrained one."""

from collections.abc import Callable, Sequence
from pathlib import Path

from dlassets.engines.base import Snapshot
from dlassets.images.digest import image_id_of
from dlassets.lakehouse.snapshots import pin
from dlassets.lakehouse.training_set import PIXELS
from dlassets.learning.backbones import BackboneRef, network
from dlassets.learning.training.augment import load
from dlassets.storage.lake import Lake
from dlassets_tests.tables import put

NETWORK = "timm/test_efficientnet"
TRAINED_ON = 12
SHARES = {"validation": slice(12, 16), "test": slice(16, 20)}


def put_photos(
    lake: Lake,
    photos: Path,
    trained_on: Sequence[int] = (TRAINED_ON, TRAINED_ON),
    damaged: Callable[[int, str], bool] = lambda *_: False,
) -> Snapshot:
    """Write training_set: of each class so many photos to learn from, 4 to validate and 4 to test with.

    The bytes of `damaged` ones, by their place in the class and split, are not those that were taken in.
    """
    rows = []
    for label, (folder, count) in enumerate(zip(sorted(photos.iterdir()), trained_on, strict=False), start=7):
        for split, share in {"train": slice(count), **SHARES}.items():
            for place, path in enumerate(sorted(folder.iterdir())[share]):
                name = f"{folder.name}/{path.name}"
                of_class = {"label": label, "label_name": folder.name, "feature_version": PIXELS, "split": split}
                taken_in = path.read_bytes()
                content = taken_in[:-1] if damaged(place, split) else taken_in
                rows.append(of_class | {"path": name, "image_id": image_id_of(taken_in), "content": content})
    put(lake, "training_set", *rows)
    return pin(lake, "training_set")


def weights_file(folder: Path, photos: Path) -> BackboneRef:
    """Return a backbone whose weights come from a file: random ones, but with the statistics of photos."""
    import torch
    from safetensors.torch import save_file

    net = network(BackboneRef(NETWORK, "none")).train()
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # of all that it sees, and nothing of what it began with
    with torch.no_grad():
        net(torch.stack([load(path.read_bytes()) for path in sorted(photos.rglob("*.jpg"))[::4]]))
    path = folder / "weights.safetensors"
    save_file(net.network.state_dict(), path)
    return BackboneRef(NETWORK, str(path))
