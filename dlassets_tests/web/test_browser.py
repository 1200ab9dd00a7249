"""What a real browser makes the two user interfaces do, by a page of another origin and by their own."""

import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from dlassets_tests.servers import fetch, serving

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
# The browser finds this name on this machine, as one would whose name server its owner has changed meanwhile.
FOREIGN = "foreign.example"
LAUNCH = """mutation { launchRun(executionParams: {mode: "default", runConfigData: "{}", selector: {
repositoryLocationName: "dlassets", repositoryName: "__repository__", pipelineName: "a_job"}}) { __typename } }"""

# Every way by which a page can have a browser send something to another server; it tells its own when it has tried all.
PAGE = """<!doctype html><title>elsewhere</title><body><script>
const dagster = DAGSTER, mlflow = MLFLOW, query = "/graphql?query=" + encodeURIComponent(LAUNCH);
const report = "/report_asset_materialization/a_stand_in?description=forged";
const settled = (element, address) => new Promise(done => {
  element.onload = element.onerror = () => done(element.tagName);
  element.src = address;
  document.body.append(element);
});
const element = (tag, address) => settled(document.createElement(tag), address);
const post = (address, body) => fetch(address, {method: "POST", mode: "no-cors", body}).then(r => r.type, String);
const create = address => fetch(address + "/ajax-api/2.0/mlflow/experiments/create", {
  method: "POST", headers: {"Content-Type": "application/json"}, body: '{"name": "forged"}'
}).then(r => r.type, String);
const form = address => new Promise(done => {
  const frame = document.createElement("iframe"), made = document.createElement("form");
  frame.name = made.target = "f" + Math.random();
  made.method = "POST"; made.action = address;
  document.body.append(frame, made);
  made.submit();
  frame.onload = () => done("form");
});
const socket = address => new Promise(done => {
  const opened = new WebSocket(address.replace("http", "ws") + "/graphql", "graphql-ws");
  opened.onopen = () => done("socket open"); opened.onerror = () => done("socket refused");
});
const read = address => fetch(address).then(r => r.text(), () => "unread");
Promise.all([
  element("img", dagster + query), element("script", dagster + query), element("iframe", dagster + query),
  element("iframe", dagster + "/runs"), post(dagster + query), form(dagster + query), post(dagster + report),
  form(dagster + report), create(mlflow), socket(dagster),
  read(dagster + "/graphql?query={version}"), read(mlflow + "/version"),
]).then(seen => fetch("/done", {method: "POST", body: JSON.stringify(seen)}));
</script>"""

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")]


class Elsewhere(ThreadingHTTPServer):
    """Another web server of this machine, with the page, and what the page says it saw."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Visitor)
        self.page, self.is_done = "", threading.Event()
        self.seen: list[str] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def aim(self, addresses: dict[str, str]) -> None:
        page = PAGE.replace("DAGSTER", json.dumps(addresses["Dagster"]))
        page = page.replace("MLFLOW", json.dumps(addresses["MLflow"])).replace("LAUNCH", json.dumps(LAUNCH))
        self.page = page

    def at(self, name: str) -> str:
        return f"http://{name}:{self.server_port}"


class Visitor(BaseHTTPRequestHandler):
    server: Elsewhere

    def do_GET(self) -> None:
        self._answer(self.server.page.encode())

    def do_POST(self) -> None:
        self.server.seen = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self._answer(b"")
        self.server.is_done.set()

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


def chromium(folder: Path, *options: str) -> list[str]:
    return [
        str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-proxy-server",
        f"--host-resolver-rules=MAP {FOREIGN} 127.0.0.1", f"--user-data-dir={folder / 'browser'}", *options,
    ]  # fmt: skip


def visit(folder: Path, elsewhere: Elsewhere, name: str) -> list[str]:
    """Return what the page, opened at a name of its server, saw of each of its attempts."""
    elsewhere.is_done.clear()
    browser = subprocess.Popen(
        chromium(folder, "--remote-debugging-port=0", elsewhere.at(name)), stderr=subprocess.PIPE
    )
    try:
        assert elsewhere.is_done.wait(60)
    finally:
        browser.kill()
        browser.communicate()
    return elsewhere.seen


def shown(folder: Path, address: str) -> str:
    """Return a page as the browser has it when its scripts have run."""
    dumped = subprocess.run(
        chromium(folder, "--dump-dom", "--virtual-time-budget=20000", address),
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    return dumped.stdout


def done(addresses: dict[str, str]) -> tuple[int, int, list[str]]:
    """Return how many runs there are, how many materializations of the asset, and MLflow's experiments."""
    query = """{ runsOrError { ... on Runs { results { id } } }
        assetOrError(assetKey: {path: ["a_stand_in"]}) { ... on Asset { assetMaterializations { timestamp } } } }"""
    data = json.loads(fetch(addresses["Dagster"] + "/graphql", {"query": query}))["data"]
    experiments = json.loads(fetch(addresses["MLflow"] + "/api/2.0/mlflow/experiments/search?max_results=9"))
    materializations = data["assetOrError"].get("assetMaterializations", [])
    names = sorted(each["name"] for each in experiments["experiments"])
    return len(data["runsOrError"]["results"]), len(materializations), names


@contextmanager
def two_elsewhere() -> Iterator[tuple[Elsewhere, Elsewhere]]:
    with Elsewhere() as stranger, Elsewhere() as friend:
        yield stranger, friend
        stranger.shutdown()
        friend.shutdown()


def test_a_foreign_page_does_and_reads_nothing_where_one_that_is_named_does_and_their_own_work(tmp_path):
    with (
        two_elsewhere() as (stranger, friend),
        serving(tmp_path, DLASSETS_UI__ORIGINS=friend.at("localhost")) as (_, addresses),
    ):
        stranger.aim(addresses)
        friend.aim(addresses)
        nothing = done(addresses)
        assert nothing[:2] == (0, 0)

        for name in (FOREIGN, "localhost", "127.0.0.1"):
            seen = visit(tmp_path, stranger, name)
            assert {"socket refused", "unread"} <= {*seen}
            assert "socket open" not in seen
            assert done(addresses) == nothing

        # What the page tries is what would be done, were it not refused.
        assert "socket open" in visit(tmp_path, friend, "localhost")
        runs, materializations, experiments = done(addresses)
        assert runs >= 1
        assert materializations >= 1
        assert "forged" in experiments

        # A name that is pointed at this machine makes the page one of the server's own origin.
        for address in addresses.values():
            assert "DLASSETS_UI__ORIGINS" in shown(tmp_path, address.replace("127.0.0.1", FOREIGN))

        assert "a_stand_in" in shown(tmp_path, addresses["Dagster"] + "/assets/a_stand_in")
        assert "forged" in shown(tmp_path, addresses["MLflow"] + "/#/experiments")

        models = shown(tmp_path, addresses["MLflow"])
        assert "Model registry" in models  # which the other mode's menu does not have
        assert "Ask questions about your experiments" not in models  # as the assistant does, once it is open
