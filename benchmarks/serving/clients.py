"""Clients that ask a server all the time: each keeps one connection, and asks again once it has its answer.

They run in a process of their own, and speak HTTP over bare connections: on two cores, what a client takes of the
processor is taken from the server that is measured.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import math
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

_OK = b"200"
_LENGTH = b"content-length:"


@dataclass
class _Asked:
    seconds: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


def ask(port: int, path: str, form: str, photos: str, clients: int, seconds: float, warm: float) -> dict[str, object]:
    """Ask for `warm` + `seconds`, and return what came of the latter. A task of benchmarks.worker."""
    contents = [file.read_bytes() for file in sorted(Path(photos).iterdir())]
    requests = [request(path, form, content) for content in contents]
    asked = asyncio.run(_all(port, requests, clients, seconds, warm))
    ordered = sorted(asked.seconds)
    return {
        "answered": len(ordered),
        "failed": len(asked.failed),
        "failure": asked.failed[0] if asked.failed else "",
        "per_second": len(ordered) / seconds,
        "p50_ms": statistics.median(ordered) * 1000 if ordered else math.nan,
        "p99_ms": ordered[math.ceil(0.99 * len(ordered)) - 1] * 1000 if ordered else math.nan,
    }


def request(path: str, form: str, content: bytes) -> bytes:
    """Return the bytes of a request with one photo: `raw`, or in base64 as LitServe's or MLflow's `invocations`."""
    kind, body = ("image/jpeg", content) if form == "raw" else ("application/json", _json(form, content))
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _json(form: str, content: bytes) -> bytes:
    text = base64.b64encode(content).decode()
    if form == "litserve":
        return json.dumps({"image": text}).encode()
    return json.dumps({"dataframe_split": {"columns": ["content"], "data": [[text]]}}).encode()


async def _all(port: int, requests: list[bytes], clients: int, seconds: float, warm: float) -> _Asked:
    asked, begin = _Asked(), time.perf_counter() + warm
    turns = itertools.cycle(requests)
    await asyncio.gather(*(_client(port, turns, begin, begin + seconds, asked) for _ in range(clients)))
    return asked


async def _client(port: int, turns: Iterator[bytes], begin: float, end: float, asked: _Asked) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while (started := time.perf_counter()) < end:
        writer.write(next(turns))
        try:
            status = await _answered(reader)
        except (asyncio.IncompleteReadError, OSError) as error:
            asked.failed.append(repr(error))
            writer.close()
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            continue
        done = time.perf_counter()
        if status != _OK:
            asked.failed.append(status.decode())
        elif begin <= started and done <= end:
            asked.seconds.append(done - started)
    writer.close()


async def _answered(reader: asyncio.StreamReader) -> bytes:
    """Read an answer to its end, and return its status."""
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    length = next((int(line.split(b":")[1]) for line in lines if line.lower().startswith(_LENGTH)), 0)
    await reader.readexactly(length)
    return lines[0].split()[1]
