"""The photos of a pinned training set as batches of pixels: what a network is trained and evaluated on."""

from __future__ import annotations

import functools
import logging
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from dlassets.engines.base import Commit
from dlassets.errors import DlassetsError, some_of
from dlassets.images.decode import View
from dlassets.lakehouse.failures import attempted, note
from dlassets.lakehouse.photos import Photos
from dlassets.lakehouse.tables import IMAGE_ID, TRAIN, VALIDATION
from dlassets.lakehouse.training_set import PIXELS
from dlassets.learning.examples import Examples, Splits, read_split, read_splits
from dlassets.learning.features import cached_version
from dlassets.learning.loader import Sampling, torch_loader
from dlassets.learning.training.augment import load, load_augmented
from dlassets.learning.training.classes import Classes
from dlassets.learning.training.classifier import embedded
from dlassets.learning.training.group import ALONE, Group
from dlassets.learning.training.job import Job

if TYPE_CHECKING:
    import pyarrow as pa
    import torch

    Batch = tuple[torch.Tensor, torch.Tensor]

EVALUATED_AT_ONCE = 32
SECONDS_BETWEEN = 5.0  # lines in the log on how far it is
_NAMED = 5  # of many photos that are damaged

_log = logging.getLogger(__name__)


class PhotoBatches:
    """The photos that one process of a group learns from: parts of the same batches whatever the group's size."""

    def __init__(self, job: Job, group: Group, splits: Splits | None = None) -> None:
        """Raise DlassetsError where there are no photos, too few, or none in validation of a class that is learned.

        `splits` are the training set's, where they have been read already.
        """
        self.splits = splits or read_splits(job.training_set, features=False)
        if cached_version(job.training_set, TRAIN) != PIXELS:
            raise DlassetsError(
                f"Version {job.training_set.version} of {job.training_set.name} holds features and no photos. Set "
                "training.trainable to last_n or all for it as well, and materialize it again."
            )
        self.classes = Classes.of(self.splits[TRAIN])
        if not np.isin(self.splits[VALIDATION].labels, self.classes.labels).any():
            raise DlassetsError(
                "The validation split has no image of a class that the training split has. Put more photos of each "
                "class into the labelled landing zone."
            )
        settings = job.settings.pixels
        self._loader = torch_loader(
            job.training_set.uri,
            job.training_set.version,
            TRAIN,
            ["content", "label"],
            functools.partial(load_augmented, kind=settings.augmentation, view=job.backbone.view),
            Sampling(
                batch_size=settings.batch_size,
                shard=(group.rank, group.size),
                seed=job.settings.seed,
                balance_by="label" if job.settings.balance == "sampling" else None,
                compare_with="image_id",
            ),
            settings.workers,
        )
        self.steps = len(self._loader)

    @property
    def damaged(self) -> list[str]:
        """The paths that this process has left out so far, since their bytes are not those that were taken in."""
        return self._loader.damaged

    def batches(self, epoch: int, step: int) -> Iterator[Batch]:
        """Yield this process's parts of an epoch's batches, from `step` on: (N, side, side, 3) pixels, (N,) classes.

        What is damaged is left out of its part, of which perhaps nothing is left: the steps stay as many.
        """
        self._loader.load_state_dict({"epoch": epoch, "step": step})
        for batch in self._loader:
            tensors: dict[str, Any] = batch
            yield tensors["content"], self.classes.indices(tensors["label"])


def features_of(
    job: Job, split: str, network: Any, *, rows: Examples | None = None, group: Group = ALONE, bfloat16: bool = False
) -> Examples:
    """Return the rows of a split with the features that `network` (see `backbones.network`) gives of their photos.

    Photos are seen as scoring sees them, in the view of the job's backbone. Those whose bytes are not what was taken in
    or do not decode are left out, which the log tells of. The network is left on the group's device, in evaluation
    mode. Each process of a group embeds its part, and all are given the whole; the log tells, every few seconds, how
    far its own part is. `rows` are the split's, where they have been read already. Raises DlassetsError for a split of
    which all is left out.
    """
    import torch

    rows = read_split(job.training_set, split, features=False) if rows is None else rows
    places = {image_id: place for place, image_id in enumerate(rows.image_ids)}
    features = torch.zeros(len(rows), network.dimensions, device=group.device)
    there = torch.zeros(len(rows), device=group.device)
    network = network.to(device=group.device, memory_format=torch.channels_last).eval()
    done, logged = 0, time.monotonic()
    with torch.no_grad():
        for batch in _in_order(job, split, len(rows), group):
            if not (numbers := [places[image_id] for image_id in batch["image_id"]]):
                continue
            features[numbers] = embedded(network, batch["content"].to(group.device), bfloat16=bfloat16)
            there[numbers] = 1
            done += len(numbers)
            if time.monotonic() - logged > SECONDS_BETWEEN:
                logged = time.monotonic()
                _log.info("%d of %d photos embedded", done, math.ceil(len(rows) / group.size))
    embedded_rows = replace(rows, features=group.sum(features).cpu().numpy())
    is_whole = group.sum(there).cpu().numpy() > 0
    if is_whole.all():
        return embedded_rows
    damaged = [rows.paths[place] for place in np.flatnonzero(~is_whole)]
    if len(damaged) == len(rows):
        raise DlassetsError(f"No photo of the {split} split is left. {damage_of(job, damaged)}")
    if group.is_main:
        _log.warning("Of the %s split: %s", split, damage_of(job, damaged))
    return embedded_rows.taken(is_whole)


def note_unseen(photos: Photos, paths: Sequence[str], view: View, stage: str, commit: Commit) -> list[str]:
    """Note those of the paths whose bytes are whole and cannot be shown to a network; return them."""
    rows, failed = attempted(photos, photos.keys(paths), functools.partial(_seen, view=view), (IMAGE_ID,))
    rows.count()
    return note(photos, failed, stage, commit)


def _seen(batch: pa.RecordBatch, *, view: View) -> pa.RecordBatch:
    """Kernel: the photos that can be shown to a network. Raises ImageError for one that cannot."""
    for content in batch["content"]:
        load(content.as_py(), view)
    return batch.select(["image_id"])


def damage_of(job: Job, paths: Sequence[str]) -> str:
    """Say which photos of the training set were left out for being damaged, and what to do."""
    return (
        f"Damaged and left out, {len(paths)} in all of version {job.training_set.version} of {job.training_set.name}: "
        f"{some_of(paths, _NAMED)}. `dlassets verify --restore` puts their bytes back; then train again. "
        "What it finds whole does not decode: replace that, or delete it."
    )


def _in_order(job: Job, split: str, count: int, group: Group) -> Iterable[dict[str, Any]]:
    """Return this process's part of a split's photos, as scoring sees them: all are rank 0's where they are few."""
    shard = (group.rank, group.size) if count >= group.size else (0, 1)
    if not count or (shard == (0, 1) and not group.is_main):
        return ()
    return torch_loader(
        job.training_set.uri,
        job.training_set.version,
        split,
        ["content", "image_id"],
        lambda content, _: load(content, job.backbone.view),
        Sampling(batch_size=EVALUATED_AT_ONCE * shard[1], shard=shard, shuffle=False, compare_with="image_id"),
        job.settings.pixels.workers,
    )
