import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import yaml

from dlassets.cli import servers
from dlassets.cli.servers import ServerError, serve
from dlassets.errors import DlassetsError
from dlassets.settings import Settings, UiSettings
from dlassets.web import ports
from dlassets.web.ports import HOST
from dlassets_tests.servers import fetch, free_port, serving, taken_port

REPOSITORY = Path(__file__).resolve().parents[2]

# A server's child that does not listen when told to end.
STUBBORN = """
import pathlib, signal, subprocess, sys, time
deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
child = subprocess.Popen([sys.executable, "-c", deaf], stdout=subprocess.PIPE)
child.stdout.readline()
pathlib.Path("child").write_text(str(child.pid))
print("ready", flush=True)
time.sleep(600)
"""

# It starts that server, and waits for it and for ever.
PARENT = """
import os, pathlib, time
from dlassets.cli import servers
with servers.running("Stubborn", ["stubborn"], 0, "/", pathlib.Path("log"), os.environ):
    while not pathlib.Path("log").read_text():
        time.sleep(0.05)
    print("up", flush=True)
    time.sleep(600)
"""
PATH = os.pathsep.join([str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])])


def quick_server(log, port=None):
    """A real server that starts in no time."""
    port = port or free_port()
    return servers.running("Dagster", ["http.server", "--bind", HOST, str(port)], port, "/", log, os.environ)


@pytest.mark.slow
def test_all_servers_answer_on_the_lake_and_stop_with_all_their_children(tmp_path):
    with taken_port() as taken, serving(tmp_path, taken, tensorboard=True) as (process, addresses):
        assert not addresses["MLflow"].endswith(f":{taken}")

        query = {"query": "{ assetNodes { assetKey { path } repository { location { name } } } }"}
        assets = json.loads(fetch(addresses["Dagster"] + "/graphql", query))
        (asset,) = assets["data"]["assetNodes"]
        assert asset["assetKey"]["path"] == ["a_stand_in"]
        assert asset["repository"]["location"]["name"] == location_name()
        assert "<html" in fetch(addresses["Dagster"])
        assert "<html" in fetch(addresses["MLflow"])
        assert "<html" in fetch(addresses["TensorBoard"])
        assert list(addresses) == ["Start here", "Dagster", "MLflow", "TensorBoard"]
        assert f'href="{addresses["Dagster"]}"' in fetch(addresses["Start here"])
        assert_artifacts_lie_in_the_lake(addresses["MLflow"], tmp_path / "lake")

        children = psutil.Process(process.pid).children(recursive=True)
        assert len(children) >= 11
    assert process.returncode == 0
    assert psutil.wait_procs(children, timeout=60)[1] == []
    assert (tmp_path / "lake" / "dagster" / "server_logs" / "dagster.log").stat().st_size > 0


@pytest.mark.slow
def test_killed_without_a_word_all_servers_end_with_all_their_children(tmp_path):
    with serving(tmp_path) as (process, _):
        children = psutil.Process(process.pid).children(recursive=True)
        assert len(children) >= 9
        process.kill()
        assert psutil.wait_procs(children, timeout=30)[1] == []


def test_a_server_and_what_it_started_end_with_a_parent_that_is_killed(tmp_path):
    (tmp_path / "stubborn.py").write_text(STUBBORN)
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT], cwd=tmp_path, stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": PATH}
    )
    assert parent.stdout.readline() == b"up\n"
    started = psutil.Process(parent.pid).children(recursive=True)
    assert len(started) == 3  # the server, its child that is deaf, and the leash
    parent.kill()
    parent.communicate()
    assert psutil.wait_procs(started, timeout=60)[1] == []


def location_name() -> str:
    workspace = yaml.safe_load((REPOSITORY / "workspace.yaml").read_text())
    return workspace["load_from"][0]["python_module"]["location_name"]


def assert_artifacts_lie_in_the_lake(mlflow: str, lake) -> None:
    api = mlflow + "/api/2.0/mlflow"
    experiment = json.loads(fetch(f"{api}/experiments/create", {"name": "stand-in"}))["experiment_id"]
    run = json.loads(fetch(f"{api}/runs/create", {"experiment_id": experiment}))["run"]["info"]
    folder = lake / "mlflow" / "artifacts" / experiment / run["run_id"] / "artifacts"
    assert run["artifact_uri"] == folder.as_uri()
    folder.mkdir(parents=True)
    (folder / "picture.txt").write_text("seen")
    assert fetch(f"{mlflow}/get-artifact?path=picture.txt&run_id={run['run_id']}") == "seen"


