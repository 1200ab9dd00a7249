"""What an engine does, said once: both must do it, and go on from what the other left."""

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from dlassets.engines.base import Commit, Engine, Rows, Snapshot, Transaction, Written
from dlassets.engines.local import LocalEngine
from dlassets.engines.schema import Column
from dlassets.errors import ConflictError, DlassetsError
from dlassets.intake.listing import list_files, stat_files
from dlassets.lakehouse.snapshots import pin, provenance_of, transaction_version
from dlassets.lakehouse.tables import IMAGE_ID, PATH, PREDICTIONS, RAW_IMAGES
from dlassets.settings import LandingZone
from dlassets.storage.lake import Lake
from dlassets_tests.errors import HARD_TO_TELL, raising
from dlassets_tests.tables import NOON, arrow, get, image_id, put

if TYPE_CHECKING:
    import pyarrow as pa

pytestmark = pytest.mark.contract

ZONE = LandingZone(uri="zone", labelled=False)


def prediction(name: str, confidence: float = 0.5) -> dict[str, Any]:
    image = {"path": f"zone/{name}.jpg", "image_id": image_id(name)}
    model = {"model_name": "m", "model_version": 1, "package": "p", "scored_at": NOON.replace(microsecond=678_901)}
    top_k = [{"label": 3, "name": "pants", "confidence": confidence}]
    predicted = {"predicted_label": 3, "predicted_name": None, "confidence": confidence, "margin": 0.25}
    return image | model | predicted | {"top_k": top_k}


def photo(name: str, content: bytes) -> dict[str, Any]:
    return {"path": f"zone/{name}.jpg", "length": len(content), "content": content, "image_id": image_id(name)}


def predictions(engine: Engine, *rows: dict[str, Any]) -> Rows:
    return engine.rows(arrow("predictions", *rows))


def spoil(file: Path, column: str) -> None:
    """Put zeros in place of a column of a Parquet file, so that it alone cannot be read."""
    import pyarrow.parquet as pq

    group = pq.read_metadata(file).row_group(0)
    (chunk,) = (group.column(i) for i in range(group.num_columns) if group.column(i).path_in_schema == column)
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    with file.open("r+b") as stream:
        stream.seek(start)
        stream.write(bytes(chunk.total_compressed_size))


def append(engine: Engine, lake: Lake, *rows: dict[str, Any], **commit: Any) -> Written:
    return put(lake, "predictions", *rows, engine=engine, commit=Commit(**commit))


def given(lake: Lake, *rows: dict[str, Any], **commit: Any) -> Written:
    """Append rows that are there before the test of an engine begins."""
    return put(lake, "predictions", *rows, commit=Commit(**commit))


def merge(engine: Engine, lake: Lake, *rows: dict[str, Any], **commit: Any) -> Written:
    uri = pin(lake, "predictions").uri
    return engine.merge(predictions(engine, *rows), PREDICTIONS, uri, Commit(**commit))


def confidences(engine: Engine, lake: Lake) -> dict[str, float]:
    rows = get(engine, lake, "predictions", "path, confidence")
    return {row["path"]: row["confidence"] for row in rows}


def _the_same(batch: "pa.RecordBatch") -> "pa.RecordBatch":
    return batch


def sizes(batch: "pa.RecordBatch") -> "pa.RecordBatch":
    """Kernel: the bytes of a photo, turned round, and their number."""
    import pyarrow as pa

    contents = batch["content"].to_pylist()
    return pa.RecordBatch.from_pydict(
        {
            "image_id": batch["image_id"],
            "size": pa.array([len(content) for content in contents], pa.int64()),
            "reversed": pa.array([content[::-1] for content in contents], pa.binary()),
        }
    )


SIZES = (IMAGE_ID, Column("size", "bigint", ""), Column("reversed", "binary", ""))


