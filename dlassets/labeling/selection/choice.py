"""Which photos go to people now."""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dlassets.engines.base import Engine, Rows, Snapshot
from dlassets.engines.schema import Table
from dlassets.labeling.embeddings import embedded, embeddings_of
from dlassets.labeling.selection.alike import one_of_each
from dlassets.labeling.selection.budget import room
from dlassets.labeling.selection.sources import READ, Source, asking, moment, scored, sources
from dlassets.labeling.selection.strategies import Candidates
from dlassets.lakehouse.hashing import SHUFFLED, digits
from dlassets.lakehouse.tables import (
    AUDIT,
    IMAGE_FEATURES,
    IMAGE_PROFILES,
    LABEL_REQUESTS,
    LABELED_IMAGES,
    WAITING,
    WITHDRAWN,
)
from dlassets.registry.models import ModelVersion
from dlassets.settings import LabelingSettings, Settings

if TYPE_CHECKING:
    import pyarrow as pa

    Tables = Mapping[str, Snapshot | Rows]

CHOSEN = ("path", "image_id", "predicted_label", "predicted_name", "confidence", "strategy", "priority")
# Photos that a strategy keeps away from, any of them where there are more.
_KNOWN = 10_000


def select_requests(
    engine: Engine, snapshots: Mapping[str, Snapshot], model: ModelVersion, settings: Settings
) -> tuple[pa.Table, int]:
    """Return the photos to ask people about, with the columns CHOSEN, and how many there are to ask about.

    No more are returned than `labeling.run_limit`, `day_limit` and `batch_limit` leave. Those of the highest priority
    go first, and of one priority they go by their source (see `sources`); the audit share goes before all others, lest
    people come to the unsure ones alone. None that was asked about before, but where that was withdrawn, and of
    look-alikes one. Equal bytes under several paths are one row. A photo that was replaced after it was scored, whose
    bytes are no longer to be had, that a step has failed for, or whose label is no longer the one that looked wrong, is
    left out. `snapshots` holds raw_images, deleted_files, quarantined_files, predictions, labeled_images,
    label_requests, image_profiles, image_features and, where `labeling.relabel_limit` is not 0, label_errors.
    """
    import pyarrow as pa

    now = engine.rows(moment(settings.labeling, dt.datetime.now(dt.UTC)))
    tables = {name: snapshots[name] for name in READ} | {
        "model": engine.rows(asking(model, settings.labeling)),
        "moment": now,
    }
    reasons = sources(settings)
    found = _in_order(_found(engine, tables, snapshots, settings, reasons), settings.labeling)
    requests = snapshots[LABEL_REQUESTS.name]
    found = one_of_each(engine, found, requests, snapshots[IMAGE_PROFILES.name], settings.split.look_alike_bits)
    left = room(engine, requests, now, settings.labeling)
    number = found.num_rows if left is None else min(left, found.num_rows)
    chosen, parts = 0, [found.slice(0, 0)]
    for source, part in _blocks(found, reasons):
        if chosen == number:
            break
        parts.append(_first(engine, snapshots, source, part, number - chosen))
        chosen += parts[-1].num_rows
    return _with_priority(pa.concat_tables(parts)).select(CHOSEN), found.num_rows


def _found(
    engine: Engine,
    tables: Tables,
    snapshots: Mapping[str, Snapshot],
    settings: Settings,
    reasons: Sequence[Source],
) -> pa.Table:
    """Return the photos of every source, with the columns of `scored` and those that say the source."""
    import pyarrow as pa

    of_model = engine.sql(scored(settings), tables).arrow()
    parts = []
    for place, source in enumerate(reasons):
        if source.flag:
            part = of_model.filter(of_model[source.flag])
        else:
            others = {name: snapshots[name] for name in source.reads}
            part = engine.sql(source.sql, {**tables, **others}).arrow()
        of_source = {"place": place, "strategy": source.name, "once_a_group": source.once_a_group}
        for name, value in of_source.items():
            part = part.append_column(name, pa.repeat(value, part.num_rows))
        parts.append(part)
    return pa.concat_tables(parts, promote_options="default")


def _in_order(found: pa.Table, labeling: LabelingSettings) -> pa.Table:
    """Return each image once, by priority, source, belief and image_id."""
    import pyarrow as pa
    import pyarrow.compute as pc

    first = max(0, *labeling.priorities.values()) + 1 if labeling.priorities else 1
    is_audited = pc.equal(found["strategy"], AUDIT)
    priority = pc.if_else(is_audited, pa.scalar(first), found["priority"].cast(pa.int64()))
    found = found.set_column(found.column_names.index("priority"), "priority", priority)
    order = [("priority", "descending"), ("place", "ascending"), ("belief", "ascending"), ("image_id", "ascending")]
    found = found.sort_by(order)
    _, firsts = np.unique(found["image_id"].to_numpy(), return_index=True)
    return found.take(np.sort(firsts))


