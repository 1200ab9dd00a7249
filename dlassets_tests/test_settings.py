"""The settings tree: where a value comes from, and what is said of one that cannot be."""

import re

import pytest
import yaml

from dlassets.errors import SettingsError
from dlassets.settings import PROFILES, LandingZone, Schedule, Settings, load_settings


@pytest.mark.parametrize(
    "environment", [{}, {"DLASSETSX": "1", "PATH": "/bin", "DLASSETS": "2"}, {"DLASSETS_PROFILE": "local"}]
)
def test_where_nothing_of_ours_is_set_or_the_local_profile_the_defaults_hold(environment) -> None:
    assert load_settings(environment) == Settings()


def test_the_local_profile_names_every_setting_with_its_default() -> None:
    """The settings that are unset by default stand behind a #, as `# name: null`."""
    everything = re.sub(r"(?m)^(\s*)# (\w+: null)$", r"\1\2", (PROFILES / "local.yaml").read_text())
    assert yaml.safe_load(everything) == Settings().model_dump(mode="json")


def test_the_local_profile_leaves_spark_remote_to_the_environment() -> None:
    assert load_settings({"SPARK_REMOTE": "sc://localhost:15002"}).spark.remote == "sc://localhost:15002"


def test_the_cluster_profile_runs_spark_on_object_storage() -> None:
    settings = load_settings({"DLASSETS_PROFILE": "cluster"})
    assert settings.engine == "spark"
    assert settings.root.startswith("s3a://")
    assert settings.spark.master.startswith("spark://")
    assert settings.automation.sensors


@pytest.mark.parametrize(
    ("variable", "text", "path", "expected"),
    [
        ("DLASSETS_ROOT", "/data/007", "root", "/data/007"),
        ("DLASSETS_ROOT", "12", "root", "12"),
        ("DLASSETS_TRAINING__EPOCHS", "20", "training.epochs", 20),
        ("DLASSETS_TRAINING__L2", "0", "training.l2", 0.0),
        ("DLASSETS_AUTOMATION__SENSORS", "true", "automation.sensors", True),
        ("DLASSETS_AUTOMATION__SENSORS", "off", "automation.sensors", False),
        ("DLASSETS_LABELING__BATCH_LIMIT", "null", "labeling.batch_limit", None),
        ("DLASSETS_LABELING__BATCH_LIMIT", "7", "labeling.batch_limit", 7),
        ("DLASSETS_LABELING__PRIORITIES", "{unlabeled: 5}", "labeling.priorities", {"unlabeled": 5}),
        ("DLASSETS_SPARK__CONF", "{spark.ui.port: '4050'}", "spark.conf", {"spark.ui.port": "4050"}),
        ("DLASSETS_REGISTRY__MODEL_NAME", "2026", "registry.model_name", "2026"),
        ("DLASSETS_MLFLOW__EXPERIMENT", "on", "mlflow.experiment", "on"),
    ],
)
def test_a_variable_is_read_as_its_setting_s_type(variable, text, path, expected) -> None:
    value = load_settings({variable: text})
    for name in path.split("."):
        value = getattr(value, name)

    assert value == expected


def test_a_line_of_cron_takes_the_place_of_a_schedule_of_the_profile() -> None:
    scheduled = load_settings({"DLASSETS_AUTOMATION__SCHEDULED__SCORING_PIPELINE": "*/5 * * * *"}).automation.scheduled

    assert scheduled["scoring_pipeline"] == Schedule(cron="*/5 * * * *")
    assert scheduled["maintenance_pipeline"] == Schedule(repeat="daily", at="03:00")


def test_a_line_of_cron_of_the_last_release_says_where_it_has_gone_to() -> None:
    with pytest.raises(SettingsError, match=r"scoring_cron has become scheduled\.scoring_pipeline"):
        load_settings({"DLASSETS_AUTOMATION__SCORING_CRON": "*/5 * * * *"})


def test_a_pattern_may_begin_with_a_bracket() -> None:
    settings = load_settings({"DLASSETS_LANDING__LABELED__PATTERN": "[.]png$"})

    assert settings.landing["labeled"].pattern == "[.]png$"