class TestWriting:
    def test_rows_come_back_as_they_went_in(self, engine: Engine, lake: Lake) -> None:
        rows = [prediction("a"), prediction("b") | {"predicted_name": "pants", "top_k": None}]

        assert append(engine, lake, *rows) == Written(version=1, inserted=2)
        assert get(engine, lake, "predictions") == rows

    def test_no_rows_make_no_version(self, engine: Engine, lake: Lake) -> None:
        assert append(engine, lake) == Written(version=0, changed=False)
        assert merge(engine, lake) == Written(version=0, changed=False)
        assert pin(lake, "predictions").version == 0

    def test_a_merge_updates_by_the_key_and_inserts_the_rest(self, engine: Engine, lake: Lake) -> None:
        merge(engine, lake, prediction("a"), prediction("b"))

        second = merge(engine, lake, prediction("b", 0.9), prediction("c", 0.9), prediction("d", 0.9))

        assert second == Written(version=2, inserted=2, updated=1)
        assert confidences(engine, lake) == {"zone/a.jpg": 0.5, "zone/b.jpg": 0.9, "zone/c.jpg": 0.9, "zone/d.jpg": 0.9}

    def test_columns_are_found_by_name_and_take_the_tables_types(self, engine: Engine, lake: Lake) -> None:
        given(lake, prediction("a"))
        again = engine.sql(
            "SELECT 2 AS model_version, package, image_id, path, model_name, predicted_label, predicted_name, "
            "confidence, margin, top_k, scored_at, 'more' AS more FROM predictions",
            {"predictions": pin(lake, "predictions")},
        )

        engine.append(again, PREDICTIONS, pin(lake, "predictions").uri, Commit())

        assert get(engine, lake, "predictions") == [prediction("a"), prediction("a") | {"model_version": 2}]

    def test_replace_puts_rows_in_place_of_all(self, engine: Engine, lake: Lake) -> None:
        given(lake, prediction("a"), prediction("b"))
        uri = pin(lake, "predictions").uri

        written = engine.replace(predictions(engine, prediction("c")), PREDICTIONS, uri, Commit())

        assert written == Written(version=2, inserted=1)
        assert confidences(engine, lake) == {"zone/c.jpg": 0.5}

    def test_replace_leaves_rows_that_it_does_not_name(self, engine: Engine, lake: Lake) -> None:
        odd = "it's \\ odd, ${x} and \n\u0024"
        given(lake, prediction("a"), prediction("b"), prediction(odd))
        rows = predictions(engine, prediction(odd, 0.9), prediction("new", 0.9))
        where = {"path": [f"zone/{name}.jpg" for name in (odd, "b", "new")]}

        written = engine.replace(rows, PREDICTIONS, pin(lake, "predictions").uri, Commit(), where=where)

        assert (written.version, written.inserted) == (2, 2)
        assert confidences(engine, lake) == {"zone/a.jpg": 0.5, f"zone/{odd}.jpg": 0.9, "zone/new.jpg": 0.9}

    def test_every_write_says_what_it_came_from(self, engine: Engine, lake: Lake) -> None:
        said = {"inputs": {"raw_images": 7}, "model": "größe 'x'"}
        uri = pin(lake, "predictions").uri

        append(engine, lake, prediction("a"), provenance=said | {"step": 1})
        assert provenance_of(pin(lake, "predictions")) == said | {"step": 1}
        merge(engine, lake, prediction("a"), provenance=said | {"step": 2})
        assert provenance_of(pin(lake, "predictions")) == said | {"step": 2}
        engine.replace(predictions(engine, prediction("b")), PREDICTIONS, uri, Commit(said | {"step": 3}))
        assert provenance_of(pin(lake, "predictions")) == said | {"step": 3}

    def test_a_merge_whose_transaction_was_overtaken_is_refused(self, engine: Engine, lake: Lake) -> None:
        merge(engine, lake, prediction("a"), transaction=Transaction("t", 1))

        with pytest.raises(ConflictError, match="Another run wrote batch 1"):
            merge(engine, lake, prediction("b"), transaction=Transaction("t", 1))

        assert get(engine, lake, "predictions") == [prediction("a")]

    def test_a_transaction_commits_once(self, engine: Engine, lake: Lake) -> None:
        append(engine, lake, prediction("a"), transaction=Transaction("ingest", 4))

        for overtaken in (3, 4):
            with pytest.raises(ConflictError, match="run it again"):
                append(engine, lake, prediction("b"), transaction=Transaction("ingest", overtaken))
        append(engine, lake, prediction("c"), transaction=Transaction("another", 0))
        append(engine, lake, prediction("d"), transaction=Transaction("ingest", 5))

        snapshot = pin(lake, "predictions")
        assert (snapshot.version, transaction_version(snapshot, "ingest")) == (3, 5)
        assert list(confidences(engine, lake)) == ["zone/a.jpg", "zone/c.jpg", "zone/d.jpg"]

    def test_image_bytes_lie_uncompressed_in_small_row_groups(self, engine: Engine, lake: Lake) -> None:
        import pyarrow.parquet as pq
        from deltalake import DeltaTable

        put(lake, "raw_images", *(photo(f"{number:03}", b"jpeg" * 100) for number in range(600)), engine=engine)

        delta = DeltaTable(pin(lake, "raw_images").uri)
        files = [pq.ParquetFile(uri.removeprefix("file://")).metadata for uri in delta.file_uris()]
        groups = [file.row_group(number) for file in files for number in range(file.num_row_groups)]
        assert sum(group.num_rows for group in groups) == 600
        assert max(group.num_rows for group in groups) <= RAW_IMAGES.row_group
        columns = [group.column(number) for group in groups for number in range(group.num_columns)]
        assert {column.compression for column in columns} == {"UNCOMPRESSED"}

    def test_embeddings_lie_without_dictionaries(self, local_engine: Engine, lake: Lake) -> None:
        import pyarrow.parquet as pq
        from deltalake import DeltaTable

        row = {"image_id": image_id("a"), "feature_version": "v1", "features": [0.5] * 100}
        put(lake, "image_features", row, engine=local_engine)

        (uri,) = DeltaTable(pin(lake, "image_features").uri).file_uris()
        group = pq.ParquetFile(uri.removeprefix("file://")).metadata.row_group(0)
        assert not any(group.column(number).has_dictionary_page for number in range(group.num_columns))

    def test_a_merge_writes_files_as_an_append_does(self, local_engine: Engine, lake: Lake) -> None:
        import pyarrow.parquet as pq
        from deltalake import DeltaTable

        append(local_engine, lake, prediction("a"))
        merge(local_engine, lake, prediction("a", 0.9))

        (uri,) = DeltaTable(pin(lake, "predictions").uri).file_uris()
        group = pq.ParquetFile(uri.removeprefix("file://")).metadata.row_group(0)
        assert {group.column(number).compression for number in range(group.num_columns)} == {"ZSTD"}


