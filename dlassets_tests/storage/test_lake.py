"""Where a lake may lie, and that it is the same one however its root is written."""

from pathlib import Path

import pytest

from dlassets.errors import SettingsError
from dlassets.lakehouse.snapshots import pin
from dlassets.registry.store import MlflowStore
from dlassets.settings import Settings
from dlassets.storage.lake import Lake
from dlassets_tests.programs import invoke
from dlassets_tests.registry.conftest import opened
from dlassets_tests.stores import give_store
from dlassets_tests.tables import get, put


def test_a_link_a_path_from_here_and_a_file_uri_are_the_same_lake(tmp_path, monkeypatch) -> None:
    (tmp_path / "lake").mkdir()
    (tmp_path / "link").symlink_to("lake")
    monkeypatch.chdir(tmp_path)
    roots = ("lake", "./link/", "link/../lake", f"{tmp_path}/lake/")
    assert {Lake.at(root) for root in roots} == {Lake(f"{tmp_path}/lake")}
    assert Lake.at(f"file://{tmp_path}/link/") == Lake(f"file://{tmp_path}/lake")
    assert Lake.at("s3://bucket/lake/") == Lake("s3://bucket/lake")


@pytest.mark.parametrize("name", ["[2026]", "what?", "100%25", "back\\slash", "a|b", "a^b"])
def test_a_root_whose_tables_would_come_to_lie_elsewhere_is_refused_by_name_and_nothing_is_written(
    name, tmp_path, monkeypatch
) -> None:
    root = tmp_path / name / "lake"
    root.mkdir(parents=True)
    for command in (["doctor"], ["demo"], ["history", "raw_images"], ["verify"]):
        done = invoke(*command, DLASSETS_ROOT=str(root))
        assert done.exit_code == 2, (command, done.output)
        assert "cannot hold tables: its name has" in done.output
        assert "Rename the folder" in done.output
    monkeypatch.chdir(root)
    for given in (".", str(root), f"file://{root}"):
        with pytest.raises(SettingsError, match="DLASSETS_ROOT"):
            MlflowStore(Settings(root=given))
    assert [*root.iterdir()] == []
    assert [*tmp_path.iterdir()] == [root.parent]


def test_any_other_name_holds_tables_and_mlflows_store(tmp_path, local_engine) -> None:
    root = tmp_path / "a b" / "ü" / "#1" / "it's" / "100%" / 'a@b;c&d=e+f~{x}*"`'
    settings = Settings(root=str(root))
    give_store(settings)
    lake = Lake.at(settings.root)

    put(lake, "labeled_images", {"path": "a", "image_id": "a" * 64, "label": 1})
    with opened(settings) as store:
        with store.run("one") as run:
            run.log_text("said", "said.txt")
        (found,) = store.client.search_runs([store.client.get_experiment_by_name(store.experiment).experiment_id])
        assert Path(store.client.download_artifacts(found.info.run_id, "said.txt")).read_text() == "said"

    assert get(local_engine, lake, "labeled_images", "path") == [{"path": "a"}]
    assert pin(lake, "labeled_images").version == 1
    assert sorted(path.name for path in root.iterdir()) == ["mlflow", "tables"]
    assert [*tmp_path.iterdir()] == [tmp_path / "a b"]