def test_where_one_dies_the_others_are_stopped_and_the_log_says_why(tmp_path, monkeypatch, capsys):
    running = []

    @contextmanager
    def quick(*given):
        *_, port, logs, _ = given
        with quick_server(logs / "quick.log", port) as server:
            running.append(server.process)
            yield server

    def mlflow(store, artifacts, port, logs, environment):
        return servers.running("MLflow", ["no_such_server"], port, "/", logs / "mlflow.log", environment)

    monkeypatch.setattr(servers, "_pages", quick)
    monkeypatch.setattr(servers, "_dagster", quick)
    monkeypatch.setattr(servers, "_mlflow", mlflow)
    handler = signal.getsignal(signal.SIGTERM)

    assert serve(Settings(root=str(tmp_path))) == 1
    said = capsys.readouterr().err
    assert "MLflow stopped by itself (exit code 1)" in said
    assert "No module named no_such_server" in said
    assert [process.returncode is not None for process in running] == [True, True]
    assert signal.getsignal(signal.SIGTERM) is handler


def test_a_store_that_is_a_server_is_shown_and_not_started(tmp_path, monkeypatch, capsys):
    def quick(*given):
        *_, port, logs, _ = given
        return quick_server(logs / "quick.log", port)

    def told(addresses):
        announce(addresses)
        handler = signal.getsignal(signal.SIGINT)
        assert callable(handler)
        handler(signal.SIGINT, None)  # not sent: this process runs other tests, whose threads it would come to as well

    announce = servers._announce
    monkeypatch.setattr(servers, "_pages", quick)
    monkeypatch.setattr(servers, "_dagster", quick)
    monkeypatch.setattr(servers, "_announce", told)
    settings = Settings(root=str(tmp_path), mlflow={"tracking_uri": "https://me:hunter2@mlflow.example.com"})

    assert serve(settings) == 0
    said = capsys.readouterr().out
    assert "Starting Dagster and Dagster; their logs" in said
    assert "MLflow      https://mlflow.example.com\n" in said


def test_a_server_that_never_answers_is_given_up(tmp_path):
    with quick_server(tmp_path / "log") as server:
        elsewhere = servers.Server("Dagster", f"http://{HOST}:{free_port()}", "/", server.process, server.log)
        with pytest.raises(ServerError, match="No answer from Dagster"):
            servers.await_servers([elsewhere], threading.Event(), timeout=0.1)


# What may be made of SIGTERM: nothing at all; nothing by Dagster, between two steps; and an end in good order.
DEAF = "signal.signal(signal.SIGTERM, lambda *_: None); say_and_wait()"
CAPTURED = "from dagster._utils.interrupts import capture_interrupts\n    with capture_interrupts(): say_and_wait()"
ORDERLY = "signal.signal(signal.SIGTERM, signal.default_int_handler); say_and_wait()"


@pytest.mark.parametrize("handled", [DEAF, CAPTURED, ORDERLY], ids=["deaf", "captured", "orderly"])
def test_sigterm_ends_a_command_whatever_handlers_it_finds(handled):
    program = f"""
import signal, time
from dlassets.cli import group
group._SIGTERM_SECONDS = {30 if handled == ORDERLY else 0.1}
def say_and_wait():
    print("up", flush=True)
    time.sleep(600)
with group.ended_by_sigterm():
    {handled}
"""
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"up\n"
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 143


def test_nothing_a_server_started_outlives_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stubborn.py").write_text(STUBBORN)
    with servers.running("Stubborn", ["stubborn"], 0, "/", tmp_path / "log", os.environ):
        while not (tmp_path / "log").read_text():
            threading.Event().wait(0.05)
        child = psutil.Process(int((tmp_path / "child").read_text()))
    assert psutil.wait_procs([child], timeout=60)[1] == []


def test_links_follow_the_ports_unless_the_settings_name_an_address():
    ui = UiSettings(dagster="https://dagster.example.com")
    moved = {
        "pages": "http://127.0.0.1:4001",
        "dagster": "http://127.0.0.1:3001",
        "mlflow": "http://127.0.0.1:5001",
    }
    assert servers._links(ui, moved) == {
        "DLASSETS_UI__PAGES": "http://127.0.0.1:4001",
        "DLASSETS_UI__MLFLOW": "http://127.0.0.1:5001",
    }


def test_taken_ports_are_passed_over():
    with taken_port() as taken:
        first, second = ports.free_ports(taken, taken)
    assert taken < first < second


def test_no_free_port_is_an_error_that_names_the_ports(monkeypatch):
    monkeypatch.setattr(ports, "is_free", lambda _port: False)
    with pytest.raises(DlassetsError, match="Ports 3000 to 3019 on"):
        ports.free_ports(3000)
