"""The loader over a real table of photos: what a batch holds, its order, its processes, its resuming and its errors."""

import itertools
import logging
import threading
from collections import Counter

import numpy as np
import pytest

from dlassets.errors import DlassetsError
from dlassets.images.decode import decode_rgb, resize_center_crop
from dlassets.images.digest import image_id_of
from dlassets.learning.loader import Cache, Sampling, Transform, decode_to_tensor, decoding, torch_loader
from dlassets_tests.images.corpus import encoded, flat
from dlassets_tests.learning.loader.tables import write

ROWS = 71
COLUMNS = ["path", "label", "features", "content"]


@pytest.fixture(scope="module")
def rows(photos):
    """Rows as a training set has them, sorted by class: 40 of class 1, then 31 of others."""
    files = sorted(photos.glob("*/*"))[:ROWS]
    return [
        {
            "path": f"{file.parent.name}/{file.name}",
            "label": max(1, number // 20),
            "features": [float(number), -0.5],
            "content": file.read_bytes(),
            "split": "train",
        }
        for number, file in enumerate(files)
    ]


@pytest.fixture(scope="module")
def table(tmp_path_factory, rows):
    """Version 1: the train rows, in two files of row groups of 8; version 2: what cannot be read as well."""
    uri = str(tmp_path_factory.mktemp("lake") / "photo set #1")
    for some in (rows[:50], rows[50:]):
        write(uri, some)
    good = rows[0]
    broken = [
        good | {"split": "broken", "path": "a/broken.jpg", "content": good["content"][:90]},
        good | {"split": "null", "path": "a/null.jpg", "content": None},
        good | {"split": "uneven", "features": [1.0]},
        good | {"split": "uneven", "features": [1.0, 2.0]},
    ]
    write(uri, broken)
    return uri


def load(table, columns=("path",), transform=None, *, version=1, split="train", workers=None, **sampling):
    drawn = Sampling(**{"batch_size": 8, **sampling})
    return torch_loader(table, version, split, list(columns), transform, drawn, workers)


def paths(loader):
    return [batch["path"] for batch in loader]


def by_path(batches, column):
    import torch

    return {
        path: value.tolist() if isinstance(value, torch.Tensor) else value
        for batch in batches
        for path, value in zip(batch["path"], batch[column], strict=True)
    }


def middle(content):
    return np.asarray(resize_center_crop(decode_rgb(content, 256))).transpose(2, 0, 1)


def test_every_row_comes_once_with_its_own_values_and_pixels(table, rows):
    import torch

    batches = list(load(table, COLUMNS))

    assert [len(batch["path"]) for batch in batches] == [8] * 8 + [7]
    assert by_path(batches, "label") == {row["path"]: row["label"] for row in rows}
    assert by_path(batches, "features") == {row["path"]: row["features"] for row in rows}
    first = batches[0]
    assert (first["label"].dtype, first["features"].shape) == (torch.int64, (8, 2))
    assert (first["content"].dtype, first["content"].shape) == (torch.uint8, (8, 3, 224, 224))
    contents = {row["path"]: row["content"] for row in rows}
    for path, pixels in itertools.chain(*(zip(batch["path"], batch["content"], strict=True) for batch in batches)):
        differences = np.abs(pixels.numpy().astype(int) - middle(contents[path]))
        assert differences.max() <= 2, path


def test_floats_are_the_pixels_between_0_and_1(table):
    import torch

    pixels, floats = (
        next(iter(load(table, ["content"], decode_to_tensor(96, as_float=as_float))))["content"]
        for as_float in (False, True)
    )

    assert (pixels.shape, floats.dtype) == ((8, 3, 96, 96), torch.float32)
    assert torch.allclose(floats, pixels / 255, atol=1e-6)


def test_without_a_split_all_partitions_are_read(table):
    assert sum(map(len, paths(load(table, version=2, split=None)))) == ROWS + 4


def test_an_epoch_has_an_order_of_its_own_that_repeats_with_the_seed(table):
    loader = load(table, seed=3)
    first, second = paths(loader), paths(loader)
    loader.set_epoch(0)

    assert paths(loader) == first
    assert paths(load(table, seed=3)) == first
    assert first != second
    assert sorted(itertools.chain(*first)) == sorted(itertools.chain(*second))
    assert paths(load(table, seed=4)) != first


def test_unshuffled_rows_come_in_the_order_of_the_files(table, rows):
    order = list(itertools.chain(*paths(load(table, shuffle=False))))
    halves = [list(itertools.chain(*paths(load(table, shuffle=False, shard=(rank, 2))))) for rank in range(2)]

    expected = [row["path"] for row in rows]
    assert order in (expected, expected[50:] + expected[:50])
    assert halves[0] + halves[1] == order


@pytest.mark.parametrize("world_size", [2, 4])
def test_the_batches_of_all_processes_are_those_of_one(table, world_size):
    whole = paths(load(table))
    parts = [paths(load(table, shard=(rank, world_size))) for rank in range(world_size)]

    assert {len(load(table, shard=(rank, world_size))) for rank in range(world_size)} == {len(whole)}
    assert {len(part) for part in parts} == {len(whole)}
    assert [list(itertools.chain(*step)) for step in zip(*parts, strict=True)] == whole
    assert {len(batch) for part in parts for batch in part[:-1]} == {8 // world_size}


def test_three_processes_share_the_rows_with_none_left_out_or_doubled(table, rows):
    parts = [paths(load(table, batch_size=12, shard=(rank, 3))) for rank in range(3)]

    assert {len(part) for part in parts} == {5}
    assert sorted(itertools.chain(*itertools.chain(*parts))) == sorted(row["path"] for row in rows)


class Counting:
    """A transform that counts what it decodes, and draws one number for a photo."""

    def __init__(self, cache=None):
        self.decoded: Counter[bytes] = Counter()
        self.transform = Transform(self.decode, self.augment, cache=cache)

    def decode(self, content):
        self.decoded[content] += 1
        return decode_to_tensor(8).decode(content)

    @staticmethod
    def augment(pixels, random):
        return pixels + int(random.integers(256))


def test_a_loader_goes_on_from_a_step_without_decoding_what_was_given(table):
    import torch

    batches = [batch["content"] for batch in load(table, ["content"], Counting().transform)]
    loader = load(table, ["content"])
    given = iter(loader)
    for _ in range(6):
        next(given)
    counting = Counting()
    resumed = load(table, ["content"], counting.transform, workers=1)
    resumed.load_state_dict(loader.state_dict())
    resumed.set_epoch(0)

    rest = [batch["content"] for batch in resumed]

    assert loader.state_dict() == {"epoch": 0, "step": 6}
    assert len(rest) == 3
    assert all(torch.equal(one, other) for one, other in zip(rest, batches[6:], strict=True))
    assert sum(counting.decoded.values()) == 2 * 8 + 7 + 1  # the first is decoded once more, to learn its shape
    assert resumed.state_dict() == {"epoch": 1, "step": 0}


def test_a_loader_that_was_left_begins_its_epoch_anew(table):
    loader = load(table)
    whole = paths(load(table))
    next(iter(loader))

    assert paths(loader) == whole


def test_a_state_of_other_data_is_refused(table):
    with pytest.raises(DlassetsError, match="no step 10 of epoch 0: an epoch of 71 rows has 9 steps"):
        load(table).load_state_dict({"epoch": 0, "step": 10})


def test_what_a_transform_draws_depends_on_seed_epoch_and_row_alone(table):
    def drawn(**options):
        loader = load(table, ["path", "content"], Counting().transform, **options)
        return [by_path(loader, "content") for _ in range(2)]

    alone, together = drawn(workers=1), drawn(workers=4)
    halves = [drawn(shard=(rank, 2)) for rank in range(2)]

    assert alone == together
    assert [halves[0][epoch] | halves[1][epoch] for epoch in range(2)] == alone
    assert all(alone[0][path] != alone[1][path] for path in list(alone[0])[:5])
    assert drawn(seed=1) != alone


def test_any_function_of_bytes_and_a_generator_is_a_transform(table):
    import torch

    loader = load(table, ["path", "content"], lambda content, random: torch.tensor([len(content), random.random()]))

    first, second = (by_path(loader, "content") for _ in range(2))

    assert all(first[path][0] == second[path][0] and first[path][1] != second[path][1] for path in first)


def test_a_photo_is_decoded_by_one_thread(table):
    import torch

    loader = load(table, ["content"], lambda *_: torch.tensor(torch.get_num_threads()), workers=2)

    assert {threads for batch in loader for threads in batch["content"].tolist()} == {1}


def test_balanced_labels_come_equally_often(table):
    loader = load(table, ["label"], balance_by="label")

    labels = Counter(itertools.chain(*(batch["label"].tolist() for batch in loader)))

    assert len(loader) == 9
    assert sorted(labels.values()) == [23, 24, 24]


@pytest.mark.parametrize("on_disk", [False, True])
def test_a_cache_decodes_each_photo_once(table, tmp_path, on_disk):
    counting = Counting(Cache(max_bytes=2**20, folder=str(tmp_path) if on_disk else None))
    loader = load(table, ["path", "content"], counting.transform)

    batches = [by_path(loader, "content") for _ in range(2)]
    uncached = load(table, ["path", "content"], Counting().transform)

    assert batches == [by_path(uncached, "content") for _ in range(2)]
    assert sum(counting.decoded.values()) <= ROWS + 2  # and one to learn what tensors there are
    assert list(tmp_path.iterdir()) == []


def test_a_cache_that_is_too_small_says_so_and_keeps_what_it_can(table, caplog):
    counting = Counting(Cache(max_bytes=20 * 3 * 8 * 8))
    loader = load(table, ["content"], counting.transform)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            list(loader)

    assert "room for 20 of 71" in caplog.text
    assert 2 * (ROWS - 20) + 20 <= sum(counting.decoded.values()) <= 2 * (ROWS - 20) + 22


def test_a_cache_with_no_room_on_disk_is_refused(table, tmp_path):
    cache = Cache(max_bytes=2**30, folder=str(tmp_path / "nowhere"))
    loader = load(table, ["content"], decode_to_tensor(cache=cache))
    with pytest.raises(DlassetsError, match=r"no room for the cache.*nowhere.*Name another folder"):
        next(iter(loader))


@pytest.mark.parametrize(
    ("split", "columns", "message"),
    [
        ("broken", ["content"], r"content of a/broken\.jpg \(row 0 of row group 0 of file://.*\) does not decode"),
        ("null", ["content"], r"content of a/null\.jpg .*there are no bytes"),
        ("uneven", ["features"], "features.*expected to be the same length.*of one length"),
        ("validation", ["label"], "split validation, has no rows"),
        ("train", ["labels"], "no column labels"),
        ("train", ["split"], "no column split"),
    ],
)
def test_what_cannot_be_loaded_is_one_error_that_names_it(table, split, columns, message):
    with pytest.raises(DlassetsError, match=message):
        list(load(table, columns, version=2, split=split))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shard": (2, 2)}, "Shard 2 of 2"),
        ({"batch_size": 9, "shard": (0, 2)}, "9 rows cannot be parted evenly among 2"),
        ({"batch_size": 80, "shard": (0, 80)}, "71 rows for 80 processes"),
        ({"balance_by": "kind"}, "no column kind"),
        ({"compare_with": "digest"}, "no column digest"),
        ({"balance_by": "label_name"}, "label_name of .* has no label for some rows"),
    ],
)
def test_what_cannot_be_asked_for_is_refused_at_once(table, options, message):
    with pytest.raises(DlassetsError, match=message):
        load(table, ["content"], **options)


