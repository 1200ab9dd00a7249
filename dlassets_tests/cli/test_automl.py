"""`dlassets automl` as a user runs it: a script that trains the winner again, and errors before any work."""

import os
import re
import subprocess
import sys

import pytest

from dlassets.learning import weights
from dlassets.settings import Settings
from dlassets.tuning import automl
from dlassets_tests.programs import invoke
from dlassets_tests.stores import give_store


@pytest.mark.slow
def test_the_script_of_the_winner_trains_it_again_and_says_the_same_accuracy(photos, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(automl, "HEAD_TRIALS", 3)
    monkeypatch.setattr(weights, "PACKAGES", {"efficientnet_lite0": weights.PACKAGES["efficientnet_lite0"]})
    monkeypatch.setattr(automl, "_seconds_a_photo", lambda _: 1e6)  # heads alone
    settings = Settings(root=str(tmp_path / "lake"))
    give_store(settings)
    environment = {"DLASSETS_ROOT": settings.root, "DLASSETS_FEATURES__RUNTIME": "torch"}
    out = tmp_path / "best.py"

    result = invoke("automl", "--minutes", 30, "--images", photos, "--out", out, **environment)

    assert result.exit_code == 0, result.output
    assert "leads: efficientnet_lite0 (head)" in result.output
    said = re.search(r"The best of 3 candidates: test accuracy (\S+) \((\S+) to (\S+)\) on (\d+) photos", result.output)
    assert said is not None, result.output
    again = subprocess.run([sys.executable, out], capture_output=True, text=True, check=False, env=os.environ)
    assert again.returncode == 0, again.stderr
    assert again.stdout.splitlines()[-1] == "test accuracy {} ({} to {}) on {} photos".format(*said.groups())
    refused = invoke("automl", "--minutes", 30, "--images", photos, "--out", out, **environment)
    assert (refused.exit_code, "give another --out, or --yes" in refused.output) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--minutes", 1], 1, "no labelled photos yet"),
        (["--minutes", 0], 2, "Invalid value for '--minutes'"),
        ([], 2, "Missing option '--minutes'"),
        (["--minutes", 1, "--images", "nowhere"], 2, "'nowhere' does not exist"),
        (["--minutes", 1, "--backbone", "resnet"], 1, "Unknown backbone 'resnet'"),
        (["--minutes", 1, "--backbone", "timm/resnet18"], 1, "come with no package"),
        (["--minutes", 1, "--out", "nowhere/best.py"], 1, "no folder"),
    ],
)
def test_what_cannot_be_searched_is_said_before_anything_is_made(arguments, code, says, tmp_path) -> None:
    result = invoke("automl", "--out", tmp_path / "best.py", *arguments, DLASSETS_ROOT=str(tmp_path / "lake"))

    assert (result.exit_code, says in result.output) == (code, True), result.output
    assert not (tmp_path / "lake").exists()
    assert not (tmp_path / "best.py").exists()
