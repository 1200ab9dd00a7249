"""A bucket of a test's own, and the environment to reach it."""

from __future__ import annotations

import uuid

import pytest

from dlassets_tests.storage.s3 import S3


@pytest.fixture
def bucket(s3: S3, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the name of a new, empty bucket that this process may use."""
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    name = f"photos-{uuid.uuid4().hex[:8]}"
    s3.create(name)
    return name
