"""`dlassets labels`: what it says of files of other labelling services, and its exit codes."""

import functools
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from dlassets_tests.labeling.conftest import CLASSES, Bench
from dlassets_tests.programs import invoke


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    bench = Bench(tmp_path_factory.mktemp("asked"))
    bench.add("classes", [{"label": label, "name": name} for label, name in CLASSES.items()])
    bench.add_photos("ann", "bob", "eve")
    bench.score({"ann": 0.1, "bob": 0.2})
    bench.send()
    return bench


@pytest.fixture
def run(asked: Bench) -> Callable[..., Result]:
    return functools.partial(invoke, "labels", DLASSETS_ROOT=asked.lake.root)


def answered(folder: Path, *labels: str) -> Path:
    """Fill in a manifest as Ground Truth does, one label a line."""
    lines = [json.loads(line) for line in (folder / "input.manifest").read_text().splitlines()]
    for line, label in zip(lines, labels, strict=True):
        kind = {"type": "groundtruth/image-classification", "class-name": label}
        line |= {"job": 0, "job-metadata": kind | {"creation-date": "2026-01-31T14:05:00", "human-annotated": "yes"}}
    (folder / "output.manifest").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder / "output.manifest"


def test_requests_go_out_and_their_answers_come_in(run, asked: Bench, tmp_path: Path) -> None:
    out = run("export", "--format", "groundtruth", "--photos", "--at", "s3://bucket/", tmp_path / "out")

    assert out.exit_code == 0
    folder = tmp_path / "out"
    files = f"{folder / 'input.manifest'}, {folder / 'label-categories.json'}"
    assert out.output == f"2 requests written for SageMaker Ground Truth's manifest: {files}\n"
    assert sorted(path.suffix for path in (folder / "photos").iterdir()) == [".jpg", ".jpg"]

    path = answered(folder, "hat", "shirt")
    dry = run("import", path, "--annotator", "anna", "--dry-run")
    done = run("import", path, "--annotator", "anna")
    again = run("import", path, "--annotator", "anna")

    told = "output.manifest, SageMaker Ground Truth's manifest: 2 answers by anna.\n"
    (target,) = (asked.answers / "imported").glob("[!.]*")
    assert (dry.exit_code, dry.output) == (0, f"{told}Nothing was written (--dry-run).\n")
    assert (done.exit_code, done.output) == (
        0,
        f"{told}They stand in {target}, and count when labeling_pipeline has run.\n",
    )
    assert (again.exit_code, again.output) == (0, f"{told}This file was imported before: nothing has changed.\n")


def test_what_cannot_be_used_is_named_and_the_others_are_taken_in(run, tmp_path: Path) -> None:
    bad = "".join(f"nobody{n}.jpg,hat\n" for n in range(7))
    (tmp_path / "a.csv").write_text(f"photo,label\nunlabeled/ann.jpg,hat\nunlabeled/eve.jpg,hat\nbob.jpg,kilt\n{bad}")
    (tmp_path / "b.md").write_text("# no list")
    (tmp_path / "c.csv").write_text("photo,label\nunlabeled/bob.jpg,2\ncat.jpg,\n")

    done = run("import", *(tmp_path / name for name in ("a.csv", "b.md", "c.csv")))

    assert done.exit_code == 1
    lines = done.output.splitlines()
    assert lines[0] == (
        "a.csv, a spreadsheet's list: 2 answers, 8 that cannot be used, 1 about photos that nobody was asked about."
    )
    assert lines[1:3] == [
        "  line 4: unknown class kilt",
        "  line 5: names no photo of the lake: nobody0.jpg",
    ]
    assert lines[6:8] == ["  and 3 more", "  `dlassets classes add` adds a class; its answers count then."]
    assert lines[9].startswith("error: b.md cannot be imported: it is of no format that is known: labelstudio-file,")
    assert lines[10] == "c.csv, a spreadsheet's list: 1 answer, 1 not answered yet."


def test_a_name_in_a_file_does_nothing_to_a_terminal(run, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"image_url": "\x1b[31mred\n", "label": "hat"}))

    done = run("import", tmp_path / "a.jsonl")

    assert "names no photo of the lake: \\x1b[31mred\n" in done.output


def test_what_is_used_wrongly_ends_with_two(run, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("photo,label\n")

    wrong = run("import", tmp_path / "a.csv", "--format", "excel")

    assert wrong.exit_code == 2
    assert "'excel' is none of labelstudio-file, groundtruth, azureml, cvat, coco, csv." in wrong.output
    assert run("import").exit_code == 2
    assert run("import", tmp_path / "none.csv").exit_code == 1
    assert run("export", tmp_path / "out").exit_code == 2
    assert run("export", "--format", "csv", "--batch", "none", tmp_path / "out").exit_code == 1


def test_a_root_without_a_lake_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("photo,label\n")
    for arguments in (("import", tmp_path / "a.csv"), ("export", "--format", "csv", tmp_path / "out")):
        done = invoke("labels", *arguments, DLASSETS_ROOT=str(tmp_path / "lake"))

        assert (done.exit_code, "There is no lake at" in done.output) == (1, True)
    assert not (tmp_path / "lake").exists()