class TestReading:
    def test_sql_reads_the_pinned_version(self, engine: Engine, lake: Lake) -> None:
        given(lake, prediction("a"))
        earlier = pin(lake, "predictions")
        given(lake, prediction("b"))

        query = "SELECT COUNT(*) AS n, SUM(confidence) AS total FROM predictions"

        assert engine.sql(query, {"predictions": earlier}).arrow().to_pylist() == [{"n": 1, "total": 0.5}]

    def test_a_moment_has_the_day_that_it_has_in_utc(self, engine: Engine, lake: Lake) -> None:
        for name, hour in (("early", 0), ("late", 23)):
            given(lake, prediction(name) | {"scored_at": NOON.replace(hour=hour, minute=30)})

        found = engine.sql("SELECT DISTINCT CAST(scored_at AS DATE) AS day FROM p", {"p": pin(lake, "predictions")})

        assert found.arrow().to_pylist() == [{"day": NOON.date()}]

    def test_sql_joins_snapshots_and_rows_under_the_names_it_is_given(self, engine: Engine, lake: Lake) -> None:
        import pyarrow as pa

        given(lake, prediction("a"), prediction("b"), prediction("c"))
        wanted = engine.rows(pa.table({"image": [image_id("b"), image_id("c"), image_id("z")]}))

        found = engine.sql(
            "WITH q AS (SELECT path, confidence FROM p JOIN w ON p.image_id = w.image) "
            "SELECT path, confidence + 1 AS more, '{x} {}' AS text FROM q WHERE path <> '{' ORDER BY path DESC",
            {"p": pin(lake, "predictions"), "w": wanted},
        )

        rows = [{"path": f"zone/{name}.jpg", "more": 1.5, "text": "{x} {}"} for name in "cb"]
        assert found.arrow().to_pylist() == rows

    def test_join_gives_rows_the_large_columns_of_those_that_share_their_keys(self, engine: Engine, lake: Lake) -> None:
        import pyarrow as pa

        def embedded(name: str, version: str, *features: float) -> dict[str, Any]:
            return {"image_id": image_id(name), "feature_version": version, "features": list(features)}

        put(
            lake,
            "image_features",
            embedded("a", "v1", 1),
            embedded("a", "v2", 2),
            embedded("b", "v2", 3),
        )
        put(lake, "image_features", embedded("c", "v1", 4), embedded("d", "v2", 5))
        wanted = [(image_id(name), "v2", number) for number, name in enumerate("abcz")]
        columns = [list(column) for column in zip(*wanted, strict=True)]
        keys = engine.rows(pa.table(dict(zip(("image_id", "feature_version", "n"), columns, strict=True))))

        found = engine.join(keys, pin(lake, "image_features"), ["image_id", "feature_version"], ["features"])

        rows = sorted((row for batch in found.batches() for row in batch.to_pylist()), key=lambda row: row["n"])
        assert rows == [
            {"image_id": image_id(name), "feature_version": "v2", "n": number, "features": [features]}
            for number, name, features in ((0, "a", 2.0), (1, "b", 3.0))
        ]
        nobody = engine.rows(pa.table({"image_id": pa.array([], pa.string()), "n": pa.array([], pa.int64())}))
        nothing = engine.join(nobody, pin(lake, "image_features"), ["image_id"], ["features"])
        assert nothing.arrow().num_rows == 0
        assert nothing.arrow().column_names == ["image_id", "n", "features"]

    def test_map_runs_a_kernel_over_the_rows_with_a_key_bytes_included(self, engine: Engine, lake: Lake) -> None:
        import pyarrow as pa

        photos = (photo(str(number), bytes([number, 0, 255]) * number) for number in range(1, 150))
        put(lake, "raw_images", *photos)
        keys = engine.rows(pa.table({"image_id": [image_id("2"), image_id("99"), image_id("none"), image_id("140")]}))
        done: list[int] = []

        rows = engine.map(pin(lake, "raw_images"), ["image_id", "content"], keys, sizes, SIZES, done.append)

        assert sorted(rows.arrow().to_pylist(), key=lambda row: row["size"]) == [
            {"image_id": image_id(str(n)), "size": 3 * n, "reversed": bytes([255, 0, n]) * n} for n in (2, 99, 140)
        ]
        assert sum(done) == 3

    def test_map_reads_no_file_without_a_row_that_is_asked_for(self, engine: Engine, lake: Lake) -> None:
        import pyarrow as pa
        from deltalake import DeltaTable

        names = ("a", "b", "c")
        for name in names:  # a file each
            put(lake, "raw_images", photo(name, name.encode()))
        table = pin(lake, "raw_images")
        actions = pa.table(DeltaTable(table.uri).get_add_actions(flatten=True)).to_pylist()
        (file_of_b,) = (action["path"] for action in actions if action["min.path"].endswith("b.jpg"))
        spoil(Path(table.uri, file_of_b), "content")

        def sizes_of(*names: str) -> list[int]:
            keys = engine.rows(pa.table({"path": [f"zone/{name}.jpg" for name in names]}))
            made = engine.map(table, ["image_id", "content"], keys, sizes, SIZES).arrow()
            return made["size"].to_pylist()

        assert sizes_of("a", "c") == [1, 1]
        with pytest.raises((DlassetsError, OSError)):
            sizes_of("b")

    def test_map_gives_the_columns_that_a_file_does_not_have(self, engine: Engine, tmp_path: Path) -> None:
        import pyarrow as pa
        from deltalake import write_deltalake

        uri, keys = str(tmp_path / "grown"), ["a", "b", "c"]
        older = pa.table({"key": keys[:2], "content": [b"1", b"2"], "day": ["mon", "tue"]})
        write_deltalake(uri, older, partition_by=["day"])
        newer = pa.table({"key": keys[2:], "content": [b"3"], "note": ["new"], "day": ["mon"]})
        write_deltalake(uri, newer, mode="append", schema_mode="merge")
        columns = [Column("key", "string", ""), Column("note", "string", ""), Column("day", "string", "")]

        wanted = engine.rows(pa.table({"key": keys}))
        rows = engine.map(Snapshot("grown", uri, 1), ["key", "note", "day"], wanted, _the_same, columns)

        assert sorted(tuple(row.values()) for row in rows.arrow().to_pylist()) == [
            ("a", None, "mon"),
            ("b", None, "tue"),
            ("c", "new", "mon"),
        ]

    def test_rows_can_be_narrowed_split_and_counted(self, engine: Engine) -> None:
        import pyarrow as pa

        rows = engine.rows(pa.table({"a": [1, 2, 3, 4], "b": [1, 1, 2, 2], "c": ["x", None, None, "y"]}))

        missing, there = rows.split_by_null("c")

        assert rows.count() == 4
        assert rows.select(["c", "a"]).arrow().sort_by("a").to_pylist()[0] == {"c": "x", "a": 1}
        assert missing.arrow()["a"].to_pylist() == [2, 3]
        assert there.arrow()["a"].to_pylist() == [1, 4]

    def test_a_kernel_runs_once_however_often_its_rows_are_used(
        self, engine: Engine, lake: Lake, tmp_path: Path
    ) -> None:
        uri = pin(lake, "predictions").uri
        given(lake, prediction("a"))
        runs = tmp_path / "runs"

        def scored(batch: "pa.RecordBatch") -> "pa.RecordBatch":
            import pyarrow as pa

            with runs.open("a") as file:
                file.writelines(f"{path}\n" for path in batch["path"].to_pylist())
            return pa.RecordBatch.from_pylist(
                [prediction(path[5:-4], 0.9) for path in batch["path"].to_pylist()], schema=PREDICTIONS.schema
            )

        # What it works on is found by looking at the very table it is written to, as scoring does.
        tables: dict[str, Rows | Snapshot] = {"n": engine.rows(_paths("a", "b", "c")), "p": pin(lake, "predictions")}
        new = engine.sql("SELECT path FROM n WHERE path NOT IN (SELECT path FROM p)", tables)
        rows = new.map(scored, PREDICTIONS.columns)

        assert rows.count() == 2
        engine.merge(rows, PREDICTIONS, uri, Commit())
        engine.append(rows.split_by_null("predicted_name")[0], PREDICTIONS, uri, Commit())
        assert rows.arrow()["path"].to_pylist() == ["zone/b.jpg", "zone/c.jpg"]
        assert sorted(runs.read_text().split()) == ["zone/b.jpg", "zone/c.jpg"]

    def test_rows_that_have_no_other_are_found_where_what_the_other_must_be_is_null(self, engine: Engine) -> None:
        import pyarrow as pa

        gone = pa.table({"path": ["zone/a.jpg", "zone/b.jpg"], "returned": pa.array([None, 1], pa.int64())})
        query = """
            SELECT photos.path FROM photos LEFT JOIN gone ON gone.path = photos.path AND gone.returned IS NULL
            WHERE gone.path IS NULL ORDER BY photos.path
        """

        found = engine.sql(query, {"photos": engine.rows(_paths("a", "b", "c")), "gone": engine.rows(gone)}).arrow()

        assert found["path"].to_pylist() == ["zone/b.jpg", "zone/c.jpg"]

    def test_an_error_for_people_comes_out_as_it_was_wherever_rows_are_computed(
        self, engine: Engine, lake: Lake
    ) -> None:
        given(lake, prediction("a"))
        snapshot, error = pin(lake, "predictions"), HARD_TO_TELL

        def refuse(_: Any) -> Any:
            raise error

        with raising(error):
            predictions(engine, prediction("b")).map(refuse, PREDICTIONS.columns).arrow()
        with raising(error):
            engine.apply_in_pandas(snapshot, refuse, ["path", "image_id"], [PATH], "path", 1).count()
        with raising(error):
            rows = predictions(engine, prediction("b")).map(refuse, PREDICTIONS.columns)
            engine.append(rows, PREDICTIONS, snapshot.uri, Commit())


