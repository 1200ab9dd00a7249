"""Dagster wiring, a folder a stage. No logic: an asset pins its inputs, calls one function, returns its result."""
