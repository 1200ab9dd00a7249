"""What needs an extra that is not installed says which one, before it has done anything."""

import re
import threading
import tomllib
from pathlib import Path

import pytest

from dlassets.engines.spark import SparkEngine
from dlassets.extras import MODULES, MissingExtraError, missing
from dlassets.learning.evaluation.label_errors import find_label_errors
from dlassets.pipeline.session import Session
from dlassets.pipeline.stream import stream
from dlassets.settings import Settings, TrainingSettings, TuningSettings
from dlassets.tuning.study import run_study
from dlassets_tests.programs import invoke

PYPROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"


def installs(extra: str) -> str:
    return re.escape(f"pip install 'dlassets[{extra}]'")


def streamed(settings: Settings) -> None:
    session = Session(settings.model_copy(update={"engine": "spark"}))
    next(stream(session, threading.Event(), lambda _: None))


def test_every_extra_of_the_package_is_known_by_its_modules_and_all_has_them() -> None:
    declared = tomllib.loads(PYPROJECT.read_text())["project"]["optional-dependencies"]

    assert declared.keys() - {"all", "dev"} == MODULES.keys()
    asked = {name for each in [*declared["all"], *declared["spark"]] for name in re.findall(r"[a-z-]+", each)}
    assert MODULES.keys() <= asked


def test_what_is_installed_misses_nothing() -> None:
    assert [missing(extra, "this") for extra in MODULES] == [None] * len(MODULES)


@pytest.mark.parametrize(
    ("extra", "work"),
    [
        ("spark", lambda _: SparkEngine(lambda: None)),  # type: ignore[arg-type, return-value]  # it gets no further
        ("spark", streamed),
        ("tuning", lambda _: run_study(None, TuningSettings(), None, "", None)),  # type: ignore[arg-type]
        ("label-errors", lambda _: find_label_errors(None, TrainingSettings())),  # type: ignore[arg-type]
    ],
    ids=["the engine", "a stream", "a study", "label errors"],
)
def test_work_that_needs_an_extra_names_it(extra, work, settings, lacking) -> None:
    with lacking(extra), pytest.raises(MissingExtraError, match=installs(extra)):
        work(settings)


@pytest.mark.parametrize(
    ("extra", "arguments", "environment"),
    [
        ("spark", ["demo"], {"DLASSETS_ENGINE": "spark"}),
        ("tuning", ["automl", "--minutes", 1], {}),
    ],
)
def test_a_command_that_needs_an_extra_names_it_and_leaves_nothing(
    extra, arguments, environment, lake, lacking
) -> None:
    with lacking(extra):
        result = invoke(*arguments, DLASSETS_ROOT=lake.root, **environment)

    assert result.exit_code == 1
    assert re.search(installs(extra), result.output)
    assert not Path(lake.root).exists()
