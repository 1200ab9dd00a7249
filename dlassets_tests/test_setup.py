"""What make does: the targets' commands, and the set-up script where something cannot be had."""

import itertools
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import dlassets

REPOSITORY = Path(__file__).resolve().parent.parent
SETUP_FILES = (
    "Makefile",
    "requirements.lock",
    "requirements-tools.lock",
    "pyproject.toml",
    "scripts/setup.sh",
    "dlassets/__init__.py",
)

IN_A_BROWSER = (
    "web/test_pages_in_a_browser.py",
    "labeling/test_label_studio_in_a_browser.py",
    "web/test_label_in_a_browser.py",
)

VARIABLES = ("ARGS", "IMAGES", "PHOTOS", "PROCESSES", "PYTHON", "SECONDS", "TORCH", "TURN", "UNTIL")

# Nothing listens on the discard port, so every index is out of reach.
NO_INDEX = {
    "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
    "PIP_RETRIES": "0",
    "PIP_FIND_LINKS": "",
    "PIP_CONFIG_FILE": os.devnull,
}


@pytest.fixture
def checkout(tmp_path) -> Path:
    for name in SETUP_FILES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(REPOSITORY / name, tmp_path / name)
    return tmp_path


def make(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    ours = ("MAKE", "DLASSETS_", "PIP_", "UV_", *VARIABLES)  # make hands on what it was given
    kept = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
    return subprocess.run(
        ["make", *arguments],
        cwd=folder,
        env=kept | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.fixture
def ready(checkout) -> Path:
    """A checkout whose environment is there, with commands that say how they were called."""
    commands = checkout / ".venv" / "bin"
    commands.mkdir(parents=True)
    for name in ("dlassets", "pytest", "ruff", "mypy", "lint-imports", "deptry", "python", "towncrier"):
        (commands / name).write_text('#!/bin/sh\necho "${0##*/}" "$@" "engine=$DLASSETS_ENGINE"\n')
        (commands / name).chmod(0o755)
    (checkout / ".venv" / ".ready").touch()
    return checkout


def called(result: subprocess.CompletedProcess[str]) -> list[str]:
    assert result.returncode == 0, result.stderr
    return [line for line in result.stdout.splitlines() if "engine=" in line]


@pytest.mark.parametrize(
    ("arguments", "commands"),
    [
        (["demo"], ["dlassets demo engine="]),
        (
            ["demo", "ENGINE=spark", "IMAGES=/my photos/a.zip", "ARGS=--per-class 5"],
            ["dlassets demo --images /my photos/a.zip --per-class 5 engine=spark"],
        ),
        (["demo", "IMAGES=/o'brien's/\"a\" $(b) $c"], ["dlassets demo --images /o'brien's/\"a\" $(b) $c engine="]),
        (
            ["test", "PHOTOS=../my photos", "ARGS=-k lake"],
            ["pytest -n 2 --max-worker-restart=0 --photos=../my photos --lane=fast --durations 10 -k lake engine="],
        ),
        (["test-all", "PROCESSES=0"], ["pytest -n 0 --max-worker-restart=0 --durations 20 engine="]),
        (
            ["test-slow", "TURN=a b", "UNTIL=9"],
            ["pytest -n 2 --max-worker-restart=0 --lane=slow --turn=a b --until=9 engine="],
        ),
        (
            ["coverage", "ARGS=dlassets_tests/labeling -x"],
            ["pytest -n 2 --max-worker-restart=0 --lane=fast --cov=dlassets dlassets_tests/labeling -x engine="],
        ),
        (["soak", "SECONDS=5", "ARGS=--seed 3"], ["python -m dlassets_tests.soak.files --seconds 5 --seed 3 engine="]),
        (["soak", "MODE=lakes"], ["python -m dlassets_tests.soak.lakes --seconds 600 engine="]),
        (["soak", "MODE=stores", "ARGS=--kills 3"], ["python -m dlassets_tests.soak.stores --kills 3 engine="]),
        (["dev", "ARGS=--no-mlflow"], ["dlassets dev --no-mlflow engine="]),
        (["bench-ingest", "ARGS=storage"], ["python -m benchmarks ingest storage engine="]),
        (["bench", "IMAGES=a", "ARGS=demo"], ["python -m benchmarks --images a demo engine="]),
        (["simulate", "IMAGES=a", "ARGS=margin"], ["python -m benchmarks simulate --images a margin engine="]),
        (
            ["check"],
            [
                f"{command} engine="
                for command in (
                    "ruff format --check .",
                    "ruff check .",
                    "mypy",
                    "lint-imports",
                    "deptry dlassets",
                    "deptry dlassets_tests benchmarks scripts --ignore DEP002,DEP004",
                )
            ],
        ),
        (
            ["pictures"],
            [
                f"pytest {' '.join(f'dlassets_tests/{file}' for file in IN_A_BROWSER)} --pictures docs engine=",
            ],
        ),
        (["log-store"], ["python scripts/log_store.py engine="]),
        (["house"], ["python scripts/house.py engine="]),
        (["changelog"], [f"towncrier build --yes --version {dlassets.__version__} engine="]),
    ],
)
def test_a_target_runs_its_commands_with_what_is_asked_for(ready, arguments, commands):
    assert called(make(ready, *arguments)) == commands


def test_an_environment_that_is_there_is_not_built_again(ready):
    assert "Nothing to be done" in make(ready, "setup").stdout


def test_clean_deletes_all_that_git_ignores_but_lakes_and_what_benchmarks_found(ready):
    ignored = [line.strip("/").replace("*", "x") for line in (REPOSITORY / ".gitignore").read_text().splitlines()]
    for name in ignored:
        (ready / name / "within").mkdir(parents=True)
    assert make(ready, "clean").returncode == 0
    assert [name for name in ignored if (ready / name).exists()] == ["shared", "lake", "benchmarks/results"]


def test_clean_cache_deletes_what_is_kept_for_all_lakes(ready, tmp_path):
    (tmp_path / "cache" / "dlassets" / "java").mkdir(parents=True)
    (tmp_path / "cache" / "other").mkdir()
    assert make(ready, "clean-cache", XDG_CACHE_HOME=str(tmp_path / "cache")).returncode == 0
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["other"]


def test_a_version_is_the_next_ones_while_something_has_changed_since_the_last():
    changes = [path.name for path in (REPOSITORY / "changes").glob("*.md") if path.name != "README.md"]
    released = re.findall(r"^## \[(.+?)\] - \d{4}-\d\d-\d\d$", (REPOSITORY / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert dlassets.__version__.endswith(".dev0") if changes else dlassets.__version__ == released[0]


@pytest.mark.parametrize(
    ("program", "said"),
    [
        (None, r"Python 3.11, 3.12 or 3.13 is needed(?s:.*)not there"),
        ('[ "$1" = --version ] && echo Python 3.9.18\nexit 1\n', "is Python 3.9.18"),
        ('case "$2" in *venv*) exit 1 ;; esac\n', "lacks the module venv or ensurepip"),
    ],
    ids=["missing", "old", "without venv"],
)
def test_a_python_that_will_not_do_is_said(checkout, program, said):
    python = checkout / "my-python"
    if program:
        python.write_text(f"#!/bin/sh\n{program}")
        python.chmod(0o755)
    result = make(checkout, "setup", f"PYTHON={python}")
    assert result.returncode != 0
    assert re.search(said, result.stderr)


@pytest.mark.slow
def test_an_index_out_of_reach_is_said_and_leaves_no_stamp(checkout):
    result = make(checkout, "test", **NO_INDEX)
    assert result.returncode != 0
    assert "uv could not be had from the package index" in result.stderr
    assert not (checkout / ".venv" / ".ready").exists()

    # With uv there, it is pointed at the index that pip was told of.
    shutil.copy(Path(sys.prefix) / "bin" / "uv", checkout / ".venv" / "bin" / "uv")
    result = make(checkout, "test", **NO_INDEX, UV_CACHE_DIR=str(checkout / "cache"), UV_HTTP_RETRIES="0")
    assert result.returncode != 0
    assert "127.0.0.1:9" in result.stderr
    assert "packages of requirements.lock could not be installed" in result.stderr
    assert not (checkout / ".venv" / ".ready").exists()


def environment_with_uv(checkout: Path, script: str) -> None:
    """Give the checkout an environment whose uv is a shell script."""
    commands = checkout / ".venv" / "bin"
    commands.mkdir(parents=True)
    (commands / "python").symlink_to(sys.executable)
    (commands / "uv").write_text(f"#!/bin/sh\n{script}")
    (commands / "uv").chmod(0o755)


def test_uv_gets_the_index_and_certificates_that_pip_is_set_to(checkout):
    environment_with_uv(checkout, 'echo "$2 from $UV_DEFAULT_INDEX with $SSL_CERT_FILE"\n')
    (checkout / "pip.conf").write_text("[global]\nindex-url = https://mirror.example.com/simple\ncert = /ca.pem\n")
    result = make(checkout, "setup", PIP_CONFIG_FILE=str(checkout / "pip.conf"), SSL_CERT_FILE="")
    assert result.returncode == 0, result.stderr
    assert "sync from https://mirror.example.com/simple with /ca.pem" in result.stdout
    assert (checkout / ".venv" / ".ready").exists()


def test_with_a_cpu_torch_all_but_torch_is_held_by_hashes(checkout):
    environment_with_uv(checkout, 'echo "uv $*"\nfor last; do :; done\n[ ! -f "$last" ] || cat "$last"\n')
    result = make(checkout, "setup", TORCH="cpu")
    assert result.returncode == 0, result.stderr
    synced, installed = result.stdout.split(" --torch-backend cpu ")
    assert "uv pip sync" in synced
    assert "--require-hashes" in synced
    packages = re.findall(r"(?m)^([a-z0-9._-]+)==", synced)
    left_out = re.compile(r"torch|torchvision|triton|(nvidia|cuda)-.*")
    locked = re.findall(r"(?m)^([a-z0-9._-]+)==", (REPOSITORY / "requirements.lock").read_text())
    assert packages == [name for name in locked if not left_out.fullmatch(name)]
    assert re.match(r"--no-deps --compile-bytecode torch==\S+ torchvision==\S+\n", installed)

    assert "it is cpu, or nothing" in make(checkout, "-B", "setup", TORCH="rocm").stderr


def test_the_wheel_is_not_called_well_where_a_python_that_was_asked_for_is_missing():
    script = REPOSITORY / "scripts" / "wheel.sh"
    result = subprocess.run([script, "2.6"], capture_output=True, text=True, check=False, timeout=60)
    assert result.returncode != 0
    assert "Python 2.6, which is not on this machine" in result.stderr


def test_the_lock_holds_the_pinned_versions():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *itertools.chain(*project["optional-dependencies"].values())]
    pinned = {match[0] for each in wanted if (match := re.match(r"[A-Za-z0-9._-]+==[^; ]+", each))}
    locked = set(re.findall(r"(?m)^[a-z0-9._-]+==[^ ;]+", (REPOSITORY / "requirements.lock").read_text()))
    assert pinned <= locked


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-peers.lock", "requirements-tools.lock"])
def test_every_locked_package_has_a_hash_and_no_index_is_named(lock):
    text = (REPOSITORY / lock).read_text()
    packages = re.split(r"(?m)^(?=[a-z0-9])", text)[1:]
    assert [package.split()[0] for package in packages if "--hash=sha256:" not in package] == []
    assert "://" not in text