def test_a_variable_wins_over_the_profile_and_a_change_over_both(tmp_path) -> None:
    (tmp_path / "mine.yaml").write_text("training: {epochs: 3, seed: 5, patience: 2}\nengine: spark\n")
    environment = {
        "DLASSETS_PROFILE": str(tmp_path / "mine.yaml"),
        "DLASSETS_TRAINING__EPOCHS": "4",
        "DLASSETS_TRAINING__SEED": "6",
    }

    settings = load_settings(environment, training={"seed": 7})

    assert (settings.training.epochs, settings.training.seed, settings.training.patience) == (4, 7, 2)
    assert settings.engine == "spark"


def test_a_profile_adds_a_landing_zone_by_its_name(tmp_path) -> None:
    profile = tmp_path / "mine.yaml"
    profile.write_text("landing: {cameras: {uri: /mnt/cameras, labelled: false}}\n")

    settings = load_settings({"DLASSETS_PROFILE": str(profile)})

    assert settings.landing == {"cameras": LandingZone(uri="/mnt/cameras", labelled=False)}


def test_an_empty_profile_is_the_defaults(tmp_path) -> None:
    (tmp_path / "empty.yaml").write_text("")

    assert load_settings({"DLASSETS_PROFILE": str(tmp_path / "empty.yaml")}) == Settings()


def test_settings_cannot_be_changed_afterwards() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().engine = "spark"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        (
            {"DLASSETS_TRANING__EPOCHS": "3"},
            r"'traning.epochs' in the environment. Did you mean training.epochs \(DLASSETS_TRAINING__EPOCHS\)\?",
        ),
        ({"DLASSETS_EPOCHS": "3"}, "Unknown setting 'epochs'"),
        ({"DLASSETS_TRAINING__EPOCHS": "many"}, "training.epochs: .*integer.*'many'"),
        ({"DLASSETS_TRAINING__EPOCHS": ""}, "training.epochs: .*integer"),
        ({"DLASSETS_TRAINING__EPOCHS": "0"}, "training.epochs: .*greater than 0"),
        ({"DLASSETS_TRAINING__EPOCHS": "{"}, "DLASSETS_TRAINING__EPOCHS begins as a YAML mapping"),
        ({"DLASSETS_TRAINING": "5"}, "training: .*'5'"),
        (
            {"DLASSETS_TRAINING": "5", "DLASSETS_TRAINING__EPOCHS": "3"},
            "DLASSETS_TRAINING__EPOCHS sets a part of 'training', which another variable sets as a whole",
        ),
        ({"DLASSETS_ENGINE": "sparc"}, "engine: .*'local' or 'spark'.*'sparc'"),
        ({"DLASSETS_ROOT": ""}, "root: "),
        ({"DLASSETS_LABELING__THRESHOLD": "1.5"}, "labeling.threshold: .*less than or equal to 1"),
        ({"DLASSETS_LABELING__STRATEGY": "hybrids"}, "labeling.strategy: .*'margin', 'entropy', 'diversity', 'hybrid'"),
        ({"DLASSETS_LABELING__AUDIT_SHARE": "2"}, "labeling.audit_share: .*less than or equal to 1"),
        ({"DLASSETS_LABELING__DAY_LIMIT": "0"}, "labeling.day_limit: .*greater than 0"),
        ({"DLASSETS_LABELING__EXPIRE_DAYS": "0"}, "labeling.expire_days: .*greater than 0"),
        (
            {"DLASSETS_LABELING__PRIORITIES": "{unlabelled: 5}"},
            "labeling.priorities names unlabelled, and the landing zones are labeled, unlabeled",
        ),
        ({"DLASSETS_SPLIT__TRAIN": "0.9"}, "split: .*must leave something for the test split"),
        ({"DLASSETS_LANDING__LABELED__PATTERN": "("}, "landing.labeled.pattern: .*not a regular expression"),
        ({"DLASSETS_LANDING__LABELED__LABEL_RULE": "(.*)"}, "needs a group named `label`"),
        ({"DLASSETS_LANDING__LABELED__LABELED": "true"}, "landing.labeled.labeled: "),
        (
            {"DLASSETS_PROFILE": "nope"},
            (
                r"DLASSETS_PROFILE=nope: there is no .*nope.yaml. Set it to .* a profile "
                r"\(accurate, cluster, databricks, kubernetes, local, shared\)"
            ),
        ),
    ],
)
def test_a_value_that_cannot_be_is_named(environment, message) -> None:
    with pytest.raises(SettingsError, match=f"(?s){message}"):
        load_settings(environment)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a list", "must be a mapping of settings"),
        ("just words", "must be a mapping of settings"),
        ("training: [", "is not YAML"),
        ("training: {epoch: 3}", r"Unknown setting 'training.epoch' in the profile. Did you mean training.epochs"),
        ("landing: {'a/b': {uri: x, labelled: true}}", "'a/b': use letters, digits, _ and - alone"),
        ("training: [1]", "training: "),
        ("training: {1: 2}", "Unknown setting 'training.1'"),
    ],
)
def test_a_profile_that_cannot_be_is_refused(tmp_path, text, message) -> None:
    profile = tmp_path / "mine.yaml"
    profile.write_text(text)

    with pytest.raises(SettingsError, match=message):
        load_settings({"DLASSETS_PROFILE": str(profile)})


