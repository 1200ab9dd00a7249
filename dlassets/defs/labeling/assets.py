"""People: which images they are asked about, and what they answered."""

from dlassets.defs.common import LABELING, details, table_asset
from dlassets.pipeline import steps

human_labels = table_asset(steps.human_labels, LABELING, details)
label_requests = table_asset(steps.label_requests, LABELING, details)
