"""A server of a lake's champion as programs and people meet it: every form, every limit, and a champion that moves."""

import base64
import json
import os
import re
import shutil
import signal
import socket
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from PIL import Image

from dlassets_tests.images.corpus import encoded
from dlassets_tests.registry.conftest import MODEL
from dlassets_tests.web.serving.conftest import LABELS

NO_PICTURE = b"this is no picture"
# 2,000 x 2,001 pixels of one colour are some kB: more pixels than may be decoded.
BOMB = encoded(Image.new("L", (2000, 2001)), "PNG")


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def form_of(files, field: str = "file") -> tuple[bytes, str]:
    parts = b"".join(
        b'--edge\r\nContent-Disposition: form-data; name="%s"; filename="%d.jpg"\r\n\r\n%s\r\n'
        % (field.encode(), place, data)
        for place, data in enumerate(files)
    )
    return parts + b"--edge--\r\n", "multipart/form-data; boundary=edge"


def v2_of(files) -> dict:
    return {"name": "content", "datatype": "BYTES", "shape": [len(files)], "data": [text(data) for data in files]}


def from_v2(tree) -> list[dict]:
    columns = {output["name"]: output["data"] for output in tree["outputs"]}
    assert {len(data) for data in columns.values()} == {tree["outputs"][0]["shape"][0]}
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return [row | {"top_k": json.loads(row["top_k"]) if row["top_k"] else []} for row in rows]


def by_multipart(server, files):
    return server.ask("/predict", *form_of(files)).tree["predictions"]


def by_json(server, files):
    return server.ask("/predict", {"images": [text(data) for data in files]}).tree["predictions"]


def by_raw(server, files):
    return [server.ask("/predict", data).tree for data in files]


def invocations(make):
    def ask(server, files):
        return server.ask("/invocations", make([text(data) for data in files])).tree["predictions"]

    return ask


def by_v2(server, files):
    return from_v2(server.ask(f"/v2/models/{MODEL}/infer", {"inputs": [v2_of(files)]}).tree)


def by_binary_v2(server, files):
    data = b"".join(struct.pack("<I", len(one)) + one for one in files)
    tensor = {"name": "content", "datatype": "BYTES", "shape": [len(files)]}
    head = json.dumps({"inputs": [tensor | {"parameters": {"binary_data_size": len(data)}}]}).encode()
    length = {"Inference_Header_Content_Length": str(len(head))}
    path = f"/v2/models/{MODEL}/versions/1/infer"
    return from_v2(server.ask(path, head + data, "application/octet-stream", **length).tree)


FORMS = {
    "raw": by_raw,
    "multipart": by_multipart,
    "json": by_json,
    "dataframe_split": invocations(
        lambda texts: {"dataframe_split": {"columns": ["content"], "data": [[one] for one in texts]}}
    ),
    "dataframe_records": invocations(lambda texts: {"dataframe_records": [{"content": one} for one in texts]}),
    "instances": invocations(lambda texts: {"instances": [{"content": one} for one in texts]}),
    "inputs": invocations(lambda texts: {"inputs": {"content": texts}}),
    "v2": by_v2,
    "v2 in binary form": by_binary_v2,
}


@pytest.mark.parametrize("form", FORMS)
def test_each_form_is_answered_as_batch_scoring_would(server, models, form) -> None:
    answers = FORMS[form](server, models.photos)

    for answer, expected, label in zip(answers, models.batch_scored(models.photos), LABELS, strict=True):
        assert (answer["label"], answer["name"]) == (label, f"class {label}")
        assert answer["confidence"] == pytest.approx(expected["confidence"], abs=1e-12)
        assert answer["margin"] == pytest.approx(expected["margin"], abs=1e-12)
        assert [best["name"] for best in answer["top_k"]] == [best["name"] for best in expected["top_k"]]
        assert not answer.get("error")


def test_an_answer_names_the_model_and_the_request(server, models) -> None:
    reply = server.ask("/predict", models.photos[0], X_Request_Id="mine-1")
    other = server.ask("/predict", models.photos[0], X_Request_Id="not one\tof mine")

    assert reply.tree["request_id"] == reply.headers["x-request-id"] == "mine-1"
    assert reply.tree["model"] == {"name": MODEL, "version": 1}
    assert len(other.headers["x-request-id"]) == 32


