import dataclasses
import functools
import pickle
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from dlassets.errors import DlassetsError
from dlassets.images.decode import ImageError, decode_rgb, resize_center_crop
from dlassets.lakehouse.tables import IMAGE_FEATURES
from dlassets.learning import backbones, embedding
from dlassets.learning.backbones import BackboneRef, dimensions_of, feature_version, network, published
from dlassets.learning.embedding import embed_images, load_backbone
from dlassets.learning.weights import _packaged
from dlassets_tests.images.corpus import encoded
from dlassets_tests.learning.test_weights import SMALL
from dlassets_tests.programs import python

REF = BackboneRef("efficientnet_lite0")


def picture(seed):
    """A soft coloured picture of 300 by 400 pixels, as JPEG."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return encoded(Image.fromarray(coarse).resize((400, 300), Image.Resampling.BICUBIC), "JPEG")


FILES = [picture(seed) for seed in range(11)]


def batch_of(files):
    import pyarrow as pa

    ids = [f"id-{i}" for i in range(len(files))]
    return pa.RecordBatch.from_arrays([pa.array(ids), pa.array(files, pa.binary())], ["image_id", "content"])


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A cache folder of this module's own, so that converting and reading back are both seen."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        embedding._load.cache_clear()
        yield folder
        embedding._load.cache_clear()


@pytest.fixture(scope="module")
def openvino(cache):
    return load_backbone(REF, "openvino")


def cosines(ours, theirs):
    return (ours * theirs).sum(1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1)


@pytest.mark.parametrize("ref", [REF, SMALL])
def test_both_runtimes_agree(cache, ref):
    ours, theirs = (load_backbone(ref, runtime) for runtime in ("openvino", "torch"))

    features = ours.embed_bytes(FILES)

    assert cosines(features, theirs.embed_bytes(FILES)).min() > 0.99
    assert ours.dimensions == theirs.dimensions == dimensions_of(ref)
    assert features.shape == (11, dimensions_of(ref))
    assert features.dtype == np.float32


def test_the_features_are_timms_own_on_normalised_pixels(cache):
    import timm
    import torch

    tensors = torch.load(_packaged(REF.name), weights_only=True).values()
    network = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    network.load_state_dict(dict(zip(network.state_dict(), tensors, strict=True)))
    images = np.stack([resize_center_crop(decode_rgb(data, 256)) for data in FILES[:2]])
    pixels = (torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - 127 / 255) / (128 / 255)
    with torch.inference_mode():
        expected = network.forward_head(network.forward_features(pixels), pre_logits=True).numpy()

    assert np.allclose(load_backbone(REF, "torch").embed(images), expected, atol=1e-4)


def test_an_image_s_features_do_not_depend_on_its_batch(openvino):
    together = openvino.embed_bytes(FILES)
    alone = np.concatenate([openvino.embed_bytes([data]) for data in FILES])

    assert np.array_equal(together, alone)
    assert openvino.embed_bytes([]).shape == (0, 1280)


def test_several_threads_get_what_one_gets(openvino):
    kernel = functools.partial(embed_images, backbone=REF, runtime="openvino")
    batches = [batch_of(FILES[i : i + 3]) for i in range(0, 11, 3)] * 4

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(kernel, batches)) == [kernel(batch) for batch in batches]


def test_the_kernel_pickles_and_gives_the_table_s_columns(openvino):
    kernel = pickle.loads(pickle.dumps(functools.partial(embed_images, backbone=REF, runtime="openvino")))

    embedded = kernel(batch_of(FILES))

    assert embedded.schema == IMAGE_FEATURES.schema
    assert embedded.column("image_id").to_pylist() == [f"id-{i}" for i in range(11)]
    assert set(embedded.column("feature_version").to_pylist()) == {feature_version(REF)}
    assert np.array_equal(np.stack(embedded.column("features").to_numpy(False)), openvino.embed_bytes(FILES))
    assert kernel(batch_of([])).schema == IMAGE_FEATURES.schema


def test_bytes_that_do_not_decode_are_an_error_of_theirs(openvino):
    with pytest.raises(ImageError, match="UnidentifiedImageError"):
        embed_images(batch_of([FILES[0], b"no picture", FILES[1]]), backbone=REF, runtime="openvino")


def test_a_later_process_needs_no_torch(openvino, cache):
    code = (
        "import sys; from dlassets.learning.backbones import BackboneRef;"
        "from dlassets.learning.embedding import load_backbone;"
        f"print(load_backbone(BackboneRef({REF.name!r})).runtime, 'torch' in sys.modules, 'timm' in sys.modules)"
    )

    assert python(code, XDG_CACHE_HOME=str(cache)) == "openvino False False\n"


def test_auto_is_openvino_and_torch_where_openvino_does_not_import(openvino, monkeypatch, caplog):
    assert load_backbone(REF).runtime == "openvino"

    embedding._load.cache_clear()
    monkeypatch.setitem(sys.modules, "openvino", None)

    assert load_backbone(REF).runtime == "torch"
    assert "embedding with torch" in caplog.text
    embedding._load.cache_clear()


def test_a_cache_that_cannot_be_written_is_only_slower(openvino, cache, tmp_path, monkeypatch, caplog):
    import openvino as runtime

    (kept,) = (cache / "dlassets" / "backbones").glob(f"{REF.name}-*")
    monkeypatch.setattr(embedding, "_converted", lambda _: runtime.Core().read_model(kept / "model.xml"))
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))

    again = embedding._openvino(REF)

    assert np.array_equal(again.embed_bytes(FILES[:2]), openvino.embed_bytes(FILES[:2]))
    assert "cannot be written" in caplog.text


def test_two_processes_that_convert_at_once_leave_one_whole_model(openvino, cache, tmp_path):
    import openvino as runtime

    (kept,) = (cache / "dlassets" / "backbones").glob(f"{REF.name}-*")
    model = runtime.Core().read_model(kept / "model.xml")
    for _ in range(2):
        embedding._keep(model, tmp_path / "backbones" / "it")

    assert [path.name for path in (tmp_path / "backbones").iterdir()] == ["it"]
    assert sorted(path.name for path in (tmp_path / "backbones" / "it").glob("[!.]*")) == ["model.bin", "model.xml"]


def test_a_converted_model_with_a_flipped_bit_is_converted_anew(openvino, cache, tmp_path, monkeypatch):
    import openvino as runtime

    (kept,) = (cache / "dlassets" / "backbones").glob(f"{REF.name}-*")
    own = tmp_path / "dlassets" / "backbones" / kept.name
    shutil.copytree(kept, own)
    data = bytearray((own / "model.bin").read_bytes())
    data[len(data) // 2] ^= 64
    (own / "model.bin").write_bytes(data)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(embedding, "_converted", lambda _: runtime.Core().read_model(kept / "model.xml"))

    again = embedding._openvino(REF)

    assert np.array_equal(again.embed_bytes(FILES[:2]), openvino.embed_bytes(FILES[:2]))
    assert (own / "model.bin").read_bytes() == (kept / "model.bin").read_bytes()


def test_an_unknown_runtime_is_said():
    with pytest.raises(DlassetsError, match="Unknown runtime 'abacus'"):
        load_backbone(REF, "abacus")  # type: ignore[arg-type]  # what is refused here


def test_a_network_that_openvino_does_not_convert_runs_on_torch(cache, monkeypatch, caplog):
    import openvino as runtime

    def refuse(*_, **__):
        raise TypeError("no such operation")

    monkeypatch.setattr(runtime, "convert_model", refuse)
    other = dataclasses.replace(SMALL, name="timm/lcnet_035")

    assert load_backbone(other).runtime == "torch"
    assert "cannot be converted: TypeError: no such operation" in caplog.text


def test_random_weights_are_warned_of_though_the_converted_network_is_at_hand(cache, caplog):
    load_backbone(SMALL, "openvino")
    embedding._load.cache_clear()
    backbones.warn_of_random_weights.cache_clear()

    load_backbone(SMALL, "openvino")

    assert "has random weights" in caplog.text


@pytest.mark.spark
@pytest.mark.slow
def test_spark_workers_load_weights_that_were_published(spark_engine, lake, tmp_path, cache):
    import pyarrow as pa
    from safetensors.torch import save_file

    file = tmp_path / "mine.safetensors"
    save_file(network(SMALL).network.state_dict(), file)
    ref = published(BackboneRef(SMALL.name, str(file)), lake)
    file.unlink()
    table = pa.table({"image_id": ["a", "b"], "content": pa.array(FILES[:2], pa.binary())})

    kernel = functools.partial(embed_images, backbone=ref)
    rows = spark_engine.rows(table).map(kernel, IMAGE_FEATURES.columns).arrow()

    assert set(rows["feature_version"].to_pylist()) == {feature_version(ref)}
    expected = load_backbone(ref).embed_bytes(FILES[:2])
    assert np.allclose(np.stack(rows["features"].to_pylist()), expected, rtol=0.05, atol=0.05)
