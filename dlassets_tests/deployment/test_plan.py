"""A deployment as it is planned and written down: its order, its health, and where its secrets are not."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from dlassets.deployment import programs as programs_module
from dlassets.deployment.home import SECRETS, Home
from dlassets.deployment.plan import Options, Plan
from dlassets.deployment.process import Process, Until, rendered
from dlassets.deployment.programs import Programs, programs
from dlassets.deployment.supervisor import Supervisor
from dlassets.errors import DlassetsError, SettingsError
from dlassets_tests.programs import invoke
from dlassets_tests.servers import taken_port

ANYWHERE = Programs(Path("/x/process-compose"), Path("/x/versitygw"), Path("/x/caddy"), Path("/x/postgres"))
SECRET = {name: f"secret-of-{name}-{'x' * 32}" for name in SECRETS}


@pytest.fixture(autouse=True)
def _own_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("DLASSETS_"):
            monkeypatch.delenv(name)


def planned(folder: Path, **options: object) -> Plan:
    told = Options(**options)  # type: ignore[arg-type]
    ports = {name: 20_000 + number for number, name in enumerate(told.services)}
    return Plan(Home(folder), told, ANYWHERE, ports, SECRET)


def config_of(plan: Plan) -> dict[str, Any]:
    home = plan.home
    return rendered(plan.processes, home.environments, home.logs, home.folder)


def needs(processes: list[Process]) -> Mapping[str, set[str]]:
    """Return all that each process waits for, and what that waits for."""
    found: dict[str, set[str]] = {}
    for process in processes:
        found[process.name] = set(process.waits_for).union(*(found[name] for name in process.waits_for))
    return found


@pytest.mark.parametrize("spark", ["cluster", "connect", "none"])
def test_no_secret_is_in_the_configuration_or_in_a_command(tmp_path: Path, spark: str) -> None:
    plan = planned(tmp_path, spark=spark, engine="local" if spark == "none" else "spark", labelstudio=True)
    written = yaml.safe_dump(config_of(plan)) + plan.caddyfile
    assert [name for name in SECRETS if SECRET[name] in written] == []
    told = str([process.environment for process in plan.processes])
    # They go to the processes all the same; these two are nobody's but the database's and the first user's.
    assert [name for name in SECRETS if SECRET[name] not in told] == ["postgres", "first_user"]


def test_what_a_process_needs_is_stopped_after_it(tmp_path: Path) -> None:
    needed = needs(planned(tmp_path).processes)
    assert needed["serve"] >= {"mlflow", "s3", "postgres"}
    assert needed["daemon"] >= {"code-server", "mlflow", "spark", "spark-worker-1", "spark-worker-2", "s3", "postgres"}
    assert needed["dagster"] == needed["dagster-operate"] == needed["daemon"]
    assert needed["caddy"] >= {"gate", "pages", "serve", "dagster", "dagster-operate", "mlflow"}
    assert needed["postgres"] == needed["s3"] == set()


def test_each_process_is_waited_for_until_it_is_well_or_has_done_its_work(tmp_path: Path) -> None:
    processes = {process.name: process for process in planned(tmp_path, labelstudio=True).processes}
    once = {name for name, process in processes.items() if process.is_once}
    assert once == {"dagster-tables", "mlflow-reader"}
    waits = [(name, until) for process in processes.values() for name, until in process.waits_for.items()]
    assert all((until is Until.DONE) == (name in once) for name, until in waits)


def test_secrets_go_to_those_processes_alone_that_need_them(tmp_path: Path) -> None:
    processes = planned(tmp_path).processes
    having = {
        secret: {process.name for process in processes if SECRET[secret] in str(process.environment)}
        for secret in ("cookie", "mlflow_database", "mlflow_flask")
    }
    assert having == {"cookie": {"gate"}, "mlflow_database": {"mlflow"}, "mlflow_flask": {"mlflow"}}


def test_the_supervisor_takes_the_configuration(tmp_path: Path) -> None:
    program = shutil.which("process-compose") or str(Path(".venv-shared/bin/process-compose").resolve())
    if not Path(program).exists():
        pytest.skip("process-compose is not there: scripts/setup.sh shared builds it")
    plan = planned(tmp_path, engine="spark", spark="cluster")
    plan.home.logs.mkdir()
    config = config_of(plan)
    plan.home.config.write_text(yaml.safe_dump(config))
    Supervisor(plan.home, Path(program)).check()
    config["processes"]["postgres"]["comand"] = "sleep 1"
    plan.home.config.write_text(yaml.safe_dump(config))
    with pytest.raises(DlassetsError, match="comand"):
        Supervisor(plan.home, Path(program)).check()


def test_ports_and_secrets_are_kept_for_their_owner_alone(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.folder.mkdir()
    ports, secrets = home.ports(["s3", "mlflow"]), home.secrets()
    assert (home.ports(["mlflow", "s3"]), home.secrets()) == (ports, secrets)
    assert len(set(secrets.values())) == len(SECRETS)
    assert (home.folder / "secrets.json").stat().st_mode & 0o777 == 0o600


def test_a_port_that_another_program_took_is_named(tmp_path: Path) -> None:
    with taken_port() as port:
        (tmp_path / "ports.json").write_text(f'{{"s3": {port}}}')
        with pytest.raises(DlassetsError, match=f"{port} of s3.*ports.json"):
            Home(tmp_path).ports(["s3", "mlflow"])


def test_programs_that_are_not_there_are_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.prefix", str(tmp_path / ".venv"))
    monkeypatch.setattr(programs_module, "_DEBIAN", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DlassetsError) as raised:
        programs()
    assert "process-compose, versitygw, caddy: scripts/setup.sh shared builds them" in str(raised.value)
    assert "apt-get install postgresql" in str(raised.value)


def test_a_session_on_the_cluster_and_the_cluster_listen_on_this_machine_alone(tmp_path: Path) -> None:
    plan = planned(tmp_path, engine="spark", spark="cluster")
    told = {process.name: process.environment.get("SPARK_LOCAL_IP") for process in plan.processes}
    assert {told[name] for name in ("spark", "spark-worker-1", "spark-worker-2", "code-server")} == {"127.0.0.1"}
    assert plan.everything["SPARK_LOCAL_IP"] == "127.0.0.1"


def test_a_root_that_is_no_bucket_is_refused(tmp_path: Path) -> None:
    profile = tmp_path / "own.yaml"
    profile.write_text("root: lake\n")
    with pytest.raises(SettingsError, match="is a bucket of its S3 server"):
        _ = planned(tmp_path, profile=str(profile)).settings


def test_the_lake_of_the_shell_is_not_the_deployments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DLASSETS_ROOT", "lake")
    monkeypatch.setenv("DLASSETS_TRAINING__EPOCHS", "3")
    settings = planned(tmp_path).settings
    assert (settings.root, settings.training.epochs) == ("s3a://dlassets/lake", 3)


def test_the_engine_spark_needs_a_spark(tmp_path: Path) -> None:
    ran = invoke("up", "--home", tmp_path / "home", "--engine", "spark", "--spark", "none")
    assert ran.exit_code == 2
    assert "--spark cluster or --spark connect" in ran.output
    assert not (tmp_path / "home").exists()
