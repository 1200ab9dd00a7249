"""Row groups by either reader, against delta-rs's own reading, value by value."""

import itertools

import numpy as np
import pytest

from dlassets.errors import DlassetsError
from dlassets.learning.loader import row_groups as reading
from dlassets.learning.loader import torch_loader
from dlassets.learning.loader.row_groups import read_columns, read_row_groups, row_groups
from dlassets_tests.learning.loader.tables import write, write_log

READERS = ["petastorm", "arrow"]
COLUMNS = ["path", "label", "label_name", "weight", "features"]


def rows(count, split, first=0):
    numbers = range(first, first + count)
    return [
        {
            "path": f"labeled/{n:03}.jpg",
            "label": n * 7,
            "label_name": None if n % 5 == 0 else f"naïve {n}",
            "weight": n / 3,
            "features": [float(n), n + 0.25, -n],
            "split": split,
        }
        for n in numbers
    ]


@pytest.fixture(autouse=True, params=READERS)
def reader(request, monkeypatch):
    """What reads: Petastorm where it is installed, and pyarrow where it is not."""
    read_by(request.param, monkeypatch)
    return request.param


def read_by(name, monkeypatch):
    monkeypatch.setattr(reading, "installed", lambda extra: (extra, name) == ("petastorm", "petastorm"))


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Version 0: 40 train and 20 test rows in row groups of 8; version 1: 5 train rows more; version 2: no row."""
    from deltalake import DeltaTable

    uri = str(tmp_path_factory.mktemp("lake") / "naïve set #1")
    write(uri, rows(40, "train") + rows(20, "test", first=40))
    write(uri, rows(5, "train", first=60))
    DeltaTable(uri).delete()
    return uri


def read_by_delta(uri, version, where="true"):
    from deltalake import DeltaTable, QueryBuilder

    query = QueryBuilder().register("t", DeltaTable(uri, version=version))
    batches = query.execute(f"select * from t where {where} order by path").read_all()
    return {name: batches[name].to_pylist() for name in COLUMNS}


def written(folder, columns, **options):
    """Append columns to a table of this folder, and return its URI."""
    import pyarrow as pa
    from deltalake import write_deltalake

    write_deltalake(str(folder), pa.table(columns), mode="append", **options)
    return str(folder)


def in_path_order(read):
    order = np.argsort(read["path"].astype(str))
    return {name: values[order].tolist() for name, values in read.items()}


@pytest.mark.parametrize("version", [0, 1])
def test_it_reads_what_delta_reads_value_by_value(table, version):
    read = read_columns(table, version, COLUMNS)

    assert in_path_order(read) == read_by_delta(table, version)
    assert [(read[name].dtype, read[name].ndim) for name in COLUMNS] == [
        (np.dtype(object), 1),
        (np.dtype(np.int64), 1),
        (np.dtype(object), 1),
        (np.dtype(np.float64), 1),
        (np.dtype(np.float32), 2),
    ]


def test_a_partition_filter_keeps_that_partition_alone(table):
    train = read_columns(table, 1, COLUMNS, [("split", "=", "train")])

    assert len(train["path"]) == 45
    assert in_path_order(train) == read_by_delta(table, 1, "split = 'train'")


def test_shards_are_disjoint_and_cover_every_row_in_the_same_order_each_time(table):
    once, again = (
        [read_columns(table, 1, ["path", "label"], shard=(rank, 3))["path"].tolist() for rank in range(3)]
        for _ in range(2)
    )

    assert all(once)
    assert once == again
    assert sorted(itertools.chain(*once)) == read_by_delta(table, 1)["path"]


def test_both_readers_give_the_same_arrays_of_every_shard_in_the_same_order(table, monkeypatch):
    read = {}
    for name in READERS:
        read_by(name, monkeypatch)
        shards = [read_columns(table, 1, COLUMNS, shard=(rank, 3)) for rank in range(3)]
        read[name] = [
            (column, values.dtype, values.shape, values.tolist())
            for shard in shards
            for column, values in shard.items()
        ]

    assert read["arrow"] == read["petastorm"]


def test_row_groups_come_in_the_order_asked_for_however_many_threads_read(tmp_path):
    from deltalake import WriterProperties

    properties = WriterProperties(max_row_group_size=2)
    source = row_groups(written(tmp_path, {"n": list(range(200))}, writer_properties=properties), 0)
    for seed in range(20):
        places = np.random.default_rng(seed).integers(len(source.groups), size=50).tolist()
        with read_row_groups(source, places, ["n"], threads=4) as read:
            assert [columns["n"].tolist() for columns in read] == [[2 * place, 2 * place + 1] for place in places]


def test_a_column_that_is_younger_than_a_file_is_null_there(tmp_path):
    written(tmp_path, {"n": [1]})

    read = read_columns(written(tmp_path, {"n": [2], "name": ["two"]}, schema_mode="merge"), 1, ["n", "name"])

    assert dict(zip(read["n"].tolist(), read["name"].tolist(), strict=True)) == {1: None, 2: "two"}


@pytest.mark.parametrize("lists", [[[1.0], [1.0, 2.0]], [[1.0], None]])
def test_lists_that_make_no_rectangle_are_refused(tmp_path, lists):
    uri = written(tmp_path, {"features": lists})

    with pytest.raises(DlassetsError, match=r"features.* Choose rows"):
        read_columns(uri, 0, ["features"])


def test_files_that_are_gone_are_one_error(tmp_path):
    source = row_groups(written(tmp_path, {"n": [1]}), 0)
    for file in tmp_path.glob("*.parquet"):
        file.unlink()
    with pytest.raises(DlassetsError, match=r"files of .* cannot be read"):
        read_columns(str(tmp_path), 0, ["n"])
    with pytest.raises(DlassetsError, match=r"files of .* cannot be read"), read_row_groups(source, [0], ["n"]) as read:
        next(read)


def test_the_files_are_sorted_urls_of_that_version(table):
    before, after = ([group.file for group in row_groups(table, version).groups] for version in (0, 1))

    assert before == sorted(before)
    assert all(file.startswith("file:///") for file in before)
    assert set(before) < set(after)


@pytest.mark.parametrize(("version", "where"), [(2, None), (1, [("split", "=", "validation")])])
def test_an_empty_selection_gives_arrays_of_no_rows(table, version, where):
    read = read_columns(table, version, COLUMNS, where)

    assert {name: (values.shape, values.dtype) for name, values in read.items()} == {
        "path": ((0,), np.dtype(object)),
        "label": ((0,), np.dtype(np.int64)),
        "label_name": ((0,), np.dtype(object)),
        "weight": ((0,), np.dtype(np.float64)),
        "features": ((0, 0), np.dtype(np.float32)),
    }


@pytest.mark.parametrize(
    ("columns", "where", "shard", "message"),
    [
        (["label"], [("label", "=", 7)], (0, 1), "not partitioned by label but by split"),
        (["label", "split"], None, (0, 1), "no column split.*partition column"),
        (["labels"], None, (0, 1), "no column labels"),
        (["label"], None, (0, 100), "9 row groups for 100 shards"),
        (["label"], None, (2, 2), "Shard 2 of 2"),
    ],
)
def test_what_cannot_be_read_is_refused_with_a_remedy(table, columns, where, shard, message):
    with pytest.raises(DlassetsError, match=message):
        read_columns(table, 1, columns, where, shard=shard)


def test_pyarrow_and_numpy_stay_as_they_are(table):
    import pyarrow as pa
    import pyarrow.parquet as pq

    read_columns(table, 0, ["label"])

    assert not hasattr(np, "unicode_")
    assert not hasattr(pq, "ParquetDatasetPiece")
    assert not hasattr(pa, "filesystem")
    assert pq.ParquetDataset.__module__ == "pyarrow.parquet.core"


@pytest.mark.parametrize(
    ("versions", "protocol", "configuration", "remedy"),
    [
        (
            (3, 7),
            {"readerFeatures": ["deletionVectors"], "writerFeatures": ["deletionVectors"]},
            {"delta.enableDeletionVectors": "true"},
            "DROP FEATURE deletionVectors",
        ),
        (
            (2, 5),
            {},
            {"delta.columnMapping.mode": "name", "delta.columnMapping.maxColumnId": "1"},
            "DROP FEATURE columnMapping",
        ),
    ],
)
def test_tables_whose_files_do_not_say_their_rows_are_refused(tmp_path, versions, protocol, configuration, remedy):
    protocol = {"minReaderVersion": versions[0], "minWriterVersion": versions[1], **protocol}
    uri = write_log(tmp_path, protocol, configuration)

    with pytest.raises(DlassetsError, match=remedy):
        read_columns(uri, 0, ["label"])
    with pytest.raises(DlassetsError, match=remedy):
        torch_loader(uri, 0, None, ["label"])
