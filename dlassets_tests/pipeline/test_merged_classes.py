"""Two classes become one on a small lake: everything that is made of labels follows, from folders to validation."""

import shutil
from pathlib import Path

import pytest

from dlassets.engines.local import LocalEngine
from dlassets.lakehouse.classes import classes_of, merge_classes
from dlassets.lakehouse.snapshots import pin
from dlassets.pipeline import steps
from dlassets.pipeline.session import Session
from dlassets.pipeline.step import Made
from dlassets.registry.validation.validation import AGREES
from dlassets_tests.registry.conftest import store_of
from dlassets_tests.tables import get
from dlassets_tests.whole import EVERY_STEP

ENGINE = LocalEngine()


@pytest.mark.slow
def test_a_training_after_a_merge_has_a_class_less_and_is_judged_beside_a_champion_that_has_both(
    photos, settings
) -> None:
    with store_of(settings) as store:

        def run() -> dict[str, Made]:
            session = Session(settings)
            session.mlflow = store
            return {step.name: step.run(session) for step in EVERY_STEP}

        session = Session(settings)
        session.mlflow = store
        lake = session.lake
        shutil.copytree(photos, Path(lake.zone("labeled")), dirs_exist_ok=True)
        Path(lake.zone("unlabeled")).mkdir()
        run()
        before = session.required_champion()
        into, old, *others = classes_of(ENGINE, pin(lake, "classes"))
        merge_classes(ENGINE, pin(lake, "classes"), old, into, "ada")
        made = run()

        for table in ("labeled_images", "training_set", "label_errors"):
            assert old not in {row["label"] for row in get(ENGINE, lake, table, "label")}, table
        validation = made[steps.validated_version.name].details["validation"]
        package = session.package(session.required_champion())
        assert (validation.version, validation.champion_version) == (before.version + 1, before.version)
        assert set(package.head.labels) == {into, *others}
        assert old in session.package(before).head.labels
        assert validation.check(AGREES).value > 0.9
        assert validation.question.settings["merged_classes"] == {str(old): into}
        assert not any(step.changed for name, step in run().items() if name in {"labeled_images", "training_set"})