@pytest.mark.parametrize("form", [form for form in FORMS if form != "raw"])
def test_beside_others_a_photo_that_does_not_decode_costs_its_own_answer(server, models, form) -> None:
    good, bad = FORMS[form](server, [models.photos[1], NO_PICTURE])

    assert good["label"] == LABELS[1]
    assert "do not decode as a picture" in bad["error"]


@pytest.mark.parametrize(
    ("path", "body", "kind", "status", "message"),
    [
        ("/predict", NO_PICTURE, None, 422, "UnidentifiedImageError: cannot identify image file$"),
        ("/predict", b"", None, 422, "do not decode as a picture"),
        ("/predict", BOMB, None, 422, "2000x2001 pixels, more than 4000000"),
        ("/predict", *form_of([NO_PICTURE]), 422, "do not decode as a picture"),
        ("/predict", *form_of([NO_PICTURE], "photo"), 422, "no file in a field named 'file'"),
        ("/predict", b"x", "multipart/form-data", 400, "no readable multipart form"),
        ("/predict", *form_of([b"x"] * 8), 400, "Too many files"),
        ("/predict", {"images": []}, None, 422, "no photo"),
        ("/predict", {"images": ["x"] * 7}, None, 400, "Photo 0 is no base64"),
        ("/predict", {"images": ["eHh4"] * 7}, None, 413, "7 photos, and a request may have 6"),
        ("/predict", {"images": [1]}, None, 400, "Photo 0 is no text"),
        ("/predict", b"{", "application/json", 400, "no readable JSON"),
        ("/predict", b"[" * 100_000, "application/json", 400, "no readable JSON"),
        ("/predict", b"x", "text/plain", 415, "Content-Type is text/plain: send a photo as image/"),
        ("/invocations", {"columns": []}, None, 400, "exactly one of dataframe_split"),
        ("/invocations", {"dataframe_split": {"columns": ["x"], "data": [["eA=="]]}}, None, 400, "'content' among"),
        ("/invocations", b"content", "text/csv", 415, "send application/json"),
        (f"/v2/models/{MODEL}/infer", {"inputs": [v2_of([b"x"]) | {"shape": [2]}]}, None, 400, r"must be \[1\]"),
        (f"/v2/models/{MODEL}/infer", {"inputs": [v2_of([b"x"]) | {"datatype": "FP32"}]}, None, 400, "datatype BYTES"),
        ("/v2/models/other/infer", {"inputs": [v2_of([b"x"])]}, None, 404, f"{MODEL}, version 1, is what answers"),
        (f"/v2/models/{MODEL}/versions/9/infer", {"inputs": []}, None, 404, "version 1, is what answers"),
        ("/nothing", None, None, 404, "Not Found"),
    ],
)  # fmt: skip
def test_what_cannot_be_answered_is_refused_with_one_clear_error(server, path, body, kind, status, message) -> None:
    reply = server.ask(path, body, kind)

    assert reply.status == status, reply.body
    assert re.search(message, reply.tree["error"])
    assert reply.tree["request_id"] == reply.headers["x-request-id"]


def test_base64_in_lines_is_read(server, models) -> None:
    wrapped = base64.encodebytes(models.photos[2]).decode()

    assert server.ask("/predict", {"images": [wrapped]}).tree["predictions"][0]["label"] == LABELS[2]


def test_the_v2_protocol_says_what_there_is(server) -> None:
    model = server.ask(f"/v2/models/{MODEL}").tree

    assert server.ask("/v2").tree["extensions"] == ["binary_tensor_data"]
    assert [server.ask(f"/v2/health/{state}").status for state in ("live", "ready")] == [200, 200]
    assert server.ask(f"/v2/models/{MODEL}/ready").tree == {"ready": True}
    assert (model["versions"], model["inputs"]) == (["1"], [{"name": "content", "datatype": "BYTES", "shape": [-1]}])
    assert server.ask(f"/v2/models/{MODEL}/infer", {"id": "my id", "inputs": [v2_of([b"x"])]}).tree["id"] == "my id"


