"""Labels that look wrong: those that models which have not learned from them do not believe in."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dlassets.errors import DlassetsError
from dlassets.extras import LABEL_ERRORS as EXTRA
from dlassets.extras import require
from dlassets.lakehouse.tables import LABEL_ERRORS
from dlassets.learning.calibration import calibrated
from dlassets.learning.examples import Examples, targets_of
from dlassets.learning.head import Head
from dlassets.learning.training.head_training import Chosen, train_head
from dlassets.settings import TrainingSettings

if TYPE_CHECKING:
    import pyarrow as pa

_FEWEST_FOLDS = 3
_NO_FOLD = -1


@dataclass(frozen=True)
class LabelErrors:
    """`errors` has LABEL_ERRORS' columns, the least believed label first; they are among `checked` rows.

    `small_classes` are those that were not checked, by name, with their rows: fewer than there are folds.
    """

    errors: pa.Table
    checked: int
    small_classes: dict[str, int]


def find_label_errors(
    rows: Examples,
    settings: TrainingSettings,
    folds: int = 5,
    seed: int = 0,
    on_fold: Callable[[int, int], None] | None = None,
) -> LabelErrors:
    """Find the rows whose label looks wrong by confident learning (Northcutt et al., 2021), through cleanlab.

    The confident joint says how many labels are wrong; those are the ones that are believed in least. Each fold is
    checked by a head that has learned from others, and whose end of training and temperature come from others too: what
    it says of a row owes nothing to the row's label, and its confidence means what it says. `on_fold` is called with
    how many folds are done, and of how many. With fewer than two classes that have `folds` rows, nothing is checked.
    Raises DlassetsError for fewer than three folds, and MissingExtraError without the extra `label-errors`.
    """
    require(EXTRA, "Finding labels that look wrong")
    if folds < _FEWEST_FOLDS:
        raise DlassetsError(f"{folds} folds are too few: one is judged, one ends the training. Use 3 or more.")
    names, counts = dict(zip(rows.labels.tolist(), rows.names, strict=True)), Counter(rows.labels.tolist())
    classes = sorted(label for label, count in counts.items() if count >= folds)
    small_classes = {names[label]: counts[label] for label in sorted(names.keys() - set(classes))}
    if len(classes) < 2:  # noqa: PLR2004 - a label is taken for another only where there is another
        return LabelErrors(LABEL_ERRORS.schema.empty_table(), 0, small_classes)
    is_checked = np.isin(rows.labels, classes)
    checked = rows.without_features().taken(is_checked)
    fold_of = np.full(len(rows), _NO_FOLD)
    fold_of[is_checked] = _folds(checked, folds, seed)
    probabilities = np.empty((len(rows), len(classes)))
    for fold in range(folds):
        ends_training = (fold + 1) % folds
        learned_from = is_checked & (fold_of != fold) & (fold_of != ends_training)
        head = _fitted(rows, (np.flatnonzero(learned_from), np.flatnonzero(fold_of == ends_training)), settings)
        held_out = np.flatnonzero(fold_of == fold)
        probabilities[held_out] = head.probabilities(rows.features, held_out)
        if on_fold is not None:
            on_fold(fold + 1, folds)
    of_classes = [(label, names[label]) for label in classes]
    return LabelErrors(_errors(checked, of_classes, probabilities[is_checked]), len(checked), small_classes)


def _fitted(rows: Examples, chosen: Chosen, settings: TrainingSettings) -> Head:
    return calibrated(train_head(rows, rows, settings, chosen=chosen).head, rows, chosen[1])


def _folds(rows: Examples, folds: int, seed: int) -> NDArray[np.int64]:
    """Return each row's fold: of each class as many in one as in another, but for one, whatever the rows' order."""
    hashes = [hashlib.sha256(f"{seed}\n{image_id}".encode()).hexdigest() for image_id in rows.image_ids]
    order = sorted(range(len(rows)), key=lambda row: (rows.labels[row], hashes[row]))
    found = np.empty(len(rows), dtype=np.int64)
    found[order] = np.arange(len(rows)) % folds
    return found


def _errors(rows: Examples, classes: Sequence[tuple[int, str]], probabilities: NDArray[np.float64]) -> pa.Table:
    import pyarrow as pa
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    targets = targets_of(rows.labels, [label for label, _ in classes])
    is_wrong = find_label_issues(targets, probabilities, filter_by="low_self_confidence", n_jobs=1)
    quality = get_label_quality_scores(targets, probabilities, method="self_confidence")
    suggested = probabilities.argmax(axis=1)
    found = [
        {
            "path": rows.paths[row],
            "image_id": rows.image_ids[row],
            "label": int(rows.labels[row]),
            "label_name": rows.names[row],
            "suggested_label": classes[suggested[row]][0],
            "suggested_name": classes[suggested[row]][1],
            "quality": float(quality[row]),
            "confidence": float(probabilities[row, suggested[row]]),
        }
        for row in np.flatnonzero(is_wrong & (suggested != targets))
    ]
    found.sort(key=lambda error: (error["quality"], error["image_id"]))
    return pa.Table.from_pylist(found, schema=LABEL_ERRORS.schema)
