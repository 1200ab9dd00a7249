"""The commands and programs of README and docs: each is one that there is, and does what it is there for."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from dlassets.cli import main
from dlassets_tests.programs import dlassets

REPOSITORY = Path(__file__).resolve().parent.parent
DOCUMENTS = ("README.md", *(f"docs/{path.name}" for path in sorted((REPOSITORY / "docs").glob("*.md"))))
BIN = Path(sys.executable).parent

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_PROGRAM = re.compile(r"(?:\.venv/bin/)?(dlassets|dagster|make|mlflow|pip|uv|dg) ")
# What an example says of a lake of its own, as it is in the one here.
_OF_THIS_LAKE = {
    "--minutes 10": "--minutes 0.3",
    "--version 12": "--version 1",
    "--model 3": "--model 1",
    "models 3": "models 2",
    "rollback --to 3": "rollback --to 2",
    "approve 3": "approve 2",
    "reject 3": "reject 1",
    "--at 2026-11-20T09:00": f"--at {time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(time.time() + 3600))}",
    "'*.jpg' --reason too_large": "'*.jpg'",
    "'phones/*.txt'": "'labeled/*.txt' --yes",
}
# In a sentence on them their arguments are left out.
_WITHOUT_ARGUMENTS = {"dlassets automl", "dlassets reproduce", "dlassets approve", "dlassets reject"}
# These go on until they are stopped.
_SERVICES = {
    "dlassets watch": "watching ",
    "dlassets stream": "watching ",
    "dlassets serve": "Serving ",
    "dlassets label": "Label photos on ",
}
# These say by an exit code of 1 that there is something to do, as there may well be.
_FINDS = {"dlassets status", "dlassets status --json"}
# These are not run by a test of this file, but there.
_ELSEWHERE = {
    "make demo": ".ci/run",
    "make test": ".ci/run",
    "make wheel": ".ci/run",
    "make demo IMAGES=/path/to/photos": ".ci/run",
    "make dev": "dlassets_tests/secrets.py",
    "make serve": "dlassets_tests/web/serving/service.py",
    'pip install "$(echo dist/dlassets-*.whl)[spark,tuning]"': "scripts/wheel.sh",
    "pip install dist/dlassets-*.whl": "scripts/wheel.sh",
    "dlassets demo": "scripts/wheel.sh",
}


def blocks(document: str, *languages: str) -> Iterator[str]:
    for language, text in _BLOCK.findall((REPOSITORY / document).read_text()):
        if language in languages:
            yield text


def commands(document: str) -> list[str]:
    """Return the commands in a document's blocks, less what is said of them."""
    lines = [line for text in blocks(document, "sh", "") for line in text.splitlines()]
    return [re.sub(r"\s+#.*", "", line) for line in lines if _PROGRAM.match(line)]


def named_in_passing(document: str) -> list[str]:
    text = _BLOCK.sub("", (REPOSITORY / document).read_text())
    names = (" ".join(name.split()) for name in re.findall(r"`([^`]+)`", text))
    whole = [name for name in names if re.match(r"(?:\.venv/bin/)?(dlassets|make) \S", name)]
    return [name for name in whole if name not in _WITHOUT_ARGUMENTS]


def parsed(group: click.Group, arguments: list[str], parent: click.Context | None = None) -> None:
    """Have click read a command's arguments, and run nothing. Raises click's UsageError for what it does not take."""
    context = group.make_context(group.name, list(arguments), parent=parent)
    name, command, rest = group.resolve_command(context, [*context._protected_args, *context.args])
    if isinstance(command, click.Group) and rest:
        parsed(command, rest, context)
    elif command is not None and not isinstance(command, click.Group):
        command.make_context(name, list(rest), parent=context)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_command_that_is_named_is_one_that_there_is(document) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    for command in [*commands(document), *named_in_passing(document)]:
        program, *arguments = shlex.split(command.removeprefix(".venv/bin/"))
        if program == "make" and arguments[0] != "…":
            assert arguments[0] in targets, command
        elif program == "dlassets":
            parsed(main, [argument.replace("N", "1") for argument in arguments])


