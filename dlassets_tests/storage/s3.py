"""The S3 server as tests use it: started, given buckets and objects, told to misbehave, stopped."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from dlassets_tests.servers import free_port
from dlassets_tests.storage import server
from dlassets_tests.storage.server import ACCESS_KEY, Faults

REGION = "eu-west-1"
SECRET_KEY = "test-secret"


class S3:
    """A running server. `environment` is all that a program needs to use it."""

    def __init__(self, port: int) -> None:
        self.address = f"http://127.0.0.1:{port}"
        self.environment = {
            "AWS_ENDPOINT_URL": self.address,
            "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": REGION,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    @cached_property
    def client(self) -> Any:
        import boto3

        return boto3.client(
            "s3",
            endpoint_url=self.address,
            region_name=REGION,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
        )

    def new_bucket(self, patch: pytest.MonkeyPatch) -> str:
        """Return the name of a new, empty bucket, which this process may use from now on."""
        for name, value in self.environment.items():
            patch.setenv(name, value)
        name = f"bucket-{uuid.uuid4().hex[:8]}"
        self.create(name)
        return name

    def create(self, bucket: str) -> None:
        self.client.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})

    def put(self, bucket: str, key: str, body: bytes) -> None:
        self.client.put_object(Bucket=bucket, Key=key, Body=body)

    def delete(self, bucket: str, key: str) -> None:
        self.client.delete_object(Bucket=bucket, Key=key)

    @contextmanager
    def faults(self, faults: Faults) -> Iterator[None]:
        """Inject them, counted from zero, while the block runs."""
        self._control("PUT", faults)
        try:
            yield
        finally:
            self._control("PUT", Faults())

    @property
    def injected(self) -> dict[str, int]:
        """How often each fault that is set was injected since."""
        return self._control("GET")

    def _control(self, method: str, faults: Faults | None = None) -> dict[str, int]:
        data = json.dumps(asdict(faults)).encode() if faults else None
        request = urllib.request.Request(f"{self.address}/_faults", data, method=method)
        with urllib.request.urlopen(request, timeout=10) as answer:
            counts: dict[str, int] = json.load(answer)
        return counts


@contextmanager
def serve(behind: int | None = None) -> Iterator[S3]:
    """Serve moto's store, or the one at the port `behind`, with faults before it."""
    program = [sys.executable, server.__file__, *([] if behind is None else [str(behind)])]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            yield S3(int(process.stdout.readline()))
        finally:
            process.kill()  # where Ctrl-C is ignored, as in a shell's background, SIGTERM may be too


@contextmanager
def serve_versitygw(program: str, folder: Path) -> Iterator[S3]:
    """Serve the objects in a folder by a real S3 server, which checks signatures and creates on a condition."""
    port = free_port()
    keys = {"ROOT_ACCESS_KEY": ACCESS_KEY, "ROOT_SECRET_KEY": SECRET_KEY}
    address = f"127.0.0.1:{port}"
    command = [program, "--port", address, "--region", REGION, "--quiet", "posix", str(folder)]
    with subprocess.Popen(command, env={**os.environ, **keys}, stdout=subprocess.DEVNULL) as process:
        try:
            answers(port)
            with serve(behind=port) as store:
                yield store
        finally:
            process.kill()


def answers(port: int, seconds: float = 30) -> None:
    """Wait until something listens at a port of this machine. Raises OSError where nothing does in time."""
    end = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.02)
        else:
            return
