"""Training on pixels: the same twice, the same for one process and two, and the same where it was killed on the way."""

import itertools
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest

from dlassets.engines.base import Snapshot
from dlassets.engines.local import LocalEngine
from dlassets.errors import DlassetsError
from dlassets.lakehouse.snapshots import pin
from dlassets.lakehouse.tables import TEST, TRAIN, VALIDATION
from dlassets.learning.backbones import BackboneRef, blocks, network
from dlassets.learning.evaluation.evaluate import evaluate
from dlassets.learning.evaluation.trained import evaluate_trained
from dlassets.learning.examples import Examples
from dlassets.learning.training import classifier
from dlassets.learning.training.augment import load
from dlassets.learning.training.classes import Classes
from dlassets.learning.training.group import ALONE
from dlassets.learning.training.head_training import train_head
from dlassets.learning.training.job import Event, Job, Trained
from dlassets.learning.training.launch import Place, launch
from dlassets.learning.training.pixel_training import fit_pixels, learning_rate
from dlassets.learning.training.pixels import features_of
from dlassets.settings import PixelSettings, TrainingSettings
from dlassets.storage.lake import Lake
from dlassets_tests.flipping import flip_in_training_set
from dlassets_tests.learning.training.pixels import NETWORK, put_photos, weights_file
from dlassets_tests.tables import get, image_id, put

STEPS = 3  # an epoch: 24 photos in batches of 8
RANDOM = BackboneRef(NETWORK, "none")


