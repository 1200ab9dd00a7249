"""What the lake holds and how it changes: tables, ingest, labels, snapshots. Functions over an engine; no Dagster."""
