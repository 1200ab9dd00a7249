"""Every format there is, and which one a file is of."""

from __future__ import annotations

from dlassets.errors import DlassetsError
from dlassets.labeling.exchange.azureml import AzureMachineLearning
from dlassets.labeling.exchange.base import Beginning, FileFormat
from dlassets.labeling.exchange.coco import Coco
from dlassets.labeling.exchange.cvat import Cvat
from dlassets.labeling.exchange.groundtruth import GroundTruth
from dlassets.labeling.exchange.labelstudio import LabelStudioFiles
from dlassets.labeling.exchange.spreadsheet import Spreadsheet

# Those that are known by more of what they say come first: Azure's COCO is COCO, and any of its lists is a list.
FORMATS: dict[str, FileFormat] = {
    each.name: each
    for each in (LabelStudioFiles(), GroundTruth(), AzureMachineLearning(), Cvat(), Coco(), Spreadsheet())
}


def format_of(beginning: Beginning) -> FileFormat:
    """Return the format of a file that begins so. Raises DlassetsError where it is of none."""
    if beginning.data.startswith(b"PK\x03\x04"):
        raise DlassetsError("it is a ZIP archive: unpack it, and import what lies in it.")
    found = next((each for each in FORMATS.values() if each.recognises(beginning)), None)
    if found is None:
        raise DlassetsError(
            f"it is of no format that is known: {', '.join(FORMATS)}. Where it is one of them, say which with --format."
        )
    return found
