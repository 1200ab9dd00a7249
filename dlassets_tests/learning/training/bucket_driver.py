"""What test_training_in_a_bucket has a driver do, in a process of its own: `python -m … <folder>`, by its settings.

It trains in two processes of Spark, has Spark spread a study's trials, and leaves in the folder what came of that.
"""

import json
import sys
from pathlib import Path

from dlassets.engines.spark_session import spark_session
from dlassets.lakehouse.snapshots import pin
from dlassets.learning.backbones import BackboneRef
from dlassets.learning.training.job import Event, Job
from dlassets.learning.training.launch import Place, launch
from dlassets.registry.store import MlflowStore
from dlassets.registry.tracking import TrainingInputs
from dlassets.settings import Span, TrainingSettings, TuningSettings, load_settings
from dlassets.storage.lake import Lake
from dlassets.tuning.question import Question
from dlassets.tuning.spark_trials import SparkTrials
from dlassets.tuning.study import run_study

BACKBONE = BackboneRef("efficientnet_lite0")
SPACE = {"l2": Span(low=1e-3, high=1.0, log=True)}


def main(folder: Path) -> None:
    settings = load_settings()
    session, lake = spark_session(settings.spark, [settings.root]), Lake.at(settings.root)
    snapshot, told = pin(lake, "training_set"), list[Event]()
    inputs = TrainingInputs.of(lake, snapshot, BACKBONE, TrainingSettings())
    launch(inputs.job, Place(2, session), told.append).save(str(folder / "head"))
    mlflow = MlflowStore(settings)
    best = run_study(
        Question(Job(snapshot, BACKBONE, TrainingSettings(l2=0.05)), "features-1", SPACE),
        TuningSettings(trials=2, processes=2, pruning=False, space=SPACE),
        mlflow.client,
        mlflow.experiment,
        SparkTrials(session),
        lambda *_: None,
    )
    said = {"epochs": [event.number for event in told], "trials": [trial.params for trial in best.trials]}
    (folder / "said.json").write_text(json.dumps(said | {"chosen": best.chosen}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