def damaged_copy(tmp_path, rows, damaged):
    """Return a table of these rows in which the photos at some places are not those that their digests say."""
    uri = str(tmp_path / "damaged")
    digests = [image_id_of(row["content"] + b"!" * (place in damaged)) for place, row in enumerate(rows)]
    write(uri, [row | {"image_id": digest} for row, digest in zip(rows, digests, strict=True)])
    return uri


@pytest.mark.parametrize("shuffle", [True, False])
def test_a_damaged_photo_is_left_out_of_its_batch_and_the_batches_stay_as_many(table, tmp_path, rows, shuffle):
    damaged = {*range(8), 20, 40}  # the whole first batch, unshuffled
    uri, columns = damaged_copy(tmp_path, rows, damaged), ["path", "label", "content"]
    how = {"transform": decode_to_tensor(32), "version": 0, "shuffle": shuffle, "batch_size": 16}
    loaders = [load(uri, columns, **how, shard=(rank, 2), compare_with="image_id") for rank in range(2)]
    uncompared = by_path(load(uri, columns, **how), "content")

    epochs = [[list(loader) for loader in loaders] for _ in range(2)]

    whole = {row["path"]: row["label"] for place, row in enumerate(rows) if place not in damaged}
    for batches in epochs:
        assert [len(each) for each in batches] == [5, 5]
        everything = [batch for each in batches for batch in each]
        assert by_path(everything, "label") == whole
        assert by_path(everything, "content") == {path: uncompared[path] for path in whole}
    found = sorted(path for loader in loaders for path in loader.damaged)
    assert sorted({*found}) == sorted(rows[place]["path"] for place in damaged)


