"""What the champion says of every image without a label, or that people are to decide."""

from dlassets.defs.common import SCORING, details, table_asset
from dlassets.pipeline import steps

predictions = table_asset(steps.predictions, SCORING, details)
