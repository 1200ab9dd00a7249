"""What the asset image_profiles shows in Dagster: its gallery, counts, and a few images."""

import base64
import io
from pathlib import Path

import dagster as dg
from PIL import Image

from dlassets_tests.pipelines import arrive, materialized, new_lake


def metadata_of(pipelines):
    selection = dg.AssetSelection.assets("raw_images", "image_profiles")
    return materialized(pipelines.run_only(selection))["image_profiles"].metadata


def test_the_asset_links_its_gallery_and_shows_a_few_images(tmp_path, instance, photos):
    pipelines = new_lake(tmp_path / "a lake", instance)
    arrive(photos, pipelines)
    copied = next(pipelines.zone("labeled").glob("*/*"))
    (pipelines.zone("unlabeled") / f"copy{copied.suffix}").write_bytes(copied.read_bytes())

    first, again = metadata_of(pipelines), metadata_of(pipelines)

    page = Path(first["gallery_path"].value)
    assert page.read_text().startswith("<!doctype html>")
    assert first["gallery"].value == "http://127.0.0.1:4000/files/reports/image_gallery/index.html"
    assert first["near_duplicate_groups"].value >= 1
    assert set(first["defects"].value) >= {"blurred", "dark", "tiny"}
    _, encoded = first["examples"].value.removesuffix(")").split("base64,")
    assert Image.open(io.BytesIO(base64.b64decode(encoded))).size == (400, 320)
    assert len(encoded) < 100_000
    assert again["examples"] == first["examples"]
    assert again["changed"].value.startswith("nothing new")
