"""Batches of tensors from a pinned version of any Delta table, read in place: `torch_loader`."""

from dlassets.learning.loader.batches import Cache, Loader, Transform, decode_to_tensor, torch_loader

__all__ = ["Cache", "Loader", "Transform", "decode_to_tensor", "torch_loader"]
