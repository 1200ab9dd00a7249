"""Care of the tables, an asset each: what was put together, what was deleted, what was kept for which models."""

import functools

import dagster as dg

from dlassets.defs.common import OWNERS, Metadata, StepAsset
from dlassets.engines.schema import Table
from dlassets.lakehouse.tables import BOOKS, RAW_IMAGES, TABLES
from dlassets.masking import masked
from dlassets.pipeline.report import Report
from dlassets.pipeline.session import Session
from dlassets.pipeline.step import Made, Reads, Step, step

OPERATIONS = "operations"
MAINTENANCE = "maintenance"


def maintenance_key(name: str) -> dg.AssetKey:
    return dg.AssetKey([MAINTENANCE, name])


def care_of(table: Table) -> StepAsset:
    """Return the asset that cares for a table; one of BOOKS is left unmade where nobody has written to it yet."""
    key = maintenance_key(table.name)

    def work(session: Session, read: Reads, _: Report) -> Made:
        return Made(read.provenance(), details=_cared_for(session, table))

    def results(session: Session, care: Step, report: Report) -> list[dg.MaterializeResult]:
        done = care.run(session, report).details
        version = dg.DataVersion(str(done["delta_version"])) if "delta_version" in done else None
        return [dg.MaterializeResult(data_version=version, metadata=done)]

    work.__name__ = key.to_python_identifier()
    decorator = functools.partial(
        dg.asset,
        key=key,
        deps=[table.name] if table.name in TABLES else [],
        description=f"Small files of {table.name} put together, and files that neither a reader nor a model needs "
        "deleted.",
        group_name=OPERATIONS,
        owners=OWNERS,
        kinds={"deltalake"},
        code_version="1",
    )
    return StepAsset(step(table)(work), MAINTENANCE, results, decorator)


def _cared_for(session: Session, table: Table) -> Metadata:
    from dlassets.lakehouse.maintenance import maintain, sweep_files
    from dlassets.lakehouse.snapshots import newest
    from dlassets.registry.lineage import needed_versions

    settings = session.settings
    if table.name in BOOKS and newest(session.lake, table.name) is None:
        return {"changed": "nothing new: there is no such table yet"}
    needed = needed_versions(session.engine, session.lake, session.mlflow.client)
    done = maintain(session.engine, session.lake, table, settings.maintenance, needed.get(table.name, ()))
    swept = sweep_files(session.lake, settings.maintenance.retention_hours) if table is RAW_IMAGES else None
    now = session.pin(table)
    files = done.files
    return {
        "dagster/uri": masked(now.uri),
        "delta_version": now.version,
        "files_before": files.files_before,
        "files_after": files.files_after,
        "bytes_before": files.bytes_before,
        "bytes_after": files.bytes_after,
        "files_deleted": files.files_deleted,
        "bytes_deleted": files.bytes_deleted,
        **({"photo_files_deleted": swept[0], "photo_bytes_deleted": swept[1]} if swept else {}),
        "log_files_deleted": done.log_files_deleted,
        "checkpoint": "written" if done.checkpointed else "not due",
        "z_order": "laid out" if done.z_ordered else "not due",
        "versions_kept_for_models": list(done.kept),
        "versions_lost_before": list(done.lost),
        "retention_hours": settings.maintenance.retention_hours,
        "compaction": "postponed: other runs wrote all the time" if done.postponed else "done",
        "changed": "a new version" if done.changed else "nothing new: the table was left as it is",
        "engine": settings.engine,
    }


@dg.asset(
    key=maintenance_key("dagster_runs"),
    description="Runs of Dagster that ended long ago deleted, with their events and logs: its databases grow by each.",
    group_name=OPERATIONS,
    owners=OWNERS,
    kinds={"sqlite"},
    code_version="1",
)
def dagster_runs(context: dg.AssetExecutionContext, session: dg.ResourceParam[Session]) -> dg.MaterializeResult:
    from dlassets.resources.old_runs import delete_old_runs

    days = session.settings.maintenance.run_days
    deleted = delete_old_runs(context.instance, days)
    return dg.MaterializeResult(metadata={"runs_deleted": deleted, "run_days": days})


CARE = [care_of(table) for table in (*TABLES.values(), *BOOKS.values())]
