"""A server that is killed while another champion takes over: the next one serves that, and each answer has its row."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from dlassets.engines.local import LocalEngine
from dlassets.learning.backbones import feature_version
from dlassets.registry.package import ModelPackage
from dlassets.scoring.served import merge_served
from dlassets.settings import ServingSettings
from dlassets.storage.lake import Lake
from dlassets_tests.registry.conftest import opened
from dlassets_tests.tables import get
from dlassets_tests.web.serving.conftest import LIMITS, REF, enter
from dlassets_tests.web.serving.service import CLIENTS, asking, serving

pytestmark = pytest.mark.slow


@contextmanager
def held_up(file: Path, aside: Path) -> Iterator[Callable[[], Callable[[], None]]]:
    """Hold up whoever reads a file. Given is what waits for a reader, and returns what lets that one read on."""
    content = file.read_bytes()

    def put_back() -> None:
        (aside / "whole").write_bytes(content)
        (aside / "whole").rename(file)

    os.mkfifo(aside / "pipe")
    (aside / "pipe").rename(file)

    def wait() -> Callable[[], None]:
        writer = os.open(file, os.O_WRONLY)  # which takes until somebody reads
        put_back()  # for whoever reads it from now on

        def read_on() -> None:
            os.write(writer, content)
            os.close(writer)

        return read_on

    try:
        yield wait
    finally:
        put_back()


@pytest.mark.parametrize("moment", ["files-are-read", "network-is-made", "has-taken-over"])
def test_the_next_server_has_the_new_champion_and_each_answer_is_one_row(models, tmp_path, moment) -> None:
    package = models.packages[0]
    other = ModelPackage(package.head, ref := replace(REF, root=False), feature_version(ref))
    with opened(models.settings) as store:
        version = enter(store, other)
    folder, answered = tmp_path / "requests", dict[str, tuple[int, int]]()
    environment = LIMITS | {"DLASSETS_SERVING__LOG_REQUESTS": "true", "DLASSETS_SERVING__LOG_FOLDER": str(folder)}
    try:
        with (
            serving(models.settings.root, tmp_path / "first", environment) as served,
            asking(served, models.photos, answered, f"{moment}-first"),
        ):
            served.awaited(lambda: len(answered) > 20)
            with held_up(models.files_of(version) / "package.json", tmp_path) as reader:
                models.name_champion(version)
                read_on = reader()
                before = len(answered)
                served.awaited(lambda: len(answered) > before)  # it answers meanwhile
                if moment != "files-are-read":
                    read_on()
                if moment == "has-taken-over":
                    served.awaited(lambda: version in {by for by, _ in answered.values()})
                served.process.send_signal(signal.SIGKILL)
                served.process.wait()
        assert {by for by, _ in answered.values()} == {1, version} if moment == "has-taken-over" else {1}

        with serving(models.settings.root, tmp_path / "second", environment) as served:
            assert served.answers_with(version)
            with asking(served, models.photos, answered, f"{moment}-second"):
                served.awaited(lambda: sum("second" in name for name in answered) > 20)
    finally:
        models.name_champion(1)

    assert {by for name, (by, _) in answered.items() if "second" in name} == {version}
    logs = models.settings.model_copy(update={"serving": ServingSettings(log_requests=True, log_folder=str(folder))})
    merge_served(LocalEngine(), logs, {})
    rows = get(LocalEngine(), Lake.at(models.settings.root), "served_requests")
    rows = [row for row in rows if row["request_id"].startswith(moment)]
    assert {*Counter(row["request_id"] for row in rows).values()} == {1}
    said = {row["request_id"]: (row["model_version"], row["predicted_label"]) for row in rows}
    assert {name: said[name] for name in answered} == answered
    assert len(said) <= len(answered) + CLIENTS  # those that were written down, and not sent any more
