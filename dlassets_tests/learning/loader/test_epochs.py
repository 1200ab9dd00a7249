"""An epoch's order: every row once, the same batches for any number of processes, mixed, and repeatable."""

import itertools

import numpy as np
import pytest

from dlassets.errors import DlassetsError
from dlassets.learning.loader import epochs
from dlassets.learning.loader.epochs import Epoch, Sampling, Steps, balanced, logical_shards, row_random

SIZES = [128, 1, 77, 128, 128, 3, 128, 60]


def windows(shards, sizes=SIZES, seed=0, epoch=0, weight=2**20, *, shuffle=True, drawn=None):
    order = Epoch(epoch, sizes, [weight] * len(sizes), Sampling(seed=seed, shuffle=shuffle), drawn)
    return [order.windows(shard, shards) for shard in range(shards)]


def numbers(shards, **options):
    return np.concatenate([window.numbers for shard in windows(shards, **options) for window in shard])


@pytest.mark.parametrize("shards", [1, 4, 12])
@pytest.mark.parametrize("sizes", [SIZES, [1], [5, 5], [1000], [1] * 30])
def test_every_row_and_every_place_is_given_once(shards, sizes):
    found = list(itertools.chain(*windows(shards, sizes=sizes)))

    for what in ("numbers", "places"):
        given = np.concatenate([getattr(window, what) for window in found])
        assert sorted(given.tolist()) == list(range(sum(sizes)))


def test_a_row_is_found_among_those_of_its_window_s_row_groups():
    rows = [list(range(sum(SIZES[:group]), sum(SIZES[: group + 1]))) for group in range(len(SIZES))]

    for window in itertools.chain(*windows(4)):
        read = np.concatenate([rows[group] for group in window.groups])
        assert read[window.local].tolist() == window.numbers.tolist()


def test_a_seed_repeats_and_epochs_and_seeds_differ():
    each = list(itertools.product((-1, 0, 1), (0, 1)))
    orders, again = ([tuple(numbers(4, seed=seed, epoch=epoch)) for seed, epoch in each] for _ in range(2))

    assert len(set(orders)) == len(orders)
    assert again == orders
    assert len({tuple(window.groups for window in windows(1, epoch=epoch)[0]) for epoch in range(3)}) == 3


def test_a_process_reads_row_groups_of_its_own_but_for_one_that_is_shared_out():
    first, second, third, fourth = ({group for window in shard for group in window.groups} for shard in windows(4))

    assert len((first | second) & (third | fourth)) <= 1


def test_unshuffled_rows_come_in_the_order_of_the_files():
    assert numbers(3, shuffle=False).tolist() == list(range(sum(SIZES)))


def test_a_window_holds_no_more_than_its_bytes_but_one_row_group():
    (found,) = windows(1, weight=epochs.WINDOW_BYTES // 3)
    (large,) = windows(1, weight=epochs.WINDOW_BYTES * 2)

    assert [len(window.groups) for window in found] == [3, 3, 2]
    assert [len(window.groups) for window in large] == [1] * len(SIZES)


@pytest.mark.parametrize("batch_size", [4, 32, 100])
@pytest.mark.parametrize("rows", [4, 5, 99, 100, 101, 103, 200, 653])
def test_all_processes_take_as_many_steps_and_rows(rows, batch_size):
    shards = logical_shards(batch_size, 1)
    steps = Steps(rows, batch_size, shards)
    given = np.array([np.diff(steps.offsets(shard)) for shard in range(shards)])

    assert given.sum() == rows
    assert given.shape == (shards, len(steps))
    assert given.min() >= 1
    for world_size in (1, 2, 4):
        by_process = given.reshape(world_size, -1, len(steps)).sum(axis=1)
        assert (by_process.max(axis=0) - by_process.min(axis=0)).max() <= 1
        assert (by_process[:, :-2] == batch_size // world_size).all()
    assert given[:, -1].sum() < batch_size + shards


def test_what_is_left_over_is_a_batch_or_goes_with_the_last():
    sizes = {
        rows: [int(n) for n in sum(np.diff(Steps(rows, 32, 4).offsets(shard)) for shard in range(4))]
        for rows in (64, 67, 68)
    }

    assert sizes == {64: [32, 32], 67: [32, 35], 68: [32, 32, 4]}


@pytest.mark.parametrize(
    ("batch_size", "world_size", "expected"),
    [
        (32, 1, 4),
        (32, 2, 4),
        (32, 4, 4),
        (32, 8, 8),
        (2, 1, 2),
        (2, 2, 2),
        (3, 1, 2),
        (1, 1, 1),
        (6, 3, 3),
        (12, 3, 12),
    ],
)
def test_shards_are_the_same_for_one_two_and_four_processes(batch_size, world_size, expected):
    assert logical_shards(batch_size, world_size) == expected


def test_a_batch_that_cannot_be_parted_is_refused():
    with pytest.raises(DlassetsError, match=r"30 rows cannot be parted evenly among 4.*multiple of 4"):
        logical_shards(30, 4)


def test_a_table_sorted_by_class_is_mixed():
    """20 classes of 128 photos of 30 kB, a row group each: a batch of 32 would be of one class without shuffling."""
    steps, classes = Steps(20 * 128, 32, 4), []
    found = windows(4, sizes=[128] * 20, weight=128 * 30_000)
    for number, shard in enumerate(found):
        order = np.concatenate([window.numbers for window in shard])
        classes.append([set((order[a:b] // 128).tolist()) for a, b in itertools.pairwise(steps.offsets(number))])

    batches = [len(set.union(*parts)) for parts in zip(*classes, strict=True)]

    assert min(batches) >= 4
    assert np.mean(batches) > 10


def test_balanced_rows_have_each_label_as_often_and_each_row_of_it_too():
    labels = np.array([7] * 90 + [3] * 9 + [5] * 2)

    drawn = [balanced(labels, seed=0, epoch=epoch) for epoch in (0, 1)]

    for rows in drawn:
        assert (np.diff(rows) >= 0).all()
        values, counts = np.unique(labels[rows], return_counts=True)
        assert (values.tolist(), sorted(counts.tolist())) == ([3, 5, 7], [33, 34, 34])
        for label in values:
            often = np.bincount(rows, minlength=len(labels))[labels == label]
            assert often.max() - often.min() <= 1
    assert drawn[0].tolist() != drawn[1].tolist()
    assert drawn[0].tolist() == balanced(labels, seed=0, epoch=0).tolist()


def test_balanced_rows_are_given_as_often_as_they_are_drawn():
    drawn = balanced(np.repeat([0, 1], [600, sum(SIZES) - 600]), seed=0, epoch=0)

    assert sorted(numbers(4, drawn=drawn).tolist()) == drawn.tolist()


def test_a_row_draws_the_same_wherever_and_another_in_each_place_and_epoch():
    drawn = {key: row_random(*key).random() for key in itertools.product((0, 1), (0, 1), (0, 1))}

    assert len(set(drawn.values())) == len(drawn)
    assert row_random(0, 1, 1).random() == drawn[0, 1, 1]
