"""The model package and its life in MLflow's registry."""