class Killed(BaseException):
    """Ends a training as no error would."""


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """A network this small is faster on one; and each of two processes of this machine has one as well."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def backbone(tmp_path_factory, photos) -> BackboneRef:
    return weights_file(tmp_path_factory.mktemp("weights"), photos)


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory, photos) -> Snapshot:
    return put_photos(Lake.at(str(tmp_path_factory.mktemp("lake"))), photos)


@pytest.fixture(scope="module")
def job(snapshot, backbone) -> Job:
    return Job(snapshot, backbone, settings())


def settings(pixels: dict | None = None, **training: object) -> TrainingSettings:
    small = {"epochs": 2, "batch_size": 8, "checkpoint_steps": 2, "mixed_precision": False, **(pixels or {})}
    return TrainingSettings.model_validate({"trainable": "all", "pixels": small, **training})


def fit(job: Job, report=lambda _: None) -> Trained:
    return fit_pixels(job, ALONE, report)


def other(job: Job, pixels: dict | None = None, **training: object) -> Job:
    return replace(job, settings=settings(pixels, **training))


def numbers(trained: Trained) -> dict[str, bytes]:
    """Return every bit of what was learned."""
    head = {name: getattr(trained.head, name).tobytes() for name in ("weight", "bias", "mean", "scale")}
    return head | {name: value.numpy().tobytes() for name, value in trained.weights.items()}


def difference(one: Trained, two: Trained) -> float:
    """Return the largest difference of a weight."""
    import torch

    assert one.weights.keys() == two.weights.keys()
    backbones = [(one.weights[name] - two.weights[name]).abs().max().item() for name in one.weights]
    return max(*backbones, float(torch.tensor(one.head.weight - two.head.weight).abs().max()))


def rows_of(job: Job, trained: Trained, split: str) -> Examples:
    net = network(job.backbone)
    net.network.load_state_dict(trained.weights)
    return features_of(job, split, net)


@pytest.fixture(scope="module")
def whole(job) -> Trained:
    """A training that nothing disturbed."""
    return fit(job)


@pytest.fixture
def kept(job, tmp_path) -> Job:
    """The same job, with a folder for its checkpoints."""
    return replace(job, folder=str(tmp_path))


@pytest.fixture
def look_on(monkeypatch) -> Callable[..., None]:
    """Have a function called with a network and the photos, before each time that the one computes on the other."""

    def install(look: Callable[..., None]) -> None:
        def watched(ref: BackboneRef):
            net = network(ref)
            net.register_forward_pre_hook(lambda module, inputs: look(module, inputs[0]))
            return net

        monkeypatch.setattr(classifier, "network", watched)

    return install


# ---- what is learned


def test_it_begins_with_the_head_alone_and_keeps_the_best_epoch(job, whole) -> None:
    before = {split: features_of(job, split, network(job.backbone)) for split in (TRAIN, VALIDATION)}
    alone = train_head(before[TRAIN], before[VALIDATION], job.settings)

    losses = [epoch["validation_loss"] for epoch in whole.history]
    assert len(losses) == 3
    assert losses[0] == pytest.approx(alone.history[alone.best_epoch]["validation_loss"], abs=1e-4)
    assert whole.best_epoch == int(np.argmin(losses))
    assert losses[whole.best_epoch] < losses[0]


def test_the_head_and_weights_are_those_of_the_best_epoch(job, whole) -> None:
    validation = rows_of(job, whole, VALIDATION)

    right = np.searchsorted(whole.head.labels, validation.labels)
    loss = -np.log(whole.head.probabilities(validation.features)[np.arange(len(validation)), right]).mean()
    assert loss == pytest.approx(whole.history[whole.best_epoch]["validation_loss"], abs=1e-4)


@pytest.mark.slow
def test_it_learns_photos_by_heart_where_it_sees_them_unchanged(job) -> None:
    plan = {"epochs": 4, "learning_rate": 5e-4, "head_learning_rate": 2e-3, "augmentation": "none"}

    trained = fit(other(job, plan, patience=4))

    losses = [epoch["train_loss"] for epoch in trained.history]
    assert losses[-1] < 0.2 * losses[0]
    assert trained.head.labels == (7, 8)


def test_last_n_learns_its_blocks_and_leaves_the_others_as_they_were(job) -> None:
    trained = fit(other(job, trainable="last_n", last_n=2))

    net = network(job.backbone)
    names = {value: name for name, value in net.network.named_parameters()}
    learned = {names[value] for block in blocks(net)[-2:] for value in block.parameters()}
    before = net.network.state_dict()
    assert trained.best_epoch > 0
    assert {name for name in before if not before[name].equal(trained.weights[name])} == learned


def test_random_weights_are_trained_from_nothing_with_statistics_of_their_own(job) -> None:
    trained = fit(replace(job, backbone=RANDOM))

    before = network(RANDOM).network.state_dict()
    means = [name for name in before if name.endswith("running_mean")]
    assert len(trained.history) == 2
    assert means
    assert not any(before[name].equal(trained.weights[name]) for name in means)


def test_it_stops_where_validation_does_not_improve(job) -> None:
    trained = fit(other(job, {"epochs": 9}, patience=2, min_improvement=10))

    assert (len(trained.history), trained.best_epoch) == (3, 0)


@pytest.mark.parametrize("balance", ["weights", pytest.param("sampling", marks=pytest.mark.slow)])
def test_a_rare_class_counts_as_much_as_the_other_where_it_is_to(photos, tmp_path, balance) -> None:
    unequal = put_photos(Lake.at(str(tmp_path)), photos, trained_on=(2, 12))

    def rare(how: str) -> float:
        of = Job(unequal, RANDOM, settings({"epochs": 3, "head_learning_rate": 0.1}, balance=how, patience=9))
        trained = fit(of)
        return float(trained.head.probabilities(rows_of(of, trained, TEST).features)[:, 0].mean())

    assert rare(balance) > rare("none") + 0.1


def test_labels_have_a_place_each_and_unknown_ones_none() -> None:
    import torch

    classes = Classes(labels=(3, 12, 40), names=("a", "b", "c"), counts=(1, 2, 6))

    assert classes.indices(torch.tensor([40, 3, 5, 99, 12, 1])).tolist() == [2, 0, -1, -1, 1, -1]
    assert classes.balanced().tolist() == pytest.approx([3, 1.5, 0.5])


# ---- the same again


@pytest.mark.parametrize(
    "plan",
    [
        {"augmentation": "light", "mixed_precision": True},
        pytest.param({"augmentation": "strong"}, marks=pytest.mark.slow),
    ],
)
def test_the_same_job_gives_the_same_weights_to_the_last_bit(job, plan) -> None:
    assert numbers(fit(other(job, {**plan, "workers": 1}))) == numbers(fit(other(job, {**plan, "workers": 3})))


@pytest.mark.skipif(not classifier.multiplies_bfloat16("cpu"), reason="this processor has no bfloat16")
def test_mixed_precision_learns_nearly_the_same(job, whole) -> None:
    mixed = fit(other(job, {"mixed_precision": True}))

    assert 0 < difference(mixed, whole) < 1e-2
    for epoch, exact in zip(mixed.history, whole.history, strict=True):
        assert epoch["validation_loss"] == pytest.approx(exact["validation_loss"], abs=0.1)


def test_a_backbone_that_is_shown_smaller_photos_is_trained_on_those(job, look_on) -> None:
    seen = set()
    look_on(lambda _, photos: seen.add(tuple(photos.shape[1:])))

    fit(replace(other(job, {"epochs": 1}), backbone=replace(job.backbone, side=96)))

    assert seen == {(96, 96, 3)}


def test_another_seed_gives_other_weights(job, whole) -> None:
    assert numbers(fit(other(job, seed=1))) != numbers(whole)


def test_torch_is_left_as_it_was(job) -> None:
    import torch

    torch.manual_seed(5)
    before = torch.get_rng_state()
    fit(other(job, {"epochs": 1}))

    assert torch.get_rng_state().equal(before)
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]  # has no stub


@pytest.mark.slow
def test_two_processes_learn_what_one_does(job) -> None:
    exact = other(job, {"batch_size": 10, "augmentation": "strong"}, balance="weights")
    heard: list[Event] = []

    together, alone = launch(exact, Place(2), heard.append), fit(exact)

    assert difference(together, alone) < 1e-4
    for epoch, same in zip(together.history, alone.history, strict=True):
        assert epoch == pytest.approx(same, abs=1e-3)
    assert [(event.kind, event.number) for event in heard] == in_order(epochs=2)


# ---- killed and gone on with


def stopping_at(kind: str, number: int):
    def report(event: Event) -> None:
        if (event.kind, event.number) == (kind, number):
            raise Killed

    return report


@pytest.mark.parametrize(
    ("kind", "number", "goes_on"),
    [
        ("step", 3, 3),
        ("epoch", 2, 4),
        *(
            pytest.param(*killed, marks=pytest.mark.slow)
            for killed in (("epoch", 1, 1), ("step", 2, 1), ("step", 5, 5), ("step", 6, 5))
        ),
    ],
)
def test_a_training_that_was_killed_ends_with_the_weights_of_one_that_was_not(
    kept, whole, kind, number, goes_on
) -> None:
    with pytest.raises(Killed):
        fit(kept, stopping_at(kind, number))
    steps: list[int] = []

    trained = fit(kept, lambda event: steps.append(event.number) if event.kind == "step" else None)

    assert numbers(trained) == numbers(whole)
    assert trained.history == whole.history
    assert steps == list(range(goes_on, 7))


@pytest.mark.slow
def test_a_process_that_was_killed_by_the_system_is_gone_on_with(kept, whole, tmp_path) -> None:
    program = """
