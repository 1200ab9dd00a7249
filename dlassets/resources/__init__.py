"""What only Dagster needs of the engine, MLflow and the rest."""
