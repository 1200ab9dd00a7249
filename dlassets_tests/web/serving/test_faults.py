"""What may happen to a server: killed, flooded, lied to, its registry away; and a person with the page before it."""

import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from hypothesis.errors import Unsatisfiable

from dlassets.learning.backbones import feature_version
from dlassets.registry.package import ModelPackage
from dlassets_tests.browser import Person, chromium, needs_chromium
from dlassets_tests.registry.conftest import MODEL, opened
from dlassets_tests.servers import free_port
from dlassets_tests.web.serving.conftest import LIMITS, REF, enter
from dlassets_tests.web.serving.service import HOST, Served, asking, serving
from dlassets_tests.web.serving.test_serving import NO_PICTURE

pytestmark = pytest.mark.slow

HEAD = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n"


def test_a_server_that_was_killed_amid_requests_answers_again(models, tmp_path) -> None:
    with serving(models.settings.root, tmp_path / "first", LIMITS) as served:
        answered: dict[str, tuple[int, int]] = {}
        with asking(served, models.photos, answered):
            served.awaited(lambda: len(served.lines) > 20)
            served.process.send_signal(signal.SIGKILL)
            served.process.wait()
        assert answered  # each with 200

    with serving(models.settings.root, tmp_path / "second", LIMITS) as served:
        assert served.ask("/predict", models.photos[0]).status == 200


def test_sigterm_lets_those_who_asked_have_their_answer(models, tmp_path) -> None:
    with serving(models.settings.root, tmp_path / "log", LIMITS | {"DLASSETS_SERVING__BODY_SECONDS": "20"}) as served:
        data = models.photos[0]
        with served.connect(HEAD % len(data) + data[:10]) as connection:
            served.awaited(lambda: served.ask("/health").status == 200)
            served.process.send_signal(signal.SIGTERM)
            connection.sendall(data[10:])
            reply = connection.makefile("rb").read()

        assert reply.startswith(b"HTTP/1.1 200 OK")
        assert served.process.wait(60) == 0