import os, signal, sys
from dlassets.learning.training.group import ALONE
from dlassets.learning.training.job import Job
from dlassets.learning.training.pixel_training import fit_pixels

def report(event):
    if (event.kind, event.number) == ("step", 5):
        os.kill(os.getpid(), signal.SIGKILL)

fit_pixels(Job.from_json(sys.argv[1]), ALONE, report)
"""
    command, env = [sys.executable, "-c", program, kept.to_json()], {**os.environ, "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(command, env=env, check=False, capture_output=True)

    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
    assert list(tmp_path.iterdir())
    assert numbers(fit(kept)) == numbers(whole)


def test_a_damaged_checkpoint_is_passed_over(kept, whole, tmp_path) -> None:
    with pytest.raises(Killed):
        fit(kept, stopping_at("step", 6))
    newest = max(tmp_path.iterdir())
    newest.write_bytes(newest.read_bytes()[:-9])

    assert numbers(fit(kept)) == numbers(whole)


@pytest.mark.slow
def test_another_jobs_checkpoint_is_not_used(kept, whole) -> None:
    with pytest.raises(Killed):
        fit(other(kept, seed=1), stopping_at("step", 6))

    assert numbers(fit(kept)) == numbers(whole)


def test_a_finished_training_is_returned_and_not_run_again(kept, whole) -> None:
    fit(kept)
    heard: list[Event] = []

    assert numbers(fit(kept, heard.append)) == numbers(whole)
    assert not heard


# ---- what it tells


def in_order(epochs: int) -> list[tuple[str, int]]:
    """Return the events of a training: the head's epoch, then each epoch's steps and its end."""
    told = [("epoch", 1)]
    for epoch in range(epochs):
        told += [("step", epoch * STEPS + step + 1) for step in range(STEPS)] + [("epoch", epoch + 2)]
    return told


def test_every_step_and_epoch_is_told_of(job) -> None:
    heard: list[Event] = []

    trained = fit(job, heard.append)

    assert [(event.kind, event.number) for event in heard] == in_order(epochs=2)
    assert {(event.kind, event.of) for event in heard} == {("step", 6), ("epoch", 3)}
    assert [event.metrics for event in heard if event.kind == "epoch"] == trained.history
    for event in heard:
        if event.kind == "step":
            assert set(event.metrics) == {"train_loss", "learning_rate", "images_per_second", "gradient_norm"}
            assert all(math.isfinite(value) for value in event.metrics.values())


def test_the_learning_rate_rises_through_the_warm_up_and_falls_to_nothing() -> None:
    plan = PixelSettings(epochs=4, warmup_epochs=1)
    rates = [learning_rate(step, 10, plan) for step in range(40)]

    assert rates[:11] == pytest.approx([(step + 1) / 11 for step in range(10)] + [1])
    assert rates[25] == pytest.approx(0.5)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert 0 < rates[-1] < 0.01


def test_a_warm_up_as_long_as_the_training_rises_to_its_end() -> None:
    rates = [learning_rate(step, 10, PixelSettings(epochs=1, warmup_epochs=2)) for step in range(10)]

    assert rates == sorted(rates)
    assert 0 < rates[0] < rates[-1] < 1


# ---- features of photos


def test_features_are_those_of_each_photo_as_scoring_sees_it(job, photos) -> None:
    import torch

    net = network(job.backbone)
    rows = features_of(job, VALIDATION, net)

    assert rows.image_ids == sorted(rows.image_ids)
    assert len(rows) == 8
    for path, features in zip(rows.paths, rows.features, strict=True):
        with torch.no_grad():
            alone = net(load((photos / path).read_bytes())[None])[0]
        assert features == pytest.approx(alone.numpy(), abs=1e-4)


def test_it_is_evaluated_with_the_weights_that_were_learned(job, whole) -> None:
    rows = rows_of(job, whole, TEST)
    before = features_of(job, TEST, network(job.backbone))

    assert whole.best_epoch > 0
    assert evaluate_trained(job, whole).log_loss == pytest.approx(evaluate(whole.head, rows).log_loss)
    assert evaluate_trained(job, whole).log_loss != pytest.approx(evaluate(whole.head, before).log_loss)


# ---- damaged photos


SMALL = (2, 2)


def test_a_flipped_bit_costs_its_photo_alone_wherever_it_is_read(job, photos, tmp_path) -> None:
    lake = Lake.at(str(tmp_path))
    # With random weights no head is fitted first: what is left out of the train split is left out of its batches.
    damaged_job = replace(other(job, {"epochs": 1}), training_set=put_photos(lake, photos, SMALL), backbone=RANDOM)
    flipped = {split: flip_in_training_set(lake, split)[0] for split in (TRAIN, VALIDATION, TEST)}

    trained = fit(damaged_job)

    assert [epoch["photos_left_out"] for epoch in trained.history] == [2]
    (remark,) = trained.remarks
    named = ", ".join(sorted([flipped[TRAIN], flipped[VALIDATION]]))
    assert remark.startswith(f"Damaged and left out, 2 in all of version 1 of training_set: {named}. `dlassets verify")
    for split, rows in {TRAIN: 4, VALIDATION: 8, TEST: 8}.items():
        found = rows_of(damaged_job, trained, split)
        assert len(found) == rows - 1
        assert flipped[split] not in found.paths
    assert evaluate_trained(damaged_job, trained).rows == 7


def test_a_step_of_which_every_photo_is_damaged_teaches_nothing_and_counts(job, photos, tmp_path) -> None:
    snapshot = put_photos(Lake.at(str(tmp_path)), photos, SMALL, lambda place, split: (place, split) == (1, TRAIN))
    heard: list[Event] = []

    of_one_each = replace(other(job, {"epochs": 1, "batch_size": 1}), training_set=snapshot, backbone=RANDOM)
    trained = fit(of_one_each, heard.append)

    steps = [event.metrics for event in heard if event.kind == "step"]
    assert "train_loss" not in steps[0], "of what shape photos are is not known yet"
    assert [len(steps), sum("train_loss" in metrics for metrics in steps)] == [4, 2]
    assert math.isfinite(trained.history[0]["train_loss"])
    assert trained.history[0]["photos_left_out"] == 2


@pytest.mark.slow
def test_processes_of_which_one_has_damaged_photos_alone_learn_what_one_process_does(job, photos, tmp_path) -> None:
    snapshot = put_photos(Lake.at(str(tmp_path)), photos, SMALL, lambda place, split: (place, split) == (0, TRAIN))
    of_one_each = replace(other(job, {"batch_size": 2}, balance="weights"), training_set=snapshot)

    together, alone = launch(of_one_each, Place(2), lambda _: None), fit(of_one_each)

    assert difference(together, alone) < 1e-4
    assert together.remarks == alone.remarks
    for epoch, same in zip(together.history, alone.history, strict=True):
        assert epoch == pytest.approx(same, abs=1e-3)


@pytest.mark.parametrize(
    ("damaged", "said"),
    [
        (lambda _, split: split == TRAIN, r"No photo of the train split is left\. Damaged and left out, 4 in all"),
        (
            lambda _, split: split == VALIDATION,
            r"No photo of the validation split is left\. .* `dlassets verify",
        ),
    ],
)
def test_a_split_of_which_all_is_damaged_is_said(job, photos, tmp_path, damaged, said) -> None:
    snapshot = put_photos(Lake.at(str(tmp_path)), photos, SMALL, damaged)

    with pytest.raises(DlassetsError, match=said):
        fit(replace(job, training_set=snapshot))


# ---- what is refused


def test_a_loss_that_is_no_number_ends_it_with_what_to_do(job) -> None:
    said = r"not a number at step \d+\. Lower training\.pixels\.learning_rate \(9000000000000000\.0\)"
    with pytest.raises(DlassetsError, match=said):
        fit(other(job, {"learning_rate": 9e15, "head_learning_rate": 9e15, "warmup_epochs": 0}))


def short_of_memory(most: int) -> Callable[..., None]:
    """Return what has no room for more than `most` photos to learn from."""
    import torch

    def allocate(module, photos) -> None:
        if module.training and len(photos) > most:
            torch.empty(2**50, dtype=torch.uint8)

    return allocate


def test_too_little_memory_for_a_batch_halves_it_with_the_same_result(job, whole, look_on) -> None:
    look_on(short_of_memory(4))

    trained = fit(job)

    assert difference(trained, whole) < 1e-4
    assert not whole.remarks
    assert len(trained.remarks) == 1
    assert "too little memory for a batch of 8 photos" in trained.remarks[0]


def test_too_little_memory_for_half_a_batch_ends_it_with_what_to_do(job, look_on) -> None:
    look_on(short_of_memory(3))

    with pytest.raises(DlassetsError, match=r"too little memory for half a batch .* Set training\.pixels\.batch_size"):
        fit(job)


def test_other_errors_of_torch_are_not_taken_for_want_of_memory(job, look_on) -> None:
    def refuse(module, _) -> None:
        if module.training:
            raise RuntimeError("a kernel is missing")

    look_on(refuse)

    with pytest.raises(RuntimeError, match="a kernel is missing"):
        fit(job)


def test_more_blocks_than_there_are_are_refused(job) -> None:
    with pytest.raises(DlassetsError, match=r"last_n is 99, and timm/test_efficientnet has 7 blocks"):
        fit(other(job, trainable="last_n", last_n=99))


def test_a_training_set_without_photos_is_refused(job, tmp_path) -> None:
    lake = Lake.at(str(tmp_path))
    same = {"label_name": "one", "features": [1.0, 2.0], "feature_version": "v1"}
    for split, label in itertools.product((TRAIN, VALIDATION, TEST), (1, 2)):
        put(lake, "training_set", same | {"image_id": f"{split}{label}", "label": label, "split": split})

    with pytest.raises(DlassetsError, match=r"features and no photos\. Set training\.trainable to last_n or all"):
        fit(replace(job, training_set=pin(lake, "training_set")))


def test_validation_without_any_class_that_is_learned_is_refused(job, photos, tmp_path) -> None:
    lake = Lake.at(str(tmp_path))
    same = {"label_name": "one", "content": next(photos.rglob("*.jpg")).read_bytes(), "feature_version": "pixels"}
    for split, label in ((TRAIN, 1), (TRAIN, 2), (VALIDATION, 3), (TEST, 1)):
        put(lake, "training_set", same | {"image_id": f"{split}{label}", "label": label, "split": split})

    with pytest.raises(DlassetsError, match=r"validation split has no image of a class .* Put more photos"):
        fit(replace(job, training_set=pin(lake, "training_set")))


def test_a_photo_that_does_not_decode_is_left_out_and_named(job, photos, tmp_path) -> None:
    lake = Lake.at(str(tmp_path))
    put_photos(lake, photos, SMALL)
    known = get(LocalEngine(), lake, "training_set", "label, label_name, feature_version")[0]
    bad = {"path": "bad.jpg", "image_id": image_id("no photo"), "content": b"no photo", "split": TRAIN}
    put(lake, "training_set", known | bad)

    learns = replace(other(job, {"epochs": 1}), training_set=pin(lake, "training_set"), backbone=RANDOM)
    trained = fit(learns)

    (remark,) = trained.remarks
    assert "bad.jpg" in remark
    assert trained.left_out == ("bad.jpg",)
