"""What people's answers say of a version, put where MLflow shows that version: a picture, and a sentence."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dlassets.monitoring.labeling_report import measures, pictures
from dlassets.monitoring.labeling_report.counts import Version
from dlassets.monitoring.labeling_report.measures import Measure
from dlassets.registry.description import LABELLED, TAG_LABELLED, TAG_LABELLED_DIGEST, describe
from dlassets.registry.lifecycle import run_or_none
from dlassets.registry.outages import explained_mlflow

if TYPE_CHECKING:
    from mlflow.entities import Run

    from dlassets.registry.model_registry import ModelRegistry

# The newest versions that people's answers tell of have it, and the champion whatever its number.
_NEWEST = 3


def tell_versions(registry: ModelRegistry, known: Sequence[Measure], versions: Sequence[Version]) -> list[int]:
    """Bring what MLflow shows of the champion and the newest versions up to what is known; return whose was otherwise.

    Raises DlassetsError where MLflow cannot be reached.
    """
    judged = {each.model for each in known if each.figure == measures.ACCURACY}
    of_interest = [version for version in versions if version.model in judged and version.run_id]
    if not of_interest:
        return []
    with explained_mlflow("versions were told what people say of them"):
        history = registry.history()
        chosen = [v for v in of_interest if v in of_interest[-_NEWEST:] or v.model == history.champion]
        told = [version for version in chosen if _tell(registry, known, version)]
        if told:
            describe(registry, history, *(version.model.version for version in told))
    return [version.model.version for version in told]


def _tell(registry: ModelRegistry, known: Sequence[Measure], version: Version) -> bool:
    """Log a version's picture with its run, unless it is there; the tag that says so comes last."""
    run: Run | None = run_or_none(registry.client, version.run_id)
    of_model = [each for each in known if each.model == version.model]
    digest = hashlib.sha256("\n".join(sorted(map(repr, of_model))).encode()).hexdigest()
    if run is None or run.data.tags.get(TAG_LABELLED_DIGEST) == digest:
        return False
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder, LABELLED)
        picture.parent.mkdir()
        picture.write_bytes(pictures.of_version(of_model, version.model))
        registry.client.log_artifacts(version.run_id, folder)
    registry.client.set_tag(version.run_id, TAG_LABELLED, sentence(of_model))
    registry.client.set_tag(version.run_id, TAG_LABELLED_DIGEST, digest)
    return True


def sentence(of_model: Sequence[Measure]) -> str:
    """Say how often a version was right on photos that people labelled, and on those of them that chance chose."""
    of_all_time = {each.slice: each for each in of_model if each.figure == measures.ACCURACY and each.period is None}
    said = []
    for part, what in ((measures.ALL, "that people labelled"), (measures.RANDOM, "of these that chance chose")):
        found = of_all_time.get(part)
        if found is not None and found.value is not None and found.interval is not None:
            low, high = found.interval
            said.append(f"{found.value:.1%} of {found.count:,} {what} (95% interval: {low:.1%} to {high:.1%})")
    return "; ".join(said)
