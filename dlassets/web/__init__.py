"""What browsers reach: the user interfaces of Dagster and MLflow, and who may ask them."""
