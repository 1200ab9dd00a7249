"""Training a head: the same for the same rows, stopped in time, and clear about what it cannot learn from."""

import dataclasses

import numpy as np
import pytest

from dlassets.engines.base import Snapshot
from dlassets.errors import DlassetsError
from dlassets.lakehouse.snapshots import pin
from dlassets.lakehouse.tables import TEST, TRAIN, VALIDATION
from dlassets.learning import examples
from dlassets.learning.backbones import BackboneRef
from dlassets.learning.examples import Examples, read_split, read_splits
from dlassets.learning.training import head_training
from dlassets.learning.training.head_training import train_head
from dlassets.learning.training.job import Event, Job
from dlassets.learning.training.launch import Place, launch
from dlassets.settings import TrainingSettings
from dlassets.storage.lake import Lake
from dlassets_tests import tables
from dlassets_tests.learning.examples import rows
from dlassets_tests.programs import python

SETTINGS = TrainingSettings()
ARRAYS = ("weight", "bias", "mean", "scale")
LABELS = [3, 12, 40] * 20


# What float32 sums differ by when rows are added up in another order, as a share of the largest number.
# A path of penalties, of which none is fitted to its end, carries it on from each to the next.
LAST_DIGITS, LAST_DIGITS_OF_A_PATH = 1e-5, 1e-3


def weights(trained):
    return {name: getattr(trained.head, name).tobytes() for name in ARRAYS}


def put(engine, lake, *splits: tuple[str, Examples]) -> Snapshot:
    """Write the rows of each split as a commit of its own, so that the table has a file for each."""
    for split, some in splits:
        columns = {
            "path": some.paths,
            "image_id": [tables.image_id(f"{split}{name}") for name in some.image_ids],
            "label": some.labels.tolist(),
            "label_name": some.names,
            "features": some.features.tolist(),
        }
        each = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        said = {"feature_version": "test", "split": split}
        tables.put(lake, "training_set", *(row | said for row in each), engine=engine)
    return pin(lake, "training_set")


def put_all(engine, lake, train=LABELS, validation=LABELS, test=(3,)) -> Snapshot:
    """Write rows of these labels for each split."""
    splits = {TRAIN: train, VALIDATION: validation, TEST: test}
    return put(engine, lake, *((name, rows(labels, seed=seed)) for seed, (name, labels) in enumerate(splits.items())))


def part(some: Examples, places: slice) -> Examples:
    return Examples(*(getattr(some, field.name)[places] for field in dataclasses.fields(Examples)))


def test_the_same_rows_and_settings_give_the_same_weights_to_the_last_bit() -> None:
    train, validation = rows(LABELS), rows(LABELS, seed=1)

    assert weights(train_head(train, validation, SETTINGS)) == weights(train_head(train, validation, SETTINGS))


WITHOUT_A_COMPILER = f"""
import sys
from dlassets.learning.training.head_training import train_head
from dlassets.settings import TrainingSettings
from dlassets_tests.learning.examples import rows

train_head(rows({LABELS}), rows({LABELS}, seed=1), TrainingSettings())
print({{"torch", "torch._dynamo"}} & sys.modules.keys())
"""


@pytest.mark.slow
def test_a_head_waits_for_no_import_of_torch_s_compiler() -> None:
    assert python(WITHOUT_A_COMPILER) == "{'torch'}\n"


@pytest.mark.parametrize(("l2", "digits"), [(0.05, LAST_DIGITS), (None, LAST_DIGITS_OF_A_PATH)])
def test_many_rows_part_by_part_give_the_weights_that_they_give_at_once(
    monkeypatch: pytest.MonkeyPatch, l2, digits
) -> None:
    train, validation = rows(LABELS * 5), rows(LABELS, seed=1)
    settings = TrainingSettings(l2=l2)
    at_once = train_head(train, validation, settings)
    monkeypatch.setattr(head_training, "FEW_NUMBERS", 0)
    monkeypatch.setattr(examples, "PART_NUMBERS", 7 * train.features.shape[1])

    in_parts, again = (train_head(train, validation, settings) for _ in range(2))

    assert weights(in_parts) == weights(again)
    assert in_parts.best_epoch == at_once.best_epoch
    for name in ARRAYS:
        one, other = getattr(at_once.head, name), getattr(in_parts.head, name)
        assert np.abs(one - other).max() <= digits * np.abs(one).max(), name


