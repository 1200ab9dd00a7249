"""What browsers reach: the pages of a lake, the user interfaces of Dagster and MLflow, and who may ask them."""
