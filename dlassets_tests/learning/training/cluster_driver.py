"""What test_cluster has a driver do, in a process of its own: a session is one for a process, and tests share another.

Called with a cluster's address and a folder that has a lake; it leaves there what each training gave, for tests to see.
"""

import json
import os
import signal
import sys
from pathlib import Path

from dlassets.engines.spark_session import spark_session
from dlassets.errors import DlassetsError
from dlassets.lakehouse.snapshots import pin
from dlassets.learning.backbones import BackboneRef
from dlassets.learning.training.job import Event
from dlassets.learning.training.launch import Place, launch
from dlassets.registry.tracking import TrainingInputs
from dlassets.settings import SparkSettings, TrainingSettings
from dlassets.storage.lake import Lake
from dlassets_tests.learning.training import trainings

CONF = {
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1",
    "spark.executor.memory": "512m",
    "spark.executor.extraJavaOptions": "-XX:TieredStopAtLevel=1",
    "spark.executorEnv.PYTHONPATH": str(Path(trainings.__file__).parents[3]),
}


def main(master: str, folder: Path) -> None:
    place = Place(2, spark_session(SparkSettings(master=master, driver_memory="1g", conf=CONF)))
    train_a_head(place, folder)
    kill_a_process(place, folder / "killed")
    stop(place, folder / "stopped")


def train_a_head(place: Place, folder: Path) -> None:
    told: list[Event] = []
    lake = Lake.at(str(folder / "lake"))
    inputs = TrainingInputs.of(lake, pin(lake, "training_set"), BackboneRef("efficientnet_lite0"), TrainingSettings())
    launch(inputs.job, place, told.append).save(str(folder / "head"))
    write(folder / "head", [event.number for event in told])


def kill_a_process(place: Place, folder: Path) -> None:
    folder.mkdir()
    begun_at: list[float] = []

    def kill_once(event: Event) -> None:
        begun_at.append(event.metrics["first"])
        if len(set(begun_at)) == 1 and event.number == 3:
            os.kill(int((folder / "pid-1").read_text()), signal.SIGKILL)

    try:
        launch(trainings.job(folder), place, kill_once, trainings.stepping_to_an_error)
    except DlassetsError as error:
        write(folder, {"begun_at": begun_at, "error": [type(error).__name__, str(error)]})


def stop(place: Place, folder: Path) -> None:
    folder.mkdir()

    def interrupt(_: Event) -> None:
        trainings.wait_until(lambda: len(list(folder.glob("pid-*"))) == 2)
        raise KeyboardInterrupt

    try:
        launch(trainings.job(folder), place, interrupt, trainings.endless)
    except KeyboardInterrupt:
        write(folder, {"left": [path.name for path in folder.iterdir()]})


def write(folder: Path, said: object) -> None:
    (folder / "said.json").write_text(json.dumps(said))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