def test_chosen_rows_are_learned_from_as_if_there_were_no_others() -> None:
    train, validation = rows(LABELS), rows(LABELS, seed=1)
    chosen = np.arange(len(train)) % 3 != 1  # no row of class 12
    judging = np.arange(len(validation)) >= 6
    learned = train_head(train, validation, SETTINGS, chosen=(np.flatnonzero(chosen), np.flatnonzero(judging)))
    alone = train_head(train.taken(chosen), validation.taken(judging), SETTINGS)

    assert learned.head.labels == (3, 40)
    assert weights(learned) == weights(alone)
    assert learned.history == alone.history


# In a process of its own, which ends without stopping tracemalloc: the threads of torch that it follows crash at that.
MEASURED = """
import os
import tracemalloc

import numpy as np

from dlassets.learning import examples
from dlassets.learning.training import head_training
from dlassets.settings import TrainingSettings
from dlassets_tests.learning.examples import rows

head_training.FEW_NUMBERS, examples.PART_NUMBERS = 0, 2**15
train, validation = (rows([3, 12] * count, features=512, seed=seed) for seed, count in ((0, 2048), (1, 16)))
assert train.features.nbytes == 2**23
chosen = np.arange(1, len(train)), np.arange(len(validation))
head_training.train_head(validation, validation, TrainingSettings(epochs=1))  # all is imported now
tracemalloc.start()  # numpy tells it of what it holds
head_training.train_head(train, validation, TrainingSettings(epochs=1), chosen=chosen)
print(tracemalloc.get_traced_memory()[1], flush=True)
os._exit(0)
"""


@pytest.mark.slow
def test_many_rows_are_chosen_and_learned_from_without_a_copy_of_them() -> None:
    assert int(python(MEASURED)) < 2**22


def test_other_settings_give_other_weights() -> None:
    train, validation = rows(LABELS), rows(LABELS, seed=1)
    smoother = train_head(train, validation, TrainingSettings(l2=1.0)).head

    assert np.abs(smoother.weight).sum() < np.abs(train_head(train, validation, SETTINGS).head.weight).sum()


def test_the_order_of_files_does_not_change_what_is_learned(local_engine, tmp_path) -> None:
    train, validation = rows(LABELS), rows(LABELS, seed=1)
    first, last = part(train, slice(0, 25)), part(train, slice(25, None))
    learned = []
    for name, order in (("one", (first, last)), ("other", (last, first))):
        lake = Lake.at(str(tmp_path / name))
        snapshot = put(local_engine, lake, *((TRAIN, some) for some in order), (VALIDATION, validation))
        learned.append(weights(train_head(read_split(snapshot, TRAIN), read_split(snapshot, VALIDATION), SETTINGS)))

    assert learned[0] == learned[1]


def test_a_split_is_read_whole_in_the_order_of_image_ids(local_engine, lake) -> None:
    train = rows(LABELS)

    read = read_split(put(local_engine, lake, (TRAIN, train), (TEST, rows([3, 3], seed=2))), TRAIN)

    assert read.image_ids == sorted(read.image_ids)
    assert sorted(read.paths) == train.paths
    by_path = dict(zip(read.paths, range(len(read)), strict=True))
    order = [by_path[path] for path in train.paths]
    assert read.features[order].tolist() == train.features.tolist()
    assert read.labels[order].tolist() == LABELS
    assert [read.names[place] for place in order] == train.names


def test_shards_share_a_split_without_overlap(local_engine, lake) -> None:
    train = rows(LABELS)
    snapshot = put(local_engine, lake, (TRAIN, part(train, slice(0, 30))), (TRAIN, part(train, slice(30, None))))

    shards = [read_split(snapshot, TRAIN, shard=(rank, 2)) for rank in range(2)]

    assert all(len(shard) for shard in shards)
    assert sorted(shards[0].paths + shards[1].paths) == train.paths