def test_a_thousand_slow_clients_hold_up_nobody(models, tmp_path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    try:
        with serving(models.settings.root, tmp_path / "log", LIMITS) as served, ExitStack() as slow:
            for place in range(1000):
                begun = HEAD % 90_000
                slow.enter_context(served.connect(begun + b"x" * place if place % 2 else begun[: 1 + place % 60]))
            for photo in models.photos:
                assert served.ask("/predict", photo).status == 200
            served.awaited(lambda: sum(line["status"] == 408 for line in served.lines) == 500)
            # Those whose head does not end are let go too.
            served.awaited(lambda: _connections(served) == 0)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _connections(served: Served) -> int:
    """Return how many connections a server has open."""
    return sum(each.status == "ESTABLISHED" for each in psutil.Process(served.process.pid).net_connections())


@pytest.mark.parametrize("kind", ["declared", "chunked"])
def test_a_hundred_megabytes_take_no_memory(models, server, kind) -> None:
    def memory() -> int:
        status = Path(f"/proc/{server.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0])

    before, chunk = memory(), bytes(2**16)
    head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\n"
    length = b"Content-Length: %d" % (1600 * len(chunk)) if kind == "declared" else b"Transfer-Encoding: chunked"
    head += length + b"\r\n\r\n"
    with server.connect(head) as connection:
        for _ in range(1600):
            connection.sendall(chunk if kind == "declared" else b"10000\r\n" + chunk + b"\r\n")
        reply = connection.recv(65_536)

    assert reply.startswith(b"HTTP/1.1 413")
    assert memory() - before < 20_000
    assert server.ask("/predict", models.photos[0]).status == 200


def test_a_champion_on_another_network_takes_over_amid_requests(models, champion, server) -> None:
    ref = replace(REF, root=False)
    package = ModelPackage(models.packages[0].head, ref, feature_version(ref))
    with opened(models.settings) as store:
        version = enter(store, package)
    ended = threading.Event()

    def asks() -> set[tuple[int, int]]:
        seen = set()
        while not ended.is_set():
            reply = server.ask("/predict", models.photos[0])
            seen.add((reply.status, reply.tree.get("model", {}).get("version", 0)))
        return seen

    with ThreadPoolExecutor(4) as clients:
        asking = [clients.submit(asks) for _ in range(4)]
        for named in (version, 1, version, 2, version):
            models.name_champion(named)
            server.awaited(lambda named=named: server.answers_with(named))
        ended.set()
        seen = set().union(*(client.result() for client in asking))

    assert seen == {(200, 1), (200, 2), (200, version)}


@contextmanager
def mlflow_server(store: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    command = [
        sys.executable,
        "-m",
        "dlassets.web.mlflow_server",
        "server",
        "--backend-store-uri",
        f"sqlite:///{store}",
    ]
    options = ["--workers", "1", "--host", HOST, "--port", str(port), "--no-serve-artifacts"]
    process = subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(60)


def test_mlflow_may_be_away_at_the_start_and_later(models, tmp_path) -> None:
    port = free_port()
    away = {
        "DLASSETS_MLFLOW__TRACKING_URI": f"http://{HOST}:{port}",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        "DLASSETS_SERVING__CHAMPION_SECONDS": "0.2",
    }
    with serving(models.settings.root, tmp_path / "log", away, is_ready=False) as served:
        told = served.awaited(lambda: "cannot be said" in served.ask("/ready").body.decode() and served.ask("/ready"))
        assert told.status == 503
        assert served.ask("/predict", models.photos[0]).status == 503
        with mlflow_server(Path(models.settings.root, "mlflow", "mlflow.db"), port):
            served.awaited(served.is_ready)
            assert served.ask("/predict", models.photos[0]).status == 200
        served.awaited(lambda: "cannot be said" in served.ask("/ready").body.decode())
        assert served.ask("/ready").status == 200, "what answers goes on"
        assert served.ask("/predict", models.photos[0]).status == 200


@pytest.mark.parametrize("mode", ["positive", "negative"])
def test_nothing_that_its_openapi_allows_or_forbids_is_an_error_of_the_server(models, server, mode) -> None:
    import schemathesis
    from hypothesis import HealthCheck, given, settings
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance

    schema = schemathesis.openapi.from_dict(server.ask("/openapi.json").tree)
    checks = [not_a_server_error, status_code_conformance, response_schema_conformance]
    asked = set()
    for found in schema.get_all_operations():
        operation = found.ok()

        @given(case=operation.as_strategy(generation_mode=schemathesis.GenerationMode(mode)))
        @settings(max_examples=40, deadline=None, suppress_health_check=[*HealthCheck], derandomize=True, database=None)
        def ask(case) -> None:
            if "name" in (case.path_parameters or {}):
                case.path_parameters = case.path_parameters | {"name": MODEL, "version": "1"}
            case.call_and_validate(base_url=f"http://{HOST}:{server.port}", checks=checks)

        with suppress(Unsatisfiable):  # there is nothing to get wrong about some
            ask()
        asked.add(operation.path)

    assert {"/predict", "/invocations", "/v2/models/{name}/infer"} <= asked
    assert server.ask("/predict", models.photos[0]).status == 200


@needs_chromium
def test_a_person_drops_a_photo_and_sees_the_answer(models, server, photos) -> None:
    (tmp := Path(models.settings.root, "photo.jpg")).write_bytes(models.photos[1])
    with chromium() as browser:
        person = Person(browser.new_page())
        person.page.goto(f"http://{HOST}:{server.port}/")
        assert person.reads(f"{MODEL} version 1")
        person.page.set_input_files("#file", tmp)
        person.page.wait_for_selector("#classes li")
        names = person.page.locator("#classes li span:first-child").all_inner_texts()

        assert names[0] == "class 12"
        assert len(names) == 4
        assert person.reads(f"Said by {MODEL}, version 1 in")
        link = person.page.get_by_role("link", name=f"{MODEL}, version 1").get_attribute("href")
        assert link.endswith(f"/#/models/{MODEL}/versions/1")
        assert person.problems == []
        person.page.set_input_files("#file", {"name": "x.jpg", "mimeType": "image/jpeg", "buffer": NO_PICTURE})
        person.page.wait_for_selector("h2.bad")
        assert person.reads("do not decode as a picture")
