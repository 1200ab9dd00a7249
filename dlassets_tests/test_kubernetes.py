"""What is for Kubernetes and Databricks is what these take, as far as that can be told without a cluster."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from dagster._config import process_config, resolve_to_config_type

from dlassets.defs.compute import POD_TAG, STEP_ASSETS, pod_of
from dlassets.masking import masked
from dlassets.settings import load_settings

FOLDER = Path(__file__).resolve().parent.parent / "deploy" / "kubernetes"
RELEASE = "1.32"


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((FOLDER / name).read_text()))


@pytest.mark.parametrize("name", ["serve.yaml", "spark.yaml", "stream.yaml"])
def test_each_manifest_is_what_kubernetes_takes(name: str) -> None:
    validate = pytest.importorskip("kubernetes_validate")
    for document in documents(name):
        validate.validate(document, RELEASE, strict=True)


def test_each_container_takes_no_more_rights_than_it_has_and_has_a_limit() -> None:
    for name in ("serve.yaml", "spark.yaml", "stream.yaml"):
        for document in documents(name):
            if document["kind"] != "Deployment":
                continue
            spec = document["spec"]["template"]["spec"]
            assert spec["securityContext"]["runAsNonRoot"] is True
            for container in spec["containers"]:
                assert container["securityContext"]["allowPrivilegeEscalation"] is False
                assert container["resources"]["limits"].keys() == {"memory"}


def test_the_charts_values_start_runs_as_dagsters_launcher_takes_them() -> None:
    dagster_k8s = pytest.importorskip("dagster_k8s")
    (values,) = documents("values.yaml")
    launcher = values["runLauncher"]
    assert launcher["type"] == "K8sRunLauncher"
    # What the chart renders to dagster.yaml of these.
    given = launcher["config"]["k8sRunLauncher"]
    config = {
        "service_account_name": "dagster",
        "instance_config_map": "dagster-instance",
        "dagster_home": "/opt/dagster/dagster_home",
        "postgres_password_secret": values["global"]["postgresqlSecretName"],
        "image_pull_policy": given["imagePullPolicy"],
        "env_secrets": [secret["name"] for secret in given["envSecrets"]],
        "resources": given["resources"],
        "run_k8s_config": {
            "pod_spec_config": given["runK8sConfig"]["podSpecConfig"],
            "job_spec_config": given["runK8sConfig"]["jobSpecConfig"],
        },
    }
    taken = process_config(resolve_to_config_type(dagster_k8s.K8sRunLauncher.config_type()), config)
    assert taken.success, taken.errors


def test_a_runs_pod_has_the_most_that_the_classes_of_its_steps_ask_for() -> None:
    settings = load_settings(
        {
            "DLASSETS_PROFILE": "kubernetes",
            "DLASSETS_COMPUTE__STAGES": "{trained_model: gpu, ingest: large}",
        }
    )

    small, large, gpu = (pod_of(settings, steps)[POD_TAG] for steps in _STEPS)

    of_small = {"requests": {"cpu": "1", "memory": "4Gi"}, "limits": {"memory": "4Gi"}}
    assert small == {"container_config": {"resources": of_small}}
    assert large["container_config"]["resources"]["requests"] == {"cpu": "4", "memory": "16Gi"}
    assert gpu["container_config"]["resources"]["limits"] == {"memory": "32Gi", "nvidia.com/gpu": "1"}
    toleration = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
    assert gpu["pod_spec_config"] == {"tolerations": [toleration]}
    assert pod_of(load_settings({}), STEP_ASSETS) == {}


_STEPS = (("predictions",), ("predictions", "image_profiles"), ("trained_model", "image_profiles"))


def test_dagsters_launcher_makes_a_job_of_the_tag_that_kubernetes_takes() -> None:
    validate = pytest.importorskip("kubernetes_validate")
    job = pytest.importorskip("dagster_k8s.job")
    settings = load_settings({"DLASSETS_PROFILE": "kubernetes", "DLASSETS_COMPUTE__STAGES": "{trained_model: gpu}"})
    tags = {name: json.dumps(value) for name, value in pod_of(settings, ["trained_model"]).items()}

    made = job.construct_dagster_k8s_job(
        job_config=job.DagsterK8sJobConfig("images.example.com/dlassets:0.3.0", "/opt/dagster/dagster_home"),
        args=["dagster", "api", "execute_run"],
        job_name="dagster-run",
        user_defined_k8s_config=job.get_user_defined_k8s_config(tags),
    )

    plain = pytest.importorskip("kubernetes.client").ApiClient().sanitize_for_serialization(made)
    validate.validate(plain, RELEASE, strict=True)
    (container,) = plain["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["limits"] == {"memory": "32Gi", "nvidia.com/gpu": "1"}


def test_the_token_of_a_databricks_cluster_is_masked() -> None:
    remote = (
        "sc://dbc-1.cloud.databricks.com:443/;token=dapi0123456789abcdef;use_ssl=true;x-databricks-cluster-id=0-1-a"
    )

    settings = load_settings({"DLASSETS_PROFILE": "databricks", "DLASSETS_SPARK__REMOTE": remote})

    assert (settings.spark.remote, settings.mlflow.tracking_uri) == (remote, "databricks")
    assert "dapi0123456789abcdef" not in masked(f"{remote} and Authorization: Bearer dapi0123456789abcdef")
