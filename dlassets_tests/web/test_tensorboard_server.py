"""TensorBoard as `dlassets dev --tensorboard` starts it: it shows the lake's curves, to its own pages alone."""

import json
import os
import time
import urllib.error
import urllib.request

import pytest

from dlassets.cli.servers import _tensorboard
from dlassets.learning.training.curves import curves
from dlassets.learning.training.job import Event
from dlassets.storage.lake import Lake
from dlassets.web.ports import HOST
from dlassets_tests.programs import invoke
from dlassets_tests.servers import fetch, free_port


@pytest.mark.slow
@pytest.mark.parametrize("place", ["a folder", "a bucket"])
def test_it_shows_the_lake_s_curves_and_refuses_another_host(tmp_path, place, bucket) -> None:
    lake = Lake.at(str(tmp_path / "lake") if place == "a folder" else f"s3a://{bucket}/lake")
    with curves(f"{lake.tensorboard}/head-1a2b3c4d") as write:
        write(Event("epoch", 1, 1, {"loss": 0.5}))

    with _tensorboard(free_port(), tmp_path, os.environ | {"DLASSETS_ROOT": lake.root}) as server:
        deadline = time.monotonic() + 60
        while not server.answers():
            server.check()
            assert time.monotonic() < deadline
        scalars = server.address + "/data/plugin/scalars/scalars?run=head-1a2b3c4d&tag=loss"
        while True:
            try:
                ((_, step, value),) = json.loads(fetch(scalars))
                break
            except urllib.error.HTTPError:  # it has not read the folder yet
                assert time.monotonic() < deadline
                time.sleep(0.1)
        elsewhere = urllib.request.Request(scalars, headers={"Host": "evil.example"})
        with pytest.raises(urllib.error.HTTPError, match="421"):
            urllib.request.urlopen(elsewhere, timeout=30)

    assert (step, value) == (0, 0.5)
    assert server.address.startswith(f"http://{HOST}:")


def test_without_its_extra_it_says_which_to_install(lake, lacking) -> None:
    with lacking("tensorboard"):
        result = invoke("dev", "--tensorboard", DLASSETS_ROOT=lake.root)

    assert result.exit_code == 1
    assert "pip install 'dlassets[tensorboard]'" in result.output
