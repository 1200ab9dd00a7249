"""Image deep learning on a lakehouse as one Dagster asset graph."""

__version__ = "0.3.0.dev0"
