"""What the lake holds and how it changes: tables, ingest, labels, snapshots. Plain functions over an engine; no Dagster."""