def _blocks(found: pa.Table, reasons: Sequence[Source]) -> Iterator[tuple[Source, pa.Table]]:
    """Yield the rows of one priority and source after the other, in their order."""
    if not found.num_rows:
        return
    places, priorities = found["place"].to_numpy(), found["priority"].to_numpy()
    starts = np.flatnonzero((np.diff(places) != 0) | (np.diff(priorities) != 0)) + 1
    for start, end in pairwise([0, *starts.tolist(), found.num_rows]):
        yield reasons[places[start]], found.slice(start, end - start)


def _first(engine: Engine, snapshots: Mapping[str, Snapshot], source: Source, rows: pa.Table, number: int) -> pa.Table:
    """Return the rows that are asked about first, at most so many."""
    if source.order is None:
        return rows.slice(0, number)
    rows = rows.sort_by("image_id")
    image_ids = rows["image_id"].to_pylist()
    cached = _Cached(engine, snapshots, image_ids)
    candidates = Candidates(
        image_ids,
        rows["confidence"].to_numpy(),
        rows["margin"].to_numpy(),
        _probabilities(rows["top_k"]),
        cached.of,
        cached.waiting,
        cached.known,
    )
    return rows.take(source.order(candidates, number))


def _probabilities(top_k: pa.ChunkedArray) -> NDArray[np.float64]:
    """Return (photos, listed) of the probabilities that are listed, with 0 for each that another has more."""
    import pyarrow.compute as pc

    lists = top_k.combine_chunks()
    listed = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False).astype(np.intp)
    probabilities = np.zeros((len(listed), int(listed.max(initial=0))))
    is_listed = np.arange(probabilities.shape[1]) < listed[:, None]
    probabilities[is_listed] = pc.struct_field(pc.list_flatten(lists), "confidence").to_numpy(zero_copy_only=False)
    return probabilities


def _with_priority(chosen: pa.Table) -> pa.Table:
    """Return the rows with `priority` as the table has it: null where it is 0."""
    import pyarrow as pa
    import pyarrow.compute as pc

    priority = pc.if_else(pc.equal(chosen["priority"], 0), None, chosen["priority"]).cast(pa.int32())
    return chosen.set_column(chosen.column_names.index("priority"), "priority", priority)


@dataclass(frozen=True)
class _Cached:
    """Reads embeddings of the lake when a strategy wants them for some of `image_ids`."""

    engine: Engine
    snapshots: Mapping[str, Snapshot]
    image_ids: Sequence[str]

    def of(self, image_ids: Sequence[str]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        return embeddings_of(self.engine, image_ids, self.snapshots[IMAGE_FEATURES.name], self._version)

    def waiting(self) -> Iterator[NDArray[np.float32]]:
        return self._those_of(f"SELECT DISTINCT image_id FROM label_requests WHERE {WAITING}", LABEL_REQUESTS)  # noqa: S608

    def known(self) -> Iterator[NDArray[np.float32]]:
        """Yield embeddings of photos that have a label, or a request that is not withdrawn: of _KNOWN at most."""
        query = f"""
            SELECT image_id FROM (
                SELECT image_id FROM labeled_images
                UNION SELECT image_id FROM label_requests WHERE status <> '{WITHDRAWN}') AS known
            ORDER BY {digits("image_id", SHUFFLED)}, image_id LIMIT {_KNOWN:d}
        """  # noqa: S608 - constants
        return self._those_of(query, LABELED_IMAGES, LABEL_REQUESTS)

    def _those_of(self, query: str, *tables: Table) -> Iterator[NDArray[np.float32]]:
        found = self.engine.sql(query, {table.name: self.snapshots[table.name] for table in tables}).arrow()
        image_ids, features = found["image_id"].to_pylist(), self.snapshots[IMAGE_FEATURES.name]
        return (part for _, part in embedded(self.engine, image_ids, features, self._version))

    @functools.cached_property
    def _version(self) -> str:
        """The feature version that most of the photos have: the champion's, unless a newer one has overtaken it."""
        import pyarrow as pa

        query = """
            SELECT feature_version, COUNT(*) AS photos FROM image_features
            JOIN wanted ON wanted.image_id = image_features.image_id
            GROUP BY feature_version ORDER BY photos DESC, feature_version LIMIT 1
        """
        wanted = self.engine.rows(pa.table({"image_id": pa.array(self.image_ids, pa.string())}))
        features = self.snapshots[IMAGE_FEATURES.name]
        found = self.engine.sql(query, {IMAGE_FEATURES.name: features, "wanted": wanted}).arrow()
        return str(found["feature_version"][0]) if found.num_rows else ""