def test_labels_need_not_be_dense_nor_start_at_0() -> None:
    trained = train_head(rows([12, 40, 3] * 20), rows(LABELS, seed=1), SETTINGS)

    assert trained.head.labels == (3, 12, 40)
    assert trained.head.names == ("class 3", "class 12", "class 40")
    fresh = rows(LABELS, seed=2)
    assert (trained.head.predict(fresh.features) == fresh.labels).mean() > 0.95


def test_the_epoch_with_the_best_validation_loss_is_kept() -> None:
    # Noise to learn by heart, and no penalty: validation gets worse while training gets better.
    train, validation = rows(LABELS, spread=4), rows(LABELS, seed=1, spread=4)
    settings = TrainingSettings(epochs=40, patience=3, l2=0)
    losses = []

    trained = train_head(train, validation, settings, lambda _, metrics: losses.append(metrics["validation_loss"]))

    assert trained.best_epoch == int(np.argmin(losses))
    assert len(losses) == trained.best_epoch + 1 + settings.patience
    assert losses == [epoch["validation_loss"] for epoch in trained.history]
    right = np.searchsorted(trained.head.labels, validation.labels)
    probabilities = trained.head.probabilities(validation.features)[np.arange(len(validation)), right]
    assert -np.log(probabilities).mean() == pytest.approx(min(losses), abs=1e-4)


def test_the_epoch_is_kept_whose_validation_loss_is_least_after_its_temperature() -> None:
    labels = list(range(20)) * 6
    train, validation = (rows(labels, features=64, seed=seed, spread=2.0) for seed in (0, 1))

    history = (trained := train_head(train, validation, SETTINGS)).history

    before, after = ([epoch[loss] for epoch in history] for loss in ("validation_loss", "calibrated_loss"))
    assert after[trained.best_epoch] == pytest.approx(min(after), abs=0.02)  # but for what is expected
    assert after[int(np.argmin(before))] > min(after) + 0.05


def test_a_chosen_penalty_is_as_good_as_the_best_of_fixed_ones() -> None:
    """Of many classes and few rows: 0.05 is far too much for them."""
    labels = list(range(40)) * 6
    train, validation, fresh = (rows(labels, features=64, seed=seed, spread=1.2) for seed in range(3))

    chosen = train_head(train, validation, SETTINGS)

    right = {l2: train_head(train, validation, TrainingSettings(l2=l2)).head for l2 in (0.5, 0.05, 0.005)}
    accuracies = {l2: (head.predict(fresh.features) == fresh.labels).mean() for l2, head in right.items()}
    assert (chosen.head.predict(fresh.features) == fresh.labels).mean() >= max(accuracies.values()) - 0.01
    penalties = np.array([epoch["l2"] for epoch in chosen.history])
    assert penalties[1:] / penalties[:-1] == pytest.approx(10**-0.5)


def test_a_handful_of_validation_rows_decides_little() -> None:
    train = rows([3, 12] * 30, spread=2.0)
    usual = [
        epoch["l2"]
        for trained in (train_head(train, rows([3, 12], seed=seed, spread=2.0), SETTINGS) for seed in range(5))
        for epoch in [trained.history[trained.best_epoch]]
    ]

    assert max(usual) / min(usual) < 100


@pytest.mark.parametrize("classes", [4, 60])
def test_more_labels_make_a_head_no_worse(classes) -> None:
    """The fixed penalty of before lost 0.03 by the answers to its requests, where there were many classes."""
    few, many = list(range(classes)) * 5, list(range(classes)) * 10
    fresh = rows(many * 2, features=64, seed=9, spread=1.5)
    before, after = (
        train_head(
            rows(labels, features=64, seed=0, spread=1.5), rows(labels, features=64, seed=1, spread=1.5), SETTINGS
        ).head
        for labels in (few, many)
    )

    wins = [(head.predict(fresh.features) == fresh.labels).mean() for head in (before, after)]
    assert wins[1] > wins[0]


def test_a_penalty_that_is_set_is_every_epoch_s() -> None:
    trained = train_head(rows(LABELS), rows(LABELS, seed=1), TrainingSettings(l2=0.05))

    assert all(epoch.keys() == {"train_loss", "validation_loss", "validation_accuracy"} for epoch in trained.history)


