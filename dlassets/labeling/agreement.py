"""How far people agree beyond what chance would bring."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dlassets.labeling.overlap import UNANSWERED, Answers

# Common images below which two people's kappa says nothing: its standard error is some 0.3 then.
FEWEST_COMMON = 10


def cohen_kappa(one: NDArray[np.int64], other: NDArray[np.int64]) -> float | None:
    """Return the agreement of two people about the same images beyond chance (Cohen, 1960), 1 where they always agree.

    None where there is no image, or both gave one and the same label to all of them: chance brings as much.
    """
    if not len(one):
        return None
    labels, codes = np.unique(np.concatenate([one, other]), return_inverse=True)
    table = np.zeros((len(labels), len(labels)))
    np.add.at(table, (codes[: len(one)], codes[len(one) :]), 1 / len(one))
    by_chance = float(table.sum(axis=0) @ table.sum(axis=1))
    return None if len(labels) == 1 else (float(np.trace(table)) - by_chance) / (1 - by_chance)


def fleiss_kappa(counts: NDArray[np.int64]) -> float | None:
    """Return the agreement of a group beyond chance (Fleiss, 1971), of how many gave each image each label.

    `counts` is (images, labels). Images may have different numbers of answers, of which those with two or more count.
    None without any, or where all gave one label.
    """
    counts = counts[counts.sum(axis=1) > 1].astype(float)
    if not len(counts):
        return None
    answers = counts.sum(axis=1)
    of_each = (counts * (counts - 1)).sum(axis=1) / (answers * (answers - 1))
    by_chance = float(((counts.sum(axis=0) / counts.sum()) ** 2).sum())
    return None if by_chance == 1 else (float(of_each.mean()) - by_chance) / (1 - by_chance)


def group_kappa(answers: Answers) -> float | None:
    """Return Fleiss' kappa of all who have answered about the same images."""
    labels = sorted(set(np.unique(answers.labels).tolist()) - {UNANSWERED})
    return (
        fleiss_kappa(np.stack([(answers.labels == label).sum(axis=1) for label in labels], axis=1)) if labels else None
    )


def kappa_with_others(answers: Answers, place: int) -> tuple[float | None, int]:
    """Return a person's Cohen's kappa with others, a mean by their common images, and how many images those are.

    With each it is by what both have answered about; those with fewer than FEWEST_COMMON images in common are left out.
    """
    own, kappas, weights = answers.labels[:, place], [], []
    for other in range(len(answers.annotators)):
        theirs = answers.labels[:, other]
        both = (own != UNANSWERED) & (theirs != UNANSWERED)
        if other != place and both.sum() >= FEWEST_COMMON:
            kappa = cohen_kappa(own[both], theirs[both])
            if kappa is not None:
                kappas.append(kappa)
                weights.append(int(both.sum()))
    return (float(np.average(kappas, weights=weights)) if kappas else None), sum(weights)
