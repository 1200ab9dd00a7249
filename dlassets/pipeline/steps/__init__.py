"""The pipeline: one step for each table or model, a module a stage, in the order of the loop.

Whoever runs them (Dagster's assets, the stream, `reproduce`, AutoML) runs these. Packages that are slow to import are
imported inside the steps, since Dagster reads their declarations each time a code location loads.
"""

from dlassets.pipeline.steps.ingest import classes, image_profiles, ingested_files, labeled_images
from dlassets.pipeline.steps.labeling import annotators, consensus, human_labels, label_requests, labeling_report
from dlassets.pipeline.steps.scoring import predictions, predictions_current, served_requests
from dlassets.pipeline.steps.shared import MOST_SAID
from dlassets.pipeline.steps.training import (
    chosen_rows,
    evaluated_rows,
    image_features,
    images_to_embed,
    known_hyperparameters,
    label_errors,
    labelled_image_features,
    train,
    trained_model,
    training_inputs,
    training_set,
    tuned_hyperparameters,
)
from dlassets.pipeline.steps.versions import edge_model, registered_version, validated_version

__all__ = [
    "MOST_SAID",
    "STEPS",
    "annotators",
    "chosen_rows",
    "classes",
    "consensus",
    "edge_model",
    "evaluated_rows",
    "human_labels",
    "image_features",
    "image_profiles",
    "images_to_embed",
    "ingested_files",
    "known_hyperparameters",
    "label_errors",
    "label_requests",
    "labeled_images",
    "labeling_report",
    "labelled_image_features",
    "predictions",
    "predictions_current",
    "registered_version",
    "served_requests",
    "train",
    "trained_model",
    "training_inputs",
    "training_set",
    "tuned_hyperparameters",
    "validated_version",
]

STEPS = (
    ingested_files,
    classes,
    image_profiles,
    human_labels,
    consensus,
    annotators,
    labeled_images,
    image_features,
    training_set,
    label_errors,
    tuned_hyperparameters,
    trained_model,
    evaluated_rows,
    registered_version,
    validated_version,
    edge_model,
    predictions,
    predictions_current,
    served_requests,
    label_requests,
    labeling_report,
)