def test_training_ends_where_an_epoch_moves_nothing() -> None:
    patient = TrainingSettings(epochs=100, patience=100, l2=1.0)
    trained = train_head(rows(LABELS), rows(LABELS, seed=1), patient)

    assert len(trained.history) < 20
    assert trained.history[-1]["validation_loss"] == trained.history[-2]["validation_loss"]


def test_training_ends_with_the_last_epoch_where_it_never_gets_worse() -> None:
    trained = train_head(rows(LABELS), rows(LABELS, seed=1), TrainingSettings(epochs=2, min_improvement=0))

    assert (len(trained.history), trained.best_epoch) == (2, 1)


def test_a_class_missing_in_validation_is_learned_all_the_same() -> None:
    trained = train_head(rows(LABELS), rows([3, 12] * 10, seed=1), SETTINGS)

    fresh = rows([40] * 20, seed=2)
    assert (trained.head.predict(fresh.features) == 40).mean() > 0.95


def test_a_class_that_validation_has_and_training_lacks_has_no_say() -> None:
    with_it = train_head(rows([3, 12] * 20), rows([3, 12] * 10 + [40], seed=1), SETTINGS)
    without = train_head(rows([3, 12] * 20), rows([3, 12] * 10, seed=1), SETTINGS)

    assert with_it.head.labels == (3, 12)
    assert all(np.isfinite(epoch["validation_loss"]) for epoch in with_it.history)
    assert weights(with_it) == weights(without)


def test_validation_without_any_class_of_training_is_refused() -> None:
    with pytest.raises(DlassetsError, match=r"validation split has no image of a class .* Put more photos"):
        train_head(rows([3, 12] * 20), rows([40] * 5, seed=1), SETTINGS)


def test_one_class_only_is_refused_by_its_name(local_engine, lake) -> None:
    with pytest.raises(DlassetsError, match=r"one class only \(class 3, label 3\).* put photos of another class"):
        read_splits(put_all(local_engine, lake, [3] * 9, [3], [12]))


@pytest.mark.parametrize("missing", [TRAIN, VALIDATION, TEST])
def test_an_empty_split_is_refused_with_the_count_of_each(local_engine, lake, missing) -> None:
    present = [split for split in (TRAIN, VALIDATION, TEST) if split != missing]
    snapshot = put(local_engine, lake, *((split, rows([3, 12], seed=place)) for place, split in enumerate(present)))

    with pytest.raises(DlassetsError, match=f"too few labelled images .*{missing} 0.*Put more photos"):
        read_splits(snapshot)


def test_an_empty_training_set_is_refused_and_a_job_over_it(lake) -> None:
    for use in (read_splits, fit):
        with pytest.raises(DlassetsError, match="train 0, validation 0, test 0"):
            use(pin(lake, "training_set"))


def test_fewer_rows_than_a_batch_are_enough_to_learn(local_engine, lake) -> None:
    splits = read_splits(put_all(local_engine, lake, [3, 12], [3], [12]))

    assert train_head(splits[TRAIN], splits[VALIDATION], SETTINGS).head.labels == (3, 12)


@pytest.mark.parametrize("split", [TRAIN, VALIDATION, TEST])
@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_features_that_are_no_numbers_are_refused_by_the_image_s_path(local_engine, lake, split, number) -> None:
    splits = {name: rows([3, 12] * 3, seed=place) for place, name in enumerate((TRAIN, VALIDATION, TEST))}
    splits[split].features[4, 2] = number

    with pytest.raises(DlassetsError, match=f"1 images of the {split} split .*{splits[split].paths[4]}.* Delete"):
        read_splits(put(local_engine, lake, *splits.items()))


def test_a_loss_that_is_not_a_number_is_refused() -> None:
    train = rows([3, 12] * 5)
    train.features[0, 0] = np.nan

    with pytest.raises(DlassetsError, match="The loss is not a number after epoch 0"):
        train_head(train, rows([3, 12], seed=1), SETTINGS)