# ---- limits


def test_a_hundred_megabytes_are_refused_before_they_are_read(server) -> None:
    head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\nContent-Length: 100000000\r\n\r\n"
    with server.connect(head) as connection:
        assert b"413" in connection.recv(65_536).partition(b"\r\n")[0]


@pytest.mark.parametrize("kind", ["image/jpeg", "application/json", "multipart/form-data; boundary=edge"])
def test_so_is_a_body_without_an_end(server, kind) -> None:
    head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunk = b"10000\r\n" + bytes(0x10000) + b"\r\n"
    with server.connect(head.encode()) as connection:
        for _ in range(17):  # one more than may be
            connection.sendall(chunk)
        assert b"413" in connection.recv(65_536).partition(b"\r\n")[0]


def test_where_too_many_wait_the_others_are_told_to_come_back(server, models) -> None:
    together = {"images": [text(models.photos[0])] * 6}
    with ThreadPoolExecutor(12) as clients:
        replies = [*clients.map(lambda _: server.ask("/predict", together), range(12))]

    statuses = {reply.status for reply in replies}
    assert statuses == {200, 429}
    for reply in replies:
        if reply.status == 429:
            assert reply.headers["retry-after"] == "1"
            assert "no more than 8 may" in reply.tree["error"]
    assert b"dlassets_waiting_photos 0.0" in server.ask("/metrics").body


def test_slow_clients_and_half_requests_hold_up_nobody(server, models) -> None:
    head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\nContent-Length: 90000\r\n"
    with ExitStack() as opened:

        def connections(count: int, sent: bytes) -> list[socket.socket]:
            return [opened.enter_context(server.connect(sent)) for _ in range(count)]

        slow = connections(60, head + b"\r\nsome of it")
        connections(60, head)
        for connection in connections(20, head + b"\r\nhalf"):
            connection.close()
        began = time.monotonic()
        answer = server.ask("/predict", models.photos[3]).tree
        took = time.monotonic() - began
        refusals = [connection.makefile("rb").read() for connection in slow]

    assert (answer["label"], took < 1) == (LABELS[3], True)
    assert {refusal.partition(b"\r\n")[0] for refusal in refusals} == {b"HTTP/1.1 408 Request Timeout"}
    assert all(b"not here whole after 1 s" in refusal for refusal in refusals)
    server.awaited(lambda: sum(line["status"] == 499 for line in server.lines) == 20)


# ---- a champion that moves


def test_while_the_champion_moves_no_request_fails(server, champion) -> None:
    ended = threading.Event()

    def asks(place: int) -> list[tuple[int, int, float]]:
        seen = []
        while not ended.is_set():
            reply = server.ask("/predict", champion.photos[place])
            seen.append((reply.status, reply.tree["model"]["version"], reply.tree["confidence"]))
        return seen

    expected = {
        version: [row["confidence"] for row in champion.batch_scored(champion.photos, version)] for version in (1, 2, 3)
    }
    with ThreadPoolExecutor(4) as clients:
        asking = [clients.submit(asks, place) for place in range(4)]
        for version in (2, 1, 3, 2):
            champion.name_champion(version)
            server.awaited(lambda version=version: server.answers_with(version))
        ended.set()
        seen = [client.result() for client in asking]

    for place, of_client in enumerate(seen):
        for status, version, confidence in of_client:
            assert status == 200
            assert confidence == pytest.approx(expected[version][place], abs=1e-12)
    assert {version for of_client in seen for _, version, _ in of_client} >= {1, 2}


