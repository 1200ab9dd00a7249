"""A deployment for real: brought up, the whole loop run on it, what goes wrong with it, and taken down."""

import tempfile
from pathlib import Path

import psutil
import pytest
import requests

from dlassets.deployment.deployment import states
from dlassets.deployment.home import Home
from dlassets.deployment.supervisor import remains
from dlassets_tests.deployment.shared import FEW_PHOTOS, brought_up, command, needs_programs, secrets_in
from dlassets_tests.servers import taken_port

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def shared():
    with brought_up("--spark", "none") as deployment:
        yield deployment
    assert remains(Home(deployment.home)) == []


def test_all_is_healthy_and_a_second_up_says_so(shared):
    found = states(shared.home)
    assert {name for name, state in found.items() if state.is_done} == {"dagster-tables", "mlflow-reader"}
    assert all(state.is_ready or state.is_done for state in found.values())
    again = command("up", "--home", str(shared.home))
    assert (again.returncode, "up already" in again.stdout) == (0, True), again.stderr


def test_who_logs_in_reaches_each_server_by_one_address_and_nobody_else_does(shared):
    url = next(line.split()[-1] for line in shared.said.splitlines() if line.startswith("Start here"))
    log_in = ("admin", (shared.home / "first-password").read_text().strip())
    paths = ("/", "/dagster/server_info", "/mlflow/", "/serve/health")

    def asked(auth=None):
        with requests.Session() as session:
            session.trust_env = False
            # Its certificate is of Caddy's own authority, which no machine knows.
            replies = [session.get(url + path, auth=auth, verify=False, timeout=60) for path in paths]
        return [reply.status_code for reply in replies]

    assert asked(log_in) == [200] * 4
    assert asked() == [401] * 4


def test_the_loop_runs_on_it_and_no_secret_is_said(shared):
    said = shared.run("demo", *FEW_PHOTOS)
    assert "champion" in said
    texts = {"the demo": said, "up": shared.said}
    texts |= {str(log): log.read_text(errors="replace") for log in (shared.home / "logs").iterdir()}
    texts |= {"the configuration": (shared.home / "process-compose.yaml").read_text()}
    texts |= {
        "command lines": "\n".join(" ".join(each.info["cmdline"] or ()) for each in psutil.process_iter(["cmdline"]))
    }
    assert secrets_in(shared.home, texts) == []
    # All of it lies in the bucket: the deployment's folder of this machine has no table, and the current one no lake.
    tables = shared.home / "buckets" / "dlassets" / "lake" / "tables"
    assert (tables / "raw_images" / "_delta_log").is_dir()


def test_a_service_that_dies_at_its_start_is_named_with_the_end_of_its_log():
    needs_programs()
    with tempfile.TemporaryDirectory(prefix="dlassets-shared-") as made:
        Path(made).chmod(0o755)
        home = Path(made) / "home"
        (home / "postgres").mkdir(parents=True)  # no database lies in it
        up = command("up", "--home", str(home), "--spark", "none")
        assert up.returncode == 1
        assert "postgres does not start. The end of" in up.stderr
        assert remains(Home(home)) == []


def test_a_port_that_is_taken_is_named_and_nothing_is_started():
    needs_programs()
    with tempfile.TemporaryDirectory(prefix="dlassets-shared-") as made, taken_port() as port:
        Path(made, "ports.json").write_text(f'{{"mlflow": {port}}}')
        up = command("up", "--home", made, "--spark", "none")
        assert (up.returncode, f"{port} of mlflow" in up.stderr) == (1, True), up.stderr
        assert remains(Home(Path(made))) == []


def test_what_a_killed_supervisor_leaves_is_ended_by_down(shared):
    supervisor = next(each for each in remains(Home(shared.home)) if each.name() == "process-compose")
    supervisor.kill()
    supervisor.wait(30)
    down = command("down", "--home", str(shared.home))
    assert (down.returncode, down.stdout) == (0, "Stopping.\n"), down.stderr
    assert remains(Home(shared.home)) == []