def test_a_photo_that_does_not_decode_is_left_out_by_name_where_bytes_are_compared(tmp_path, rows):
    undecodable = {0, 1, 20}
    contents = [row | {"content": b"no photo"} if place in undecodable else row for place, row in enumerate(rows)]
    uri = damaged_copy(tmp_path, contents, set())
    loader = load(uri, ["path", "content"], version=0, compare_with="image_id", transform=decode_to_tensor(32))

    for _ in range(2):
        found = [path for batch in loader for path in batch["path"]]

        assert sorted(found) == sorted(row["path"] for place, row in enumerate(rows) if place not in undecodable)
    assert loader.damaged == sorted(rows[place]["path"] for place in undecodable)


def test_a_photo_is_compared_once_and_not_in_every_epoch(tmp_path, rows, monkeypatch):
    compared = []

    def counted(content):
        compared.append(content)
        return image_id_of(content)

    monkeypatch.setattr(decoding, "image_id_of", counted)
    loader = load(damaged_copy(tmp_path, rows, {3}), ["content"], version=0, compare_with="image_id")

    assert [sum(len(batch["content"]) for batch in loader) for _ in range(3)] == [ROWS - 1] * 3

    assert len(compared) == ROWS


def test_one_column_alone_can_have_the_digest(table, tmp_path, rows):
    write(str(tmp_path), [rows[0] | {"thumbnail": b"small"}])
    with pytest.raises(DlassetsError, match=r"image_id is the digest of one column\. Ask for one of content, th"):
        load(str(tmp_path), ["content", "thumbnail"], version=0, compare_with="image_id")


