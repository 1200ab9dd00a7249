"""The script that a search leaves of its winner: short, to be read, run and edited."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Collection, Mapping
from string import Template
from typing import Any

from pydantic import BaseModel

from dlassets.learning.training.job import Job
from dlassets.tuning.study import Best

_SCRIPT = Template('''\
"""The best of $candidates candidates that `dlassets automl` tried on $day.

On the validation photos it had a loss of $loss and was right $accuracy of the time. Run this to train the same model
again and see how good it is on the test photos. It is yours to edit.
"""

from dlassets.learning.backbones import BackboneRef
from dlassets.learning.evaluation.trained import evaluate_trained
from dlassets.learning.training.job import Event, Job
from dlassets.learning.training.launch import Place, launch
from dlassets.pipeline.labelled_photos import LabelledPhotos
from dlassets.settings import $settings_names

# Labelled photos, at the versions of the lake's tables that the candidates learned from.
PHOTOS = $photos

# What turns a photo into numbers.
BACKBONE = $backbone

# How it learns: every setting that has a say in it.
SETTINGS = $settings


def show(event: Event) -> None:
    if event.kind == "epoch":
        print(f"epoch {event.number}:", ", ".join(f"{name} {value:.4f}" for name, value in event.metrics.items()))


def main() -> None:
    training_set = PHOTOS.training_set(BACKBONE, SETTINGS.trainable)
    job = Job(training_set, BACKBONE, SETTINGS)
    trained = launch(job, Place(), show)
    test = evaluate_trained(job, trained)
    low, high = test.interval
    print(f"test accuracy {test.accuracy:.4f} ({low:.4f} to {high:.4f}) on {test.rows} photos")


if __name__ == "__main__":
    main()
''')
# They have no say in what is learned; the others none where that is a head.
_LEFT_OUT = {"compute", "workers", "checkpoint_steps"}
_OF_BLOCKS = {"last_n", "pixels"}


def script_of(photos: Any, job: Job, best: Best, candidates: int) -> str:
    """Return a Python script that trains this job again, with all that decides it spelled out."""
    is_head = job.settings.trainable == "head"
    return _SCRIPT.substitute(
        candidates=candidates,
        day=dt.datetime.now(dt.UTC).date(),
        loss=f"{best.value:.4f}",
        accuracy=f"{best.accuracy:.1%}",
        photos=_call(type(photos).__name__, vars(photos)),
        backbone=_call("BackboneRef", vars(job.backbone)),
        settings=_spelled(job.settings, _LEFT_OUT | _OF_BLOCKS if is_head else _LEFT_OUT),
        settings_names="TrainingSettings" if is_head else "PixelSettings, TrainingSettings",
    )


def _spelled(settings: BaseModel, without: Collection[str], indent: str = "") -> str:
    values = {name: value for name, value in settings if name not in without}
    return _call(type(settings).__name__, values, indent, without)


def _call(name: str, arguments: Mapping[str, Any], indent: str = "", without: Collection[str] = ()) -> str:
    """Return the call that makes an object, an argument a line."""
    inner = indent + "    "
    lines = [
        f"{inner}{argument}={_spelled(value, without, inner) if isinstance(value, BaseModel) else _literal(value)},"
        for argument, value in arguments.items()
    ]
    return "\n".join([f"{name}(", *lines, f"{indent})"])


def _literal(value: object) -> str:
    return json.dumps(value) if isinstance(value, str) else repr(value)
