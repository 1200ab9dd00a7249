"""The pages and Dagster's and MLflow's user interfaces as `dlassets dev` starts them, on a stand-in's definitions."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn

from dlassets.web.ports import HOST

DEFINITIONS = """
from dagster import Definitions, asset, define_asset_job

@asset
def a_stand_in():
    pass

defs = Definitions([a_stand_in], jobs=[define_asset_job("a_job")])
"""

SERVE = """
import sys
from dlassets.cli.servers import Ports, serve
from dlassets.settings import load_settings

module, tensorboard, *ports = sys.argv[1:]
sys.exit(serve(load_settings(), Ports(*map(int, ports)), tensorboard=tensorboard == "True", module=module))
"""


@contextmanager
def taken_port() -> Iterator[int]:
    with socket.socket() as holder:
        holder.bind((HOST, 0))
        holder.listen()
        yield holder.getsockname()[1]


def free_port() -> int:
    with taken_port() as port:
        return port


@contextmanager
def served(app: Any) -> Iterator[str]:
    """An application at an address of this machine, in a thread of this process."""
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        deadline = time.monotonic() + 60
        while not server.started:
            assert thread.is_alive()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield f"http://{HOST}:{port}"
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def serving(
    folder: Path,
    mlflow_port: int | None = None,
    module: str = "stand_in",
    pages_port: int | None = None,
    tensorboard: bool = False,
    **environment: str,
) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    """All servers on `<folder>/lake`: the process that started them, and the addresses that it prints, by name.

    It is sent SIGTERM at the end, where it still runs.
    """
    (folder / "stand_in.py").write_text(DEFINITIONS)
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    ports = (str(port or free_port()) for port in (pages_port, None, mlflow_port, None))
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, module, str(tensorboard), *ports],
        env=os.environ | {"DLASSETS_ROOT": str(folder / "lake"), "PYTHONPATH": path} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    said = []
    try:
        for line in process.stdout:
            said.append(line)
            if "Ctrl-C" in line:
                break
        assert process.poll() is None, "".join(said)
        printed = (line.rsplit(maxsplit=1) for line in said)
        yield process, {name.strip(): page.partition("/#")[0] for name, page in printed if page.startswith("http")}
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=90)


def fetch(address: str, body: object = None) -> str:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(address, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as reply:
        return reply.read().decode()
