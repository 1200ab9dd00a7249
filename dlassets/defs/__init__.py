"""Dagster wiring, a folder a stage. No logic: an asset runs its step and reports what came of it."""