def test_every_impossible_value_and_unknown_setting_is_named_at_once(tmp_path) -> None:
    profile = tmp_path / "mine.yaml"
    profile.write_text("training: {epoch: 3}\n")
    with pytest.raises(SettingsError) as caught:
        load_settings(
            {
                "DLASSETS_PROFILE": str(profile),
                "DLASSETS_ENGINE": "sparc",
                "DLASSETS_TRAINING__L2": "-1",
                "DLASSETS_SEEDS": "1",
                "DLASSETS_TRAINING__SEEDS": "1",
            }
        )

    assert "engine: " in str(caught.value)
    assert "training.l2: " in str(caught.value)
    assert "Unknown setting 'seeds' in the environment." in str(caught.value)
    assert "Unknown setting 'training.seeds' in the environment. Did you mean training.seed " in str(caught.value)
    assert "Unknown setting 'training.epoch' in the profile. Did you mean training.epochs " in str(caught.value)


@pytest.mark.parametrize("name", ["image_classifier", "photos of 2026", "v1.2-rc", "gebäude", "模型"])
def test_a_model_s_name_may_be_of_any_script(name) -> None:
    assert load_settings({"DLASSETS_REGISTRY__MODEL_NAME": name}).registry.model_name == name


@pytest.mark.parametrize(
    ("path", "value"),
    [
        *(
            ("registry.model_name", name)
            for name in ("it's", '"', "100%", "a\nb", "a/b", "a:b", " ", "", "..", "n" * 201)
        ),
        *(("mlflow.experiment", name) for name in ("", "a\0b")),
        *(("root", place) for place in ("", "a\rb")),
        *(("ui.dagster", f"http://127.0.0.1:{port}") for port in (0, 70000, -1, "x")),
        ("ui.mlflow", "http://[::1]:65536"),
        ("spark.master", "spark://one:7077,two:77077"),
        ("spark.master", "k8s://https://example.com:99999"),
        ("spark.remote", "sc://localhost:0"),
        ("spark.driver_memory", "-4g"),
        ("features.backbone", "x' OR '1'='1"),
        ("landing.labeled.uri", ""),
        *(("training.l2", number) for number in ("nan", "inf", "-1", "1e300")),
        *(("training.epochs", number) for number in ("-1", "0", "nan", str(10**30), str(2**31))),
        ("training.seed", "-1"),
        ("tuning.minutes", "inf"),
        ("ingest.max_pixels", "-3"),
        ("maintenance.retention_hours", str(10**12)),
        ("maintenance.target_file_bytes", str(10**30)),
        ("maintenance.z_order", {"predictions": ["path`) --"]}),
        ("stream.batch_seconds", "1e20"),
        ("split.train", "nan"),
    ],
)
def test_what_cannot_be_is_refused_by_name(path, value) -> None:
    changes: dict[str, object] = {}
    branch = changes
    *parents, leaf = path.split(".")
    for parent in parents:
        branch[parent] = branch = {}
    branch[leaf] = value

    with pytest.raises(SettingsError, match=rf"These settings cannot be:\n  {path}\b"):
        load_settings({}, **changes)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("DLASSETS_UI__DAGSTER", "https://dagster.example.com:443/prefix"),
        ("DLASSETS_UI__DAGSTER", "http://[::1]:3000"),
        ("DLASSETS_SPARK__MASTER", "spark://one:7077,two:7077"),
        ("DLASSETS_SPARK__MASTER", "k8s://https://example.com:6443"),
        ("DLASSETS_MLFLOW__TRACKING_URI", "postgresql+psycopg2://user:p@ss:word@db.example.com:5432/mlflow"),
        ("DLASSETS_MLFLOW__TRACKING_URI", "databricks://scope:prefix"),
        ("DLASSETS_MLFLOW__TRACKING_URI", "sqlite:////lake/mlflow.db"),
        ("DLASSETS_ROOT", "abfss://container@account.dfs.core.windows.net/lake"),
    ],
)
def test_ports_and_hosts_that_can_be_are_taken(path, value) -> None:
    section, _, name = path.removeprefix("DLASSETS_").lower().rpartition("__")
    settings = load_settings({path: value})

    assert getattr(getattr(settings, section) if section else settings, name) == value


