"""Batches of tensors from a pinned version of any Delta table, read in place: `torch_loader`."""

from dlassets.learning.loader.batches import Loader, torch_loader
from dlassets.learning.loader.decoding import Cache, Transform, decode_to_tensor
from dlassets.learning.loader.epochs import Sampling

__all__ = ["Cache", "Loader", "Sampling", "Transform", "decode_to_tensor", "torch_loader"]
