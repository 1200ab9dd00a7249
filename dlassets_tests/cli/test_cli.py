"""The command's own manners: help, exit codes, and one clear error for what cannot be."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import dlassets as package
from dlassets.cli import main
from dlassets_tests.disk import disk_full_after
from dlassets_tests.programs import dlassets, invoke
from dlassets_tests.tables import put


def test_help_names_every_command() -> None:
    result = invoke("--help")

    assert result.exit_code == 0
    for command in main.commands:
        assert f"  {command} " in result.output
        assert invoke(command, "--help").exit_code == 0


def test_the_version_is_the_package_s() -> None:
    assert package.__version__ in invoke("--version").output


def test_an_unknown_command_or_option_is_used_wrongly() -> None:
    assert invoke("demmo").exit_code == 2
    assert invoke("demo", "--photos", "x").exit_code == 2


def test_samples_makes_class_folders_and_says_how_many(tmp_path) -> None:
    result = invoke("samples", "generated", tmp_path / "photos", "--classes", 2, "--per-class", 3)

    assert (result.exit_code, result.output.strip().splitlines()[-1]) == (0, f"6 photos in {tmp_path}/photos")
    folders = sorted((tmp_path / "photos").glob("[0-9]*"))
    assert [len(list(folder.glob("*.jpg"))) for folder in folders] == [3, 3]


def test_samples_of_nothing_that_exists_says_what_there_is(tmp_path) -> None:
    result = invoke("samples", "clothng", tmp_path)

    assert result.exit_code == 1
    assert "Did you mean clothing?" in result.output


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({"DLASSETS_TRANING__EPOCHS": "3"}, "Did you mean training.epochs (DLASSETS_TRAINING__EPOCHS)?"),
        ({"DLASSETS_TRAINING__EPOCHS": "many"}, "training.epochs: Input should be a valid integer"),
        ({"DLASSETS_ENGINE": "sparc"}, "engine: Input should be 'local' or 'spark' (given: 'sparc')"),
        ({"DLASSETS_PROFILE": "nope"}, "DLASSETS_PROFILE=nope: there is no"),
    ],
)
def test_a_setting_that_cannot_be_is_one_error_with_exit_code_2(tmp_path, environment, says) -> None:
    ran = invoke("demo", DLASSETS_ROOT=str(tmp_path), **environment)

    assert ran.exit_code == 2, ran.stderr
    assert ran.stderr.startswith("error: ")
    assert says in ran.stderr
    assert list(tmp_path.iterdir()) == []


def test_its_process_ends_with_the_code_and_the_error_alone(tmp_path) -> None:
    ran = dlassets("demo", DLASSETS_ROOT=str(tmp_path), DLASSETS_AUTOMATION__SCHEDULED__SCORING_PIPELINE="every day")

    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith("error: ")
    assert "every day (UTC), never comes" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert list(tmp_path.iterdir()) == []


def failed(images: Path, root: Path) -> str:
    """Return the one error of a demo that cannot work."""
    ran = invoke("demo", "--images", images, DLASSETS_ROOT=str(root))
    assert ran.exit_code == 1, ran.output
    errors = [line for line in ran.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    return errors[0]


@pytest.fixture(autouse=True)
def _home_of_dagster(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it was: the demo sets it for its process, which here is that of the tests."""
    monkeypatch.setenv("DAGSTER_HOME", "")


def test_a_folder_without_photos_says_how_to_lay_them_out(tmp_path) -> None:
    (tmp_path / "empty").mkdir()

    assert "Put each class's photos into a folder of its name" in failed(tmp_path / "empty", tmp_path / "lake")


