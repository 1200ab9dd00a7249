import re

import yaml

from dlassets.settings import DEPLOY, Settings, load_settings

LOCAL = (DEPLOY / "local.yaml").read_text()


def test_the_local_profile_is_the_defaults():
    assert load_settings({"DLASSETS_PROFILE": "local"}) == Settings()


def test_the_local_profile_names_every_setting_with_its_default():
    """The settings that are unset by default stand behind a #, as `# name: null`."""
    everything = re.sub(r"(?m)^(\s*)# (\w+: null)$", r"\1\2", LOCAL)
    assert yaml.safe_load(everything) == Settings().model_dump(mode="json")


def test_the_local_profile_leaves_spark_remote_to_the_environment():
    assert load_settings({"SPARK_REMOTE": "sc://localhost:15002"}).spark.remote == "sc://localhost:15002"


def test_the_cluster_profile_runs_spark_on_object_storage():
    settings = load_settings({"DLASSETS_PROFILE": "cluster"})
    assert settings.engine == "spark"
    assert settings.root.startswith("s3a://")
    assert settings.spark.master.startswith("spark://")
    assert settings.automation.sensors
