"""Make what Dagster keeps in PostgreSQL, or bring it to its release, before its servers start side by side."""

from __future__ import annotations

from dlassets.lakehouse.tables import CONSENSUS, HUMAN_LABELS


def main() -> None:
    import dagster as dg

    with dg.DagsterInstance.get() as instance:
        instance.upgrade()
        # What other assets can do without is said to be nothing yet, or Dagster asks, in red, whether to go on.
        for table in (HUMAN_LABELS, CONSENSUS):
            if instance.get_latest_materialization_event(dg.AssetKey(table.name)) is None:
                nothing_yet = {"changed": "nothing yet: nobody has answered"}
                instance.report_runless_asset_event(dg.AssetMaterialization(table.name, metadata=nothing_yet))


if __name__ == "__main__":
    main()