@pytest.mark.parametrize(("command", "where"), _ELSEWHERE.items())
def test_what_is_run_elsewhere_is_run_there(command, where) -> None:
    program, target = command.split()[:2]
    sign = {"make": f"make {target}", "pip": "install", "dlassets": "demo"}[program]
    assert {"make dev": '"dev"', "make serve": '"serve"'}.get(command, sign) in (REPOSITORY / where).read_text()


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a lake of the demo, two files of which are no photos, and the environment where users have it."""
    folder = tmp_path_factory.mktemp("user")
    (folder / ".venv").mkdir()
    (folder / ".venv" / "bin").symlink_to(BIN)
    zone = folder / "lake" / "landing" / "labeled" / "001.x"
    options = ("--classes", "3", "--per-class", "24")
    made = dlassets("demo", *options, DLASSETS_ROOT=str(folder / "lake"), DAGSTER_HOME="")
    assert made.returncode == 0, made.stderr
    zone.mkdir(parents=True)
    for name in ("broken.jpg", "broken.txt"):
        (zone / name).write_text("no photo")
    taken_in = run(folder, ".venv/bin/dagster asset materialize -m dlassets.definitions --select raw_images")
    assert taken_in.returncode == 0, taken_in.stdout
    return folder


def run(folder: Path, command: str) -> subprocess.CompletedProcess[str]:
    paths = {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(REPOSITORY), "DAGSTER_HOME": ""}
    return subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=os.environ | paths | {"DLASSETS_ROOT": str(folder / "lake"), "COLUMNS": "200"},
        input="y\n" * 3,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=280,
    )


@pytest.mark.slow
@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_command_does_what_it_is_there_for(here, document) -> None:
    ours = [c for c in commands(document) if c not in _ELSEWHERE and not c.startswith("make bench")]
    for command in map(of_this_lake, (command for command in ours if "…" not in command)):
        name = command.removeprefix(".venv/bin/")
        if name in _SERVICES:
            assert stopped(here, command, _SERVICES[name]) == 0, command
        else:
            done = run(here, command)
            assert done.returncode == 0 or (done.returncode == 1 and name in _FINDS), f"{command}: {done.stdout}"


def of_this_lake(command: str) -> str:
    for example, here_and_now in _OF_THIS_LAKE.items():
        command = command.replace(example, here_and_now)
    return command


def stopped(folder: Path, command: str, sign: str) -> int:
    """Run a command until it prints that sign, have it end as Ctrl-C does, and return its exit code."""
    with subprocess.Popen(
        ["bash", "-c", f"exec {command}"],
        cwd=folder,
        env=os.environ
        | {"DLASSETS_ROOT": str(folder / "lake"), "PYTHONPATH": str(REPOSITORY), "DAGSTER_HOME": ""}
        | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert any(sign in line for line in process.stdout), command
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        return process.wait(60)


@pytest.mark.slow
def test_a_lake_without_the_demo_begins_as_it_says(here, photos, tmp_path) -> None:
    (tmp_path / ".venv").symlink_to(here / ".venv")
    (block,) = [text for text in blocks("README.md", "sh") if "mkdir" in text]
    in_place_of_clicks = ".venv/bin/dagster job execute -m dlassets.definitions -j training_pipeline"
    script = re.sub(r"^make dev.*", in_place_of_clicks, block, flags=re.MULTILINE)

    done = run(tmp_path, "set -e; " + script.replace("/path/to/photos", str(photos)))

    assert done.returncode == 0, done.stdout
    models = run(tmp_path, f"DLASSETS_ROOT={tmp_path}/shop .venv/bin/dlassets history --model champion")
    assert "training_set" in models.stdout


@pytest.mark.slow
def test_the_loader_s_example_runs_as_written(here, monkeypatch) -> None:
    monkeypatch.chdir(here)
    (example,) = [text for text in blocks("docs/training.md", "python") if "torch_loader" in text]
    names: dict = {}

    exec(example, names)

    photos = len(names["batch"]["image_id"])
    assert names["batch"]["content"].shape[1:] == (3, 224, 224)
    assert 0 < photos <= 64
