"""Dagster resources: the lake and its engine, MLflow, the trainer, the labelling service."""