def test_photos_of_two_shapes_in_a_batch_are_refused(table):
    import torch

    loader = load(table, ["content"], lambda content, _: torch.zeros(len(content)))
    with pytest.raises(DlassetsError, match=r"the transform gives \(\d+,\) here and gave .*resize to one shape"):
        list(loader)


def test_an_error_of_a_transform_s_own_says_which_row_it_met(table):
    def fails(content, random):
        raise ZeroDivisionError("by zero")

    with pytest.raises(ZeroDivisionError) as raised:
        list(load(table, ["content"], fails))
    assert "row group" in raised.value.__notes__[0]


def test_a_loop_that_is_left_leaves_no_thread_and_torch_as_it_was(table):
    import torch

    threads, computing = set(threading.enumerate()), torch.get_num_threads()
    for _ in load(table, ["content"]):
        break

    assert set(threading.enumerate()) == threads
    assert torch.get_num_threads() == computing
    later = []
    other = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
    other.start()
    other.join()
    assert later == [computing]


def test_other_formats_than_jpeg_are_decoded(tmp_path):
    content = encoded(flat((200, 30, 60), 300, 400), "PNG")
    write(str(tmp_path), [{"path": "a.png", "content": content, "split": "train"}])

    (batch,) = load(str(tmp_path), ["content"], version=0)

    assert batch["content"].flatten(2).unique(dim=2).flatten().tolist() == [200, 30, 60]


def test_tensors_are_pinned_where_there_is_a_gpu(table):
    import torch

    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    batch = next(iter(load(table, ["label", "content"])))

    assert all(tensor.is_pinned() for tensor in batch.values())