class TestMaintaining:
    def test_small_files_become_one_and_old_ones_go(self, engine: Engine, lake: Lake) -> None:
        for name in "abc":
            given(lake, prediction(name), provenance={"of": name})
        before = get(engine, lake, "predictions")
        uri = pin(lake, "predictions").uri

        kept = engine.maintain(PREDICTIONS, uri)
        assert (kept.files_before, kept.files_after, kept.files_deleted) == (3, 1, 0)
        cleaned = engine.maintain(PREDICTIONS, uri, z_order=["path"], vacuum_hours=0)

        assert cleaned.files_after == 1
        assert cleaned.files_deleted >= 3
        assert cleaned.version == pin(lake, "predictions").version
        assert len(list(Path(uri).glob("**/*.parquet"))) == 1
        assert get(engine, lake, "predictions") == before
        assert provenance_of(pin(lake, "predictions")) == {"of": "c"}


class TestHandingOver:
    @pytest.mark.spark
    def test_a_table_goes_from_one_engine_to_the_other_midway(
        self, local_engine: Engine, spark_engine: Engine, tmp_path: Path
    ) -> None:
        def write(lake: Lake, first: Engine, second: Engine) -> list[dict[str, Any]]:
            append(first, lake, prediction("a"), prediction("b"), transaction=Transaction("t", 0))
            merge(second, lake, prediction("b", 0.75), prediction("c", 0.75))
            merge(first, lake, prediction("c", 0.9), prediction("d") | {"top_k": None})
            with pytest.raises(ConflictError):
                append(second, lake, prediction("e"), transaction=Transaction("t", 0))
            append(second, lake, prediction("e"), prediction("f"), transaction=Transaction("t", 1))
            uri = pin(lake, "predictions").uri
            where = {"path": ["zone/f.jpg"]}
            first.replace(predictions(first, prediction("f", 1.0)), PREDICTIONS, uri, Commit(), where=where)
            second.maintain(PREDICTIONS, uri, vacuum_hours=0)
            merge(first, lake, prediction("f", 0.25))
            assert transaction_version(pin(lake, "predictions"), "t") == 1
            tables = [get(engine, lake, "predictions") for engine in (first, second)]
            assert tables[0] == tables[1]
            return tables[0]

        begun_local = write(Lake.at(str(tmp_path / "local first")), local_engine, spark_engine)
        begun_spark = write(Lake.at(str(tmp_path / "spark first")), spark_engine, local_engine)
        on_one_alone = write(Lake.at(str(tmp_path / "local")), local_engine, local_engine)

        assert begun_local == begun_spark == on_one_alone
        expected = zip("abcdef", (0.5, 0.75, 0.9, 0.5, 0.5, 0.25), strict=True)
        found = [(row["path"], row["confidence"]) for row in on_one_alone]
        assert found == [(f"zone/{name}.jpg", confidence) for name, confidence in expected]

    @pytest.mark.spark
    def test_image_bytes_written_by_one_are_worked_on_by_the_other(
        self, local_engine: Engine, spark_engine: Engine, lake: Lake
    ) -> None:
        put(lake, "raw_images", photo("a", b"\x00\xff"), photo("b", b"12"), engine=local_engine)
        put(lake, "raw_images", photo("c", b"345"), engine=spark_engine)

        def mapped(engine: Engine) -> list[dict[str, Any]]:
            keys = engine.sql("SELECT image_id FROM r WHERE length > 1", {"r": pin(lake, "raw_images")})
            rows = engine.map(pin(lake, "raw_images"), ["content", "image_id"], keys, sizes, SIZES)
            return sorted(rows.arrow().to_pylist(), key=repr)

        assert len(mapped(local_engine)) == 3
        assert mapped(local_engine) == mapped(spark_engine)


