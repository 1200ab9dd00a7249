"""The pipelines as jobs, each one run at a time (resources/dagster.yaml limits runs by the tag)."""

from typing import Any

import dagster as dg

from dlassets.defs.common import PIPELINE_TAG
from dlassets.defs.operations.assets import MAINTENANCE_ASSETS
from dlassets.pipeline import steps

_INGESTED = (*(table.name for table in steps.ingested_files.makes), "image_profiles", "classes", "labeled_images")


def _pipeline(
    name: str, description: str, *assets: str | dg.AssetsDefinition, config: dg.PartitionedConfig | None = None
) -> Any:
    return dg.define_asset_job(
        name,
        selection=dg.AssetSelection.assets(*assets),
        description=description,
        config=config,
        tags={PIPELINE_TAG: name},
    )


INGEST_PIPELINE = _pipeline(
    "ingest_pipeline",
    "Take photos in, look at them, and label those whose folder or list says their label.",
    *_INGESTED,
)
TRAINING_PIPELINE = _pipeline(
    "training_pipeline",
    "Take photos in, label them, embed them, train, register, validate, and promote what is not shown to be worse.",
    *_INGESTED,
    "image_features",
    "training_set",
    "label_errors",
    "tuned_hyperparameters",  # as it stands: see the asset
    "trained_model",
    "evaluated_rows",
    "registered_version",
    "validated_version",
)
TUNING_PIPELINE = _pipeline(
    "tuning_pipeline",
    "Try settings of training, train with the best, register, validate, and promote what is not shown to be worse.",
    "image_features",
    "training_set",
    "tuned_hyperparameters",
    "trained_model",
    "evaluated_rows",
    "registered_version",
    "validated_version",
)
VALIDATION_PIPELINE = _pipeline(
    "validation_pipeline",
    "Validate a registered version, and promote it where nothing shows that it is worse.",
    "validated_version",
)
SCORING_PIPELINE = _pipeline(
    "scoring_pipeline",
    "Take photos in, score them, and send people the unsure ones that have no label; take in what was served.",
    *_INGESTED,
    "image_features",
    "predictions",
    "predictions_current",
    "served_requests",
    "label_requests",
    "labeling_report",
)
# Days that a backfill may be asked for: no lake is older than the first release of what makes it.
DAYS = dg.DailyPartitionsDefinition("2026-11-01", end_offset=1)
RESCORING_PIPELINE = _pipeline(
    "rescoring_pipeline",
    "Score again the photos that were taken in on a day, whatever was said of them; a backfill takes many days.",
    "predictions",
    "predictions_current",
    config=dg.PartitionedConfig(
        DAYS, run_config_for_partition_key_fn=lambda day: {"ops": {"predictions": {"config": {"scope": f"on {day}"}}}}
    ),
)
LABELING_PIPELINE = _pipeline(
    "labeling_pipeline",
    "Collect people's answers, weigh what several say, merge it into the labels, close requests, and ask what is next.",
    "classes",
    "human_labels",
    "consensus",
    "annotators",
    "labeled_images",
    "label_requests",
    "labeling_report",
)
MAINTENANCE_PIPELINE = _pipeline(
    "maintenance_pipeline",
    "Put small files of every table together, and delete what neither a reader nor a model needs.",
    *MAINTENANCE_ASSETS,
)
JOBS = [
    INGEST_PIPELINE,
    TRAINING_PIPELINE,
    TUNING_PIPELINE,
    VALIDATION_PIPELINE,
    SCORING_PIPELINE,
    RESCORING_PIPELINE,
    LABELING_PIPELINE,
    MAINTENANCE_PIPELINE,
]
