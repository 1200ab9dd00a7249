"""From a registered model to predictions."""
