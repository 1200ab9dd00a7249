"""A model's life in MLflow: its package, its run, its versions, what they were trained from."""
