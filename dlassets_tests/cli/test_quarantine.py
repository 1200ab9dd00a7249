"""`dlassets quarantine`: what it shows, what it asks, and its exit codes."""

import functools
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from dlassets.engines.local import LocalEngine
from dlassets.intake.ingest import ingest
from dlassets.intake.quarantine import refused_files
from dlassets.settings import Settings
from dlassets.storage.lake import Lake
from dlassets_tests.intake.test_ingest import photo, put
from dlassets_tests.programs import invoke

ODD = "unlabeled/[red]a\nb[/red] ü%20.jpg"


@pytest.fixture
def landing(lake: Lake, settings: Settings) -> Path:
    landing = Path(lake.zone(""))
    put(landing / "labeled/001.cat/empty.jpg", b"")
    put(landing / ODD, b"")
    put(landing / "unlabeled/note.jpg", b"not a picture at all")
    put(landing / "unlabeled/good.jpg", photo(10))
    ingest(LocalEngine(), lake, settings, {})
    return landing


@pytest.fixture
def run(lake: Lake) -> Callable[..., Result]:
    return functools.partial(invoke, "quarantine", DLASSETS_ROOT=lake.root)


def still(lake: Lake) -> list[str]:
    return sorted(file.path for file in refused_files(LocalEngine(), lake))


def test_list_shows_each_file_in_a_line_and_counts_the_reasons(run, landing: Path) -> None:
    result = run("list")

    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert any("labeled/001.cat/empty.jpg" in line and " empty " in line and " 0 bytes " in line for line in lines)
    # A name is shown as it is: not as markup, and not over two lines.
    assert any(r"unlabeled/[red]a\nb[/red] ü%20.jpg" in line for line in lines)
    assert lines[-1] == "3 files: 2 empty, 1 not_an_image"
    assert "good.jpg" not in result.output


def test_a_long_name_is_not_cut_short_in_a_narrow_place(run, lake: Lake, settings: Settings, landing: Path) -> None:
    put(landing / "unlabeled" / ("x" * 200 + ".jpg"), b"")
    ingest(LocalEngine(), lake, settings, {})

    assert run("list", "*xxx*", COLUMNS="70").output.count("x") == 200


def test_list_as_json_is_for_programs(run, landing: Path) -> None:
    (row,) = json.loads(run("list", "*note*", "--json").output)

    found = [row[name] for name in ("path", "reason", "length", "state")]
    assert found == ["unlabeled/note.jpg", "not_an_image", 20, "quarantined"]
    assert row["dropped_at"] is None
    assert row["modificationTime"].endswith("+00:00")
    assert json.loads(run("list", "--reason", "truncated", "--json").output) == []


def test_list_of_nothing_is_no_error(run, lake: Lake, settings: Settings, landing: Path) -> None:
    result = run("list", "*.tif")

    assert (result.exit_code, result.output) == (0, "Nothing is quarantined, or nothing that matches.\n")


def test_options_that_cannot_be_are_used_wrongly(run, landing: Path) -> None:
    assert run("list", "--reason", "ugly").exit_code == 2
    assert run("drop").exit_code == 2


@pytest.mark.parametrize("command", [("list",), ("retry",), ("drop", "*", "--yes")])
def test_a_root_without_a_lake_is_one_clear_error(run, lake: Lake, command: tuple[str, ...]) -> None:
    result = run(*command)

    assert result.exit_code == 1
    assert "There is no lake at" in result.output


@pytest.mark.parametrize("command", ["retry", "drop"])
def test_nothing_that_matches_is_an_error(run, landing: Path, command: str) -> None:
    result = run(command, "*.tif", *(["--yes"] if command == "drop" else []))

    assert result.exit_code == 1
    assert "Nothing that is quarantined matches" in result.output


def test_nothing_quarantined_is_said(run, lake: Lake, landing: Path) -> None:
    assert run("drop", "*", "--yes").exit_code == 0

    result = run("retry")

    assert (result.exit_code, result.output.strip()) == (1, "error: Nothing is quarantined.")


def test_retry_says_what_became_of_the_files(run, lake: Lake, landing: Path) -> None:
    assert run("retry").output.strip().splitlines() == [
        "3 files looked at again: 0 taken in, 3 refused anew.",
        "`dlassets quarantine list` says why.",
    ]
    (landing / "unlabeled/note.jpg").unlink()

    result = run("retry", "unlabeled/note.jpg")

    assert result.exit_code == 0
    assert result.output.strip().splitlines() == [
        "1 file looked at again: 0 taken in, 0 refused anew.",
        "1 file no longer there, or left out by the zone's pattern.",
    ]


def test_retry_of_a_zone_that_the_settings_do_not_have_names_it(run, landing: Path, tmp_path: Path) -> None:
    (tmp_path / "other.yaml").write_text("landing: {other: {uri: other, labelled: false}}")

    result = run("retry", DLASSETS_PROFILE=str(tmp_path / "other.yaml"))

    assert result.exit_code == 1
    assert "settings do not have: labeled, unlabeled" in result.output


def test_drop_asks_first(run, lake: Lake, landing: Path) -> None:
    refused = run("drop", "*", answer="n\n")

    assert refused.exit_code == 1
    assert "Drop 3 files (2 empty, 1 not_an_image)? [y/N]" in refused.output
    assert len(still(lake)) == 3

    assert run("drop", "*note*", answer="y\n").output.endswith("1 file dropped.\n")
    assert still(lake) == ["labeled/001.cat/empty.jpg", ODD]
    assert " dropped " in run("list", "--all").output


def test_drop_with_the_files_deletes_them_and_names_those_it_leaves(run, lake: Lake, landing: Path) -> None:
    put(landing / ODD, b"other bytes")

    result = run("drop", "unlabeled/*", "--delete-files", "--yes")

    assert result.exit_code == 1
    assert "1 file dropped, 1 deleted." in result.output
    assert r"left as it is: unlabeled/[red]a\nb[/red] ü%20.jpg: it has changed since it was refused" in result.output
    assert not (landing / "unlabeled/note.jpg").exists()
    assert (landing / ODD).read_bytes() == b"other bytes"


@pytest.mark.parametrize("command", [("list",), ("retry",), ("drop", "*", "--yes")])
def test_a_zone_that_is_not_declared_is_said(run, landing: Path, command: tuple[str, ...]) -> None:
    result = run(*command, "--zone", "nosuch")

    assert result.exit_code == 2
    assert "No landing zone 'nosuch'. Declared are: labeled, unlabeled." in result.output