class Landed:
    """A landing zone with files in it."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self.engine = engine
        self.zone = folder / "a zone"
        self.zone.mkdir()
        self.progress: list[int] = []

    def land(self, *names: str, content: bytes = b"jpeg") -> None:
        for name in names:
            (self.zone / name).parent.mkdir(parents=True, exist_ok=True)
            (self.zone / name).write_bytes(content)

    def listing(self) -> "pa.Table":
        return list_files("in", ZONE, str(self.zone))

    def read(self, listing: "pa.Table | None" = None, most_bytes: int = 1000) -> list[dict[str, Any]]:
        """Return the files of a listing (by default of what is there now) as the engine reads them, by path."""
        listing = self.listing() if listing is None else listing
        files = self.engine.files("in", str(self.zone), listing, most_bytes, self.progress.append)
        return sorted(files.arrow().to_pylist(), key=lambda row: row["path"])


@pytest.fixture
def landed(engine: Engine, tmp_path: Path) -> Landed:
    return Landed(engine, tmp_path)


class TestFiles:
    def test_a_file_comes_with_its_path_in_the_zone_time_length_and_bytes(self, landed: Landed) -> None:
        landed.land("001.dress/a.jpg", content=b"\xff\xd8 bytes")
        os.utime(landed.zone / "001.dress/a.jpg", ns=(0, NOON.timestamp().__int__() * 10**9 + 123_456_789))

        stat = {"modificationTime": NOON.replace(microsecond=123_000), "length": 8, "leads_to": None}
        found = {"content": b"\xff\xd8 bytes", "read_error": None}
        assert landed.read() == [{"path": "in/001.dress/a.jpg", **stat, **found}]
        assert sum(landed.progress) == 1

    def test_names_of_any_kind_are_read(self, landed: Landed) -> None:
        names = ["a b/ü é.JPG", "p%20q/100%.jpeg", "h#a/?q.jpg", "gl[ob]/{a,b}*.jpg", "back\\slash.jpg", "co:lon.jpg"]
        names += ["quo'te\".jpg", "li\nne.jpg", "no extension", "n" * 251 + ".jpg", "cafe\u0301.jpg", "caf\u00e9.jpg"]
        for name in names:
            landed.land(name, content=name.encode())

        assert {row["path"]: row["content"] for row in landed.read()} == {f"in/{n}": n.encode() for n in names}

    def test_hidden_names_and_those_outside_the_pattern_are_not_listed(self, landed: Landed) -> None:
        landed.land(".hidden/x.jpg", "_hidden/x.jpg", "d/.x.jpg", "d/_x.jpg", "d/_a=b/x.jpg", "_temporary/0/x.jpg")
        landed.land("a.jpg", "b.png", "c.txt")

        assert sorted(landed.listing()["path"].to_pylist()) == ["in/a.jpg", "in/b.png", "in/c.txt"]
        pictures = LandingZone(uri="zone", labelled=False, pattern=r"\.(jpg|png)$")
        assert sorted(list_files("in", pictures, str(landed.zone))["path"].to_pylist()) == ["in/a.jpg", "in/b.png"]

    def test_a_file_that_has_gone_has_no_row(self, landed: Landed) -> None:
        landed.land("a.jpg", "gone.jpg")
        listing = landed.listing()
        (landed.zone / "gone.jpg").unlink()

        assert [row["path"] for row in landed.read(listing)] == ["in/a.jpg"]

    def test_a_file_that_is_too_large_or_no_file_any_more_has_no_bytes(self, landed: Landed) -> None:
        landed.land("a.jpg", "large.jpg", content=b"12345")
        landed.land("large.jpg", content=b"x" * 11)
        listing = landed.listing()
        (landed.zone / "a.jpg").unlink()
        (landed.zone / "a.jpg").mkdir()

        read = {row["path"]: (row["content"], row["read_error"]) for row in landed.read(listing, most_bytes=10)}
        assert read == {"in/a.jpg": (None, "no regular file"), "in/large.jpg": (None, None)}

    @pytest.mark.parametrize(("size", "most_threads"), [(4000, 1), (5000, 3)])
    def test_small_files_are_read_and_checked_by_one_thread(
        self, local_engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, most_threads: int
    ) -> None:
        monkeypatch.setattr("dlassets.engines.local.PART_FILES", 1)
        monkeypatch.setattr("dlassets.engines.local.WORKERS", 3)
        landed, threads = Landed(local_engine, tmp_path), set()
        landed.land(*(f"{number}.jpg" for number in range(6)), content=bytes(size))
        all_wait = threading.Barrier(most_threads)

        def check(batch: "pa.RecordBatch") -> "pa.RecordBatch":
            threads.add(threading.get_ident())
            all_wait.wait(timeout=10)
            return batch.select(["path"])

        files = local_engine.files("in", str(landed.zone), landed.listing(), 10_000)
        assert files.map(check, [PATH]).count() == 6
        assert len(threads) == most_threads

    def test_a_zone_that_is_empty_or_missing(self, landed: Landed) -> None:
        assert landed.read() == []
        landed.zone.rmdir()

        with pytest.raises(DlassetsError, match=r"'in' is not there: .*a zone.*Create the folder"):
            landed.listing()


class TestLookingAtPaths:
    def test_it_says_what_a_listing_would_and_what_is_not_there(self, tmp_path: Path) -> None:
        zone = Landed(LocalEngine(), tmp_path)
        zone.land("a b.jpg", "d/e.jpg")

        found, gone = stat_files("in", str(zone.zone), ["d/e.jpg", "a b.jpg", "never.jpg", "d"])

        assert found.sort_by("path") == zone.listing().sort_by("path")
        assert gone == ["in/never.jpg", "in/d"]


@pytest.mark.spark
class TestSparkAlone:
    def test_a_write_that_delta_skips_in_silence_is_a_conflict(
        self, spark_engine: Engine, lake: Lake, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        given(lake, prediction("a"), provenance={"run": 1}, transaction=Transaction("t", 1))
        # As where another run commits after this one has looked.
        monkeypatch.setattr("dlassets.engines.spark.refuse_overtaken", lambda *_: None)

        with pytest.raises(ConflictError, match="wrote the same batch"):
            append(spark_engine, lake, prediction("b"), provenance={"run": 2}, transaction=Transaction("t", 1))
        assert list(confidences(spark_engine, lake)) == ["zone/a.jpg"]

    def test_a_commit_that_lost_a_race_is_a_conflict(
        self, spark_engine: Engine, local_engine: Engine, lake: Lake
    ) -> None:
        """A merge that rewrites a file which another run has meanwhile rewritten."""
        given(lake, prediction("a"))
        uri = pin(lake, "predictions").uri

        def meanwhile(batch: "pa.RecordBatch") -> "pa.RecordBatch":
            merge(local_engine, lake, prediction("a", 0.1))
            return batch

        rows = predictions(spark_engine, prediction("a", 0.9)).map(meanwhile, PREDICTIONS.columns)
        from dlassets.engines.spark import SparkRows

        assert isinstance(rows, SparkRows)
        rows._kept = True  # so that the other run commits while this one merges, not before

        with pytest.raises(ConflictError, match=r"changed .* at the same moment"):
            spark_engine.merge(rows, PREDICTIONS, uri, Commit())

    def test_the_sessions_settings_are_as_before_after_a_write(self, spark_engine: Engine, lake: Lake) -> None:
        from dlassets.engines.spark import SparkEngine

        assert isinstance(spark_engine, SparkEngine)
        session = spark_engine.session

        def settings() -> dict[str, str]:
            noted_by_delta = "spark.databricks.delta.lastCommitVersionInSession"
            return {name: value for name, value in session.conf.getAll.items() if name != noted_by_delta}

        before = settings()
        append(spark_engine, lake, prediction("a"), provenance={"run": 1}, transaction=Transaction("t", 1))
        put(lake, "raw_images", photo("a", b"1"), engine=spark_engine)

        assert settings() == before


def test_nothing_starts_before_it_is_needed() -> None:
    from dlassets.engines.spark import SparkEngine

    def start() -> Any:
        raise AssertionError("started")

    with pytest.raises(AssertionError, match="started"):
        SparkEngine(start).rows(_paths("a"))


def _paths(*names: str) -> "pa.Table":
    import pyarrow as pa

    return pa.table({PATH.name: [f"zone/{name}.jpg" for name in names]})
