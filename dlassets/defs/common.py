"""A step as an asset: its spec, and what it reports. Where it runs is said in `compute`. No logic of any one step."""

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import dagster as dg

from dlassets.engines.schema import Table
from dlassets.lakehouse.provenance import Provenance
from dlassets.lakehouse.tables import IMAGE_PROFILES, TABLES
from dlassets.masking import masked
from dlassets.pipeline.report import Report
from dlassets.pipeline.session import Session
from dlassets.pipeline.step import Made, Reads, Step
from dlassets.registry.models import Model

INGEST, TRAINING, SCORING, LABELING = "ingest", "training", "scoring", "labeling"
OWNERS = ["team:ml-platform"]
PIPELINE_TAG = "dlassets/pipeline"

Metadata = Mapping[str, Any]


Results = Callable[[Session, Step, Report], Sequence[dg.MaterializeResult]]


@dataclass(frozen=True)
class StepAsset:
    """A step as the assets of what it makes, wherever it runs.

    `decorator` is Dagster's, which takes a config schema, tags and a pool besides. `results` runs a step and says what
    is reported of it: `step`, or the other one that `instead` has a run take in its place. `config` is what a run may
    set of its session's fields.
    """

    step: Step
    group: str
    results: Results
    decorator: Callable[..., Callable[[Any], dg.AssetsDefinition]]
    config: Mapping[str, dg.Field] = field(default_factory=dict)
    instead: Callable[[dg.AssetExecutionContext], Step | None] = lambda _: None


def table_asset(
    step: Step,
    group: str,
    metadata: Callable[[Session, Reads, Made], Metadata] | None = None,
    config: Mapping[str, dg.Field] | None = None,
) -> StepAsset:
    """Return the assets of a step that makes tables. `metadata` says what they report besides their table's.

    It may read what the step declares, and nothing else. `config` is what a run may set of its session's fields.
    """

    def results(session: Session, step: Step, report: Report) -> list[dg.MaterializeResult]:
        read, made = step.done(session, report)
        more = metadata(session, read, made) if metadata else {}
        return [table_result(session, TABLES[name], made, more) for name in made.written]

    decorator = functools.partial(
        dg.multi_asset,
        name=step.name,
        specs=[table_spec(table, group, step) for table in step.makes if isinstance(table, Table)],
        description=step.description,
        can_subset=len(step.makes) > 1,  # so that `--select raw_images` will do; all are written whichever is asked for
    )
    return StepAsset(step, group, results, decorator, config or {})


def model_asset(
    step: Step,
    kinds: set[str],
    result: Callable[[Session, Made], dg.MaterializeResult],
    checks: Sequence[dg.AssetCheckSpec],
    instead: Callable[[dg.AssetExecutionContext], Step | None] = lambda _: None,
) -> StepAsset:
    """Return the asset of a step that makes something in MLflow; `result` says what it reports.

    `instead` may name another step that a run takes in its place.
    """
    (model,) = step.makes

    def results(session: Session, step: Step, report: Report) -> list[dg.MaterializeResult]:
        return [result(session, step.run(session, report))]

    decorator = functools.partial(
        dg.asset,
        name=model.name,
        deps=_deps(step),
        description=model.description,
        group_name=TRAINING,
        owners=OWNERS,
        kinds=kinds,
        code_version="1",
        check_specs=checks,
    )
    return StepAsset(step, TRAINING, results, decorator, instead=instead)


def table_spec(table: Table, group: str, step: Step) -> dg.AssetSpec:
    """Return the spec of the asset that a step writes `table` as."""
    return dg.AssetSpec(
        table.name,
        deps=_deps(step),
        description=table.description,
        group_name=group,
        owners=OWNERS,
        kinds={"deltalake", "image" if table.wide else "table"},
        tags={"dlassets/storage": "wide" if table.wide else "narrow"},
        code_version="1",
        metadata={
            "dagster/column_schema": column_schema(table),
            "dagster/table_name": table.name,
            "key": ", ".join(table.key),
        },
    )


def column_schema(table: Table) -> dg.TableSchema:
    return dg.TableSchema(
        [
            dg.TableColumn(
                column.name,
                column.type,
                column.description,
                constraints=dg.TableColumnConstraints(nullable=column.nullable, unique=table.key == (column.name,)),
            )
            for column in table.columns
        ]
    )


def table_result(session: Session, table: Table, made: Made, more: Metadata) -> dg.MaterializeResult:
    """Return what a table asset reports: its Delta version as data version, its size, and what it was made of."""
    now, rows = session.measure(table)
    written = made.written[table.name]
    return dg.MaterializeResult(
        asset_key=table.name,
        data_version=dg.DataVersion(str(now.version)),
        metadata={
            "dagster/row_count": rows,
            "dagster/uri": masked(now.uri),
            "delta_version": now.version,
            "rows_inserted": written.inserted,
            "rows_updated": written.updated,
            **({"rows_left_out": written.left_out} if written.left_out else {}),
            **({"photos_quarantined": written.quarantined} if written.quarantined else {}),
            **({"photos_failed": len(written.failed)} if written.failed else {}),
            "changed": "a new version" if written.changed else "nothing new: the table was left as it is",
            "engine": session.settings.engine,
            "provenance": provenance_value(made.provenance),
            **more,
        },
    )


def provenance_value(provenance: Provenance) -> dg.JsonMetadataValue:
    return dg.MetadataValue.json(json.loads(json.dumps(provenance.as_dict())))


def page(session: Session, name: str, **asked: str | int) -> dg.UrlMetadataValue:
    """Return a link to a page of `dlassets dev`: see `UiSettings.page`."""
    return dg.MetadataValue.url(session.settings.ui.page(name, **asked))


def file_page(session: Session, location: str) -> dg.UrlMetadataValue:
    """Return a link to a report or contact sheet: browsers follow none from a page of a server to a file."""
    return page(session, f"files/{session.lake.within(location)}")


def few_photos(
    session: Session, read: Reads, rows: Sequence[dict[str, Any]], columns: Mapping[str, str]
) -> dg.MarkdownMetadataValue:
    """Return a table of photos with their thumbnails, each with a link to its page.

    `rows` have path, image_id and those `columns`, by name with their titles; the step reads `image_profiles`.
    """
    from dlassets.monitoring import markdown
    from dlassets.monitoring.gallery.thumbnails import thumbnails_of

    thumbnails = thumbnails_of(session.engine, read[IMAGE_PROFILES], {row["image_id"] for row in rows})

    def photo_page(path: str) -> str:
        return session.settings.ui.page("photo", path=path)

    return dg.MetadataValue.md(markdown.photos(rows, thumbnails, columns, photo_page))


def _deps(step: Step) -> Sequence[str]:
    read: Sequence[Table | Model] = step.reads
    return [each.name for each in read]


def details(_: Session, __: Reads, made: Made) -> Metadata:
    """Report what the step has to say, as it stands."""
    return made.details