def fit(snapshot, processes=1, **settings):
    """Train a head as the job of a training set has it, and return it with the events that were told."""
    heard: list[Event] = []
    job = Job(snapshot, BackboneRef("none"), TrainingSettings(**settings))
    return launch(job, Place(processes), heard.append), heard


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "digits"),
    [
        ({}, LAST_DIGITS_OF_A_PATH),
        ({"l2": 0.05, "balance": "weights", "label_smoothing": 0.1}, LAST_DIGITS),
    ],
)
def test_two_processes_learn_from_their_shards_what_one_learns_from_all_rows(
    local_engine, lake, settings, digits
) -> None:
    # By class, so that neither process has them all.
    train = rows([3] * 50 + [12] * 20 + [40] * 40, spread=2.0)
    parts = [(TRAIN, part(train, slice(0, 60))), (TRAIN, part(train, slice(60, None)))]
    others = [(VALIDATION, rows(LABELS, seed=1, spread=2.0)), (TEST, rows([3], seed=2))]
    snapshot = put(local_engine, lake, *parts, *others)

    alone, alone_told = fit(snapshot, **settings)
    together, together_told = fit(snapshot, 2, **settings)

    assert (together.head.labels, together.head.names) == (alone.head.labels, alone.head.names)
    assert together.best_epoch == alone.best_epoch
    for name in ARRAYS:
        one, other = getattr(alone.head, name), getattr(together.head, name)
        assert np.abs(one - other).max() <= digits * np.abs(one).max(), name
    for told, trained in ((together_told, together), (alone_told, alone)):
        assert [event.number for event in told] == list(range(1, len(trained.history) + 1))
    # After the best epoch ever less holds what the last digits make of the rest.
    for one, other in zip(alone_told[: alone.best_epoch + 1], together_told, strict=False):
        assert other.metrics == pytest.approx(one.metrics, rel=10 * digits)


def test_each_epoch_is_told_as_it_comes(local_engine, lake) -> None:
    trained, told = fit(put_all(local_engine, lake), epochs=3, min_improvement=0)

    assert [(event.kind, event.number, event.of) for event in told] == [("epoch", number, 3) for number in (1, 2, 3)]
    assert [event.metrics for event in told] == trained.history


@pytest.mark.slow
def test_more_processes_than_row_groups_are_refused(local_engine, lake) -> None:
    with pytest.raises(DlassetsError, match=r"1 row groups for 2 shards.*Use fewer processes"):
        fit(put_all(local_engine, lake), 2)


@pytest.mark.parametrize(("balance", "expected"), [("none", [0.6, 0.3, 0.1]), ("weights", [1 / 3] * 3)])
def test_classes_weigh_as_their_rows_or_all_alike(balance, expected) -> None:
    """At the least loss, what each class is given is its weight: the bias is not penalised."""
    labels = [3] * 60 + [12] * 30 + [40] * 10
    train, validation = (rows(labels, seed=seed, spread=2.0) for seed in (0, 1))
    settings = TrainingSettings(balance=balance, patience=50, min_improvement=0)
    head = train_head(train, validation, settings).head

    weight = {"none": np.ones(100), "weights": 1 / np.repeat([60, 30, 10], [60, 30, 10])}[balance]
    given = np.average(head.probabilities(train.features), axis=0, weights=weight)
    assert given == pytest.approx(expected, abs=0.02)


def test_drawing_rare_classes_more_often_is_weighing_them_where_all_rows_are_drawn() -> None:
    train, validation = rows([3] * 50 + [12] * 10), rows([3, 12] * 10, seed=1)
    sampled, weighed = (TrainingSettings(balance=balance) for balance in ("sampling", "weights"))

    assert weights(train_head(train, validation, sampled)) == weights(train_head(train, validation, weighed))


def test_smoothed_labels_keep_the_head_from_being_sure() -> None:
    train = rows([3, 12] * 30)
    settings = TrainingSettings(label_smoothing=0.2, l2=1e-6, patience=50, min_improvement=0)
    head = train_head(train, rows([3, 12] * 10, seed=1), settings).head

    assert head.probabilities(train.features).max(axis=1).mean() == pytest.approx(0.9, abs=0.03)