@pytest.mark.parametrize("scheme", ["postgresql", "postgres"])
def test_postgresql_is_reached_by_the_driver_that_is_there_whatever_its_users_call_it(scheme) -> None:
    settings = load_settings({"DLASSETS_MLFLOW__TRACKING_URI": f"{scheme}://me:secret@db:5432/mlflow"})

    assert settings.mlflow.tracking_uri == "postgresql+psycopg2://me:secret@db:5432/mlflow"


def test_a_refused_uri_is_shown_without_its_password() -> None:
    with pytest.raises(SettingsError, match=r"'70000' is no port.*://…@db") as caught:
        load_settings({"DLASSETS_MLFLOW__TRACKING_URI": "postgresql://me:secret@db:70000/mlflow"})

    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("uri", ["mlruns", "localhost:5000", "file:///tmp/mlruns", "~/mlflow.db", "ftp://host"])
def test_what_is_no_store_of_mlflow_s_is_refused_with_what_is_one(uri) -> None:
    with pytest.raises(SettingsError, match=r"mlflow.tracking_uri: .*http://127.0.0.1:5000.*sqlite:////"):
        load_settings({"DLASSETS_MLFLOW__TRACKING_URI": uri})


@pytest.mark.parametrize(
    "uri", ["https://mlflow.example.com", "sqlite:///x.db", "postgresql+psycopg2://h/d", "databricks", "databricks-uc"]
)
def test_a_store_of_mlflow_s_is_taken(uri) -> None:
    assert load_settings({"DLASSETS_MLFLOW__TRACKING_URI": uri}).mlflow.tracking_uri == uri


def test_a_tilde_is_the_home_folder_wherever_a_setting_is_a_place(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine.yaml").write_text("root: ~/lake\nfeatures: {weights: ~/w.safetensors}\n")

    settings = load_settings(
        {"DLASSETS_PROFILE": "~/mine.yaml", "DLASSETS_LANDING": "{a: {uri: ~/photos, labelled: true}}"}
    )

    assert settings.root == f"{tmp_path}/lake"
    assert settings.features.weights == f"{tmp_path}/w.safetensors"
    assert settings.landing["a"].uri == f"{tmp_path}/photos"


def test_a_cluster_keeps_dagsters_runs_for_two_weeks() -> None:
    assert load_settings({"DLASSETS_PROFILE": "cluster"}).maintenance.run_days == 14
