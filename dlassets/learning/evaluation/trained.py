"""How good a model is that was just trained, wherever that was."""

from __future__ import annotations

from dlassets.lakehouse.tables import TEST
from dlassets.learning.backbones import network
from dlassets.learning.evaluation.evaluate import Evaluation, evaluate
from dlassets.learning.examples import read_split
from dlassets.learning.training.job import Job, Trained
from dlassets.learning.training.pixels import features_of


def evaluate_trained(job: Job, trained: Trained) -> Evaluation:
    """Evaluate a trained model on the test photos of its training set."""
    if job.settings.trainable == "head":
        return evaluate(trained.head, read_split(job.training_set, TEST))
    whole = network(job.backbone)
    whole.network.load_state_dict(trained.weights or {})
    return evaluate(trained.head, features_of(job, TEST, whole))