def test_a_root_that_is_a_file_is_said(tmp_path, photos) -> None:
    (tmp_path / "file").touch()

    assert f"{tmp_path}/file/demo/set.txt could not be written" in failed(photos, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b""


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is unwritable to root")
def test_a_root_that_cannot_be_written_is_said(tmp_path, photos) -> None:
    (tmp_path / "locked").mkdir(mode=0o555)

    assert "cannot be used" in failed(photos, tmp_path / "locked" / "lake")


def test_a_full_disk_is_said_and_what_was_committed_stands(tmp_path, photos) -> None:
    # Photos and Dagster's databases have room in a file of this size, and a table of photos has not.
    with disk_full_after(300_000):  # in a process of its own: what pytest keeps of the output is a file as well
        done = dlassets("demo", "--images", photos, DLASSETS_ROOT=str(tmp_path))

    assert done.returncode == 1
    said = done.stderr.splitlines()[-1]
    assert said.startswith("error: ingested_files: ")
    assert "raw_images could not be written" in said
    assert "File too large" in said
    assert "Check that the place exists, has room and is yours to write. Then run again" in said


WAITING = """
import signal
import threading
import click
from dlassets.cli import main

signal.signal(signal.SIGINT, signal.default_int_handler)  # what begins in the background ignores it

@main.command()
def wait():
    click.echo("waiting")
    {way}

main(["wait"])
"""


@pytest.mark.parametrize("way", ["threading.Event().wait()", "click.confirm('Go on?', abort=True)"])
def test_ctrl_c_ends_a_command_with_130_and_one_line(way) -> None:
    program = [sys.executable, "-c", WAITING.format(way=way)]
    pipe = subprocess.PIPE
    with subprocess.Popen(program, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)

    assert process.returncode == 130
    assert said.strip() == "Ended by Ctrl-C. Run it again, and it goes on from here."


def test_an_answer_that_is_no_ends_a_command_with_1(lake) -> None:
    put(lake, "raw_images", {"path": "z/1.jpg"})

    result = invoke("forget", "x/1", answer="n\n", DLASSETS_ROOT=lake.root)

    assert (result.exit_code, result.output.splitlines()[-1]) == (1, "Aborted!")


def test_ctrl_c_before_it_has_begun_is_no_traceback(monkeypatch, capsys) -> None:
    from dlassets.__main__ import main

    class Interrupted:
        def __getattr__(self, name: str) -> None:
            raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "dlassets.cli", Interrupted())
    with pytest.raises(SystemExit) as ended:
        main()

    assert (ended.value.code, capsys.readouterr().err) == (130, "Ended by Ctrl-C, before it began.\n")


READING = (
    ("history", "raw_images"),
    ("history", "--model", "champion"),
    ("restore", "raw_images", "--version", "0", "--yes"),
    ("forget", "image_classifier/1", "--yes"),
    ("verify",),
    ("doctor",),
    ("quarantine", "list"),
    ("classes",),
    ("reproduce", "champion"),
    ("models",),
    ("approve", "1", "--reason", "fine"),
    ("reject", "1", "--reason", "blurred"),
    ("rollback", "--reason", "bad"),
)


@pytest.mark.parametrize("command", READING, ids=" ".join)
def test_a_look_at_a_lake_that_is_not_there_makes_none(tmp_path, command) -> None:
    ran = invoke(*command, DLASSETS_ROOT=str(tmp_path / "none"))

    assert ran.exit_code == 1
    assert f"There is no lake at {tmp_path}/none" in ran.output
    assert not (tmp_path / "none").exists()


def test_a_class_may_be_named_before_there_is_a_lake(tmp_path) -> None:
    assert invoke("classes", "add", "scarf", DLASSETS_ROOT=str(tmp_path / "lake")).exit_code == 0
    assert "scarf" in invoke("classes", DLASSETS_ROOT=str(tmp_path / "lake")).output


def test_a_checksum_of_what_is_not_downloaded_is_refused(tmp_path, photos) -> None:
    ran = invoke("samples", photos, tmp_path / "to", "--checksum", "sha256:00")

    assert (ran.exit_code, (tmp_path / "to").exists()) == (1, False)
    assert "leave --checksum out" in ran.stderr


def test_a_home_folder_that_the_shell_left_as_it_stands_is_found(tmp_path, photos) -> None:
    (tmp_path / "home").symlink_to(photos)

    ran = invoke("samples", "~/home", "~/to", HOME=str(tmp_path))

    assert ran.exit_code == 0, ran.output
    assert len(list((tmp_path / "to").rglob("*.jpg"))) == 80
