"""From bytes to a trained head: backbones, features, Petastorm, training, evaluation. No Dagster."""