@pytest.mark.parametrize("fault", ["gone", "changed"])
def test_a_champion_whose_files_are_not_its_own_does_not_take_over(server, champion, tmp_path, fault) -> None:
    files = champion.files_of(3)
    shutil.copytree(files, tmp_path / "kept")
    champion.name_champion(2)  # so that 3 is not the one before, and in memory
    server.awaited(lambda: server.answers_with(2))
    champion.name_champion(1)
    server.awaited(lambda: server.answers_with(1))
    if fault == "gone":
        shutil.rmtree(files)
    else:
        tree = json.loads((files / "package.json").read_text())
        (files / "package.json").write_text(json.dumps(tree | {"temperature": 0.1}))

    champion.name_champion(3)
    ready = server.awaited(lambda: (tree := server.ask("/ready").tree).get("error") and tree)

    assert ready["models"] == [f"{MODEL}/1"]
    assert f"{MODEL}/3 is champion, and cannot be served." in ready["error"]
    assert "Version 1 goes on." in ready["error"]
    assert ready["error"] in server.log.read_text()
    assert server.ask("/predict", champion.photos[0]).tree["model"]["version"] == 1
    shutil.rmtree(files, ignore_errors=True)
    shutil.copytree(tmp_path / "kept", files)
    server.awaited(lambda: server.answers_with(3))


# ---- what is known of it


def test_prometheus_is_told_what_was_asked(server, models) -> None:
    server.ask("/predict", models.photos[0])
    server.ask("/predict", NO_PICTURE)

    metrics = server.ask("/metrics").body.decode()

    assert 'dlassets_requests_total{form="raw",model_version="1",status="200"}' in metrics
    assert 'dlassets_requests_total{form="raw",model_version="1",status="422"}' in metrics
    assert 'dlassets_request_seconds_bucket{form="raw",le="0.01"}' in metrics
    assert "dlassets_champion_version 1.0" in metrics
    assert "dlassets_model_swaps_total" in metrics


def test_each_request_has_one_line_in_the_log(server, models) -> None:
    server.ask("/predict", models.photos[0], X_Request_Id="looked-for")

    line = server.awaited(lambda: [line for line in server.lines if line["request_id"] == "looked-for"])[0]

    assert line.pop("ms") > 0
    assert line.pop("at").startswith("20")
    assert line == {
        "request_id": "looked-for",
        "form": "raw",
        "status": 200,
        "photos": 1,
        "bytes": len(models.photos[0]),
        "model": f"{MODEL}/1",
    }


def test_openapi_has_an_example_of_each_form(server) -> None:
    paths = server.ask("/openapi.json").tree["paths"]

    bodies = {path: paths[path]["post"]["requestBody"]["content"] for path in ("/predict", "/invocations")}
    assert {"image/jpeg", "application/octet-stream", "multipart/form-data"} <= bodies["/predict"].keys()
    assert "example" in bodies["/predict"]["application/json"]
    assert [*bodies["/invocations"]["application/json"]["examples"]] == [
        "dataframe_split", "dataframe_records", "instances", "inputs",
    ]  # fmt: skip
    assert "/v2/models/{name}/infer" in paths


def test_no_page_of_another_origin_is_answered(server, models) -> None:
    assert server.ask("/predict", models.photos[0], Origin="https://evil.example").status == 403
    assert server.ask("/predict", models.photos[0], Host="evil.example").status == 421
    assert server.ask("/predict", models.photos[0], Origin=f"http://127.0.0.1:{server.port}").status == 200


def test_the_page_runs_its_own_script_alone(server) -> None:
    page = server.ask("/")

    assert "script-src 'self'" in page.headers["content-security-policy"]
    assert b"version</span> 1</h1>" in page.body
    assert [server.ask(f"/{name}").status for name in ("try.js", "try.css", "style.css", "favicon.ico")] == [200] * 4


def test_the_server_has_no_torch_in_it(server, models) -> None:
    server.ask("/predict", models.photos[0])

    maps = [Path(f"/proc/{pid}/maps").read_text() for pid in (server.process.pid, *server.lookers)]

    assert ["openvino" in of_process for of_process in maps] == [False, *(True for _ in server.lookers)]
    assert not any("libtorch" in of_process for of_process in maps)


def test_a_process_that_ends_amid_requests_costs_none_of_them(server, models) -> None:
    killed = server.lookers
    with ThreadPoolExecutor(4) as clients:
        asking = [clients.submit(server.ask, "/predict", models.photos[place % 4]) for place in range(20)]
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        statuses = {client.result().status for client in asking}

    assert statuses == {200}
    server.awaited(lambda: len(server.lookers) == len(killed))
    assert not set(killed) & set(server.lookers)
