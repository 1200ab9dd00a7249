"""What an engine does, said once: both must do it, and go on from what the other left."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from dlassets.engines.base import Commit, Engine, Rows, Transaction, Written
from dlassets.errors import ConflictError, DlassetsError
from dlassets.lakehouse.lake import Lake
from dlassets.lakehouse.snapshots import pin, provenance_of, transaction_version
from dlassets.lakehouse.tables import IMAGE_ID, PATH, PREDICTIONS, RAW_IMAGES, Column
from dlassets.settings import LandingZone
from dlassets_tests.tables import NOON, get, image_id

if TYPE_CHECKING:
    import pyarrow as pa

ZONE = LandingZone(uri="zone", labelled=False)
FILE_KEY = ["path", "modificationTime", "length"]


def prediction(name: str, confidence: float = 0.5) -> dict[str, Any]:
    return {
        "path": f"zone/{name}.jpg",
        "image_id": image_id(name),
        "model_name": "m",
        "model_version": 1,
        "predicted_label": 3,
        "predicted_name": None,
        "confidence": confidence,
        "margin": 0.25,
        "top_k": [{"label": 3, "name": "pants", "confidence": confidence}],
        "scored_at": NOON.replace(microsecond=678_901),
    }


def photo(name: str, content: bytes) -> dict[str, Any]:
    return {
        "path": f"zone/{name}.jpg",
        "modificationTime": NOON,
        "length": len(content),
        "content": content,
        "image_id": image_id(name),
        "landing": "zone",
        "folder": None,
        "load_date": NOON.date(),
        "batch_id": "zone-000000",
    }


def predictions(engine: Engine, *rows: dict[str, Any]) -> Rows:
    import pyarrow as pa

    return engine.rows(pa.Table.from_pylist(list(rows), schema=PREDICTIONS.schema))


def append(engine: Engine, lake: Lake, *rows: dict[str, Any], **commit: Any) -> Written:
    uri = pin(lake, "predictions").uri
    return engine.append(predictions(engine, *rows), PREDICTIONS, uri, Commit(**commit))


def merge(engine: Engine, lake: Lake, *rows: dict[str, Any], **commit: Any) -> Written:
    uri = pin(lake, "predictions").uri
    return engine.merge(predictions(engine, *rows), PREDICTIONS, uri, Commit(**commit))


def confidences(engine: Engine, lake: Lake) -> dict[str, float]:
    rows = get(engine, lake, "predictions", "path, confidence")
    return {row["path"]: row["confidence"] for row in rows}


def put_photos(engine: Engine, lake: Lake, *photos: dict[str, Any]) -> None:
    import pyarrow as pa

    rows = engine.rows(pa.Table.from_pylist(list(photos), schema=RAW_IMAGES.schema))
    engine.append(rows, RAW_IMAGES, pin(lake, "raw_images").uri, Commit())


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
        assert confidences(engine, lake) == {
            "zone/a.jpg": 0.5,
            "zone/b.jpg": 0.9,
            "zone/c.jpg": 0.9,
            "zone/d.jpg": 0.9,
        }

    def test_columns_are_found_by_name_and_take_the_tables_types(self, engine: Engine, lake: Lake) -> None:
        append(engine, lake, prediction("a"))
        again = engine.sql(
            "SELECT 2 AS model_version, image_id, path, model_name, predicted_label, predicted_name, confidence, "
            "margin, top_k, scored_at, 'more' AS more FROM predictions",
            {"predictions": pin(lake, "predictions")},
        )

        engine.append(again, PREDICTIONS, pin(lake, "predictions").uri, Commit())

        assert get(engine, lake, "predictions") == [prediction("a"), prediction("a") | {"model_version": 2}]

    def test_replace_puts_rows_in_place_of_all(self, engine: Engine, lake: Lake) -> None:
        append(engine, lake, prediction("a"), prediction("b"))
        uri = pin(lake, "predictions").uri

        written = engine.replace(predictions(engine, prediction("c")), PREDICTIONS, uri, Commit())

        assert written == Written(version=2, inserted=1)
        assert confidences(engine, lake) == {"zone/c.jpg": 0.5}

    def test_replace_leaves_rows_that_it_does_not_name(self, engine: Engine, lake: Lake) -> None:
        odd = "it's \\ odd"
        append(engine, lake, prediction("a"), prediction("b"), prediction(odd))
        uri = pin(lake, "predictions").uri

        written = engine.replace(
            predictions(engine, prediction(odd, 0.9), prediction("new", 0.9)),
            PREDICTIONS,
            uri,
            Commit(),
            where={"path": [f"zone/{name}.jpg" for name in (odd, "b", "new")]},
        )

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

        put_photos(engine, lake, *(photo(f"{number:03}", b"jpeg" * 100) for number in range(600)))

        delta = DeltaTable(pin(lake, "raw_images").uri)
        files = [pq.ParquetFile(uri.removeprefix("file://")).metadata for uri in delta.file_uris()]
        groups = [file.row_group(number) for file in files for number in range(file.num_row_groups)]
        assert sum(group.num_rows for group in groups) == 600
        assert max(group.num_rows for group in groups) <= RAW_IMAGES.row_group
        assert {group.column(number).compression for group in groups for number in range(group.num_columns)} == {
            "UNCOMPRESSED"
        }


class TestReading:
    def test_sql_reads_the_pinned_version(self, engine: Engine, lake: Lake) -> None:
        append(engine, lake, prediction("a"))
        earlier = pin(lake, "predictions")
        append(engine, lake, prediction("b"))

        query = "SELECT COUNT(*) AS n, SUM(confidence) AS total FROM predictions"

        assert engine.sql(query, {"predictions": earlier}).arrow().to_pylist() == [{"n": 1, "total": 0.5}]

    def test_sql_joins_snapshots_and_rows_under_the_names_it_is_given(self, engine: Engine, lake: Lake) -> None:
        import pyarrow as pa

        append(engine, lake, prediction("a"), prediction("b"), prediction("c"))
        wanted = engine.rows(pa.table({"image": [image_id("b"), image_id("c"), image_id("z")]}))

        found = engine.sql(
            "WITH q AS (SELECT path, confidence FROM p JOIN w ON p.image_id = w.image) "
            "SELECT path, confidence + 1 AS more, '{x} {}' AS text FROM q WHERE path <> '{' ORDER BY path DESC",
            {"p": pin(lake, "predictions"), "w": wanted},
        )

        assert found.arrow().to_pylist() == [
            {"path": "zone/c.jpg", "more": 1.5, "text": "{x} {}"},
            {"path": "zone/b.jpg", "more": 1.5, "text": "{x} {}"},
        ]

    def test_map_runs_a_kernel_over_the_rows_with_a_key_bytes_included(self, engine: Engine, lake: Lake) -> None:
        import pyarrow as pa

        put_photos(engine, lake, *(photo(str(number), bytes([number, 0, 255]) * number) for number in range(1, 150)))
        keys = engine.rows(pa.table({"image_id": [image_id("2"), image_id("99"), image_id("none"), image_id("140")]}))
        done: list[int] = []

        rows = engine.map(pin(lake, "raw_images"), ["image_id", "content"], keys, sizes, SIZES, done.append)

        assert sorted(rows.arrow().to_pylist(), key=lambda row: row["size"]) == [
            {"image_id": image_id(str(n)), "size": 3 * n, "reversed": bytes([255, 0, n]) * n} for n in (2, 99, 140)
        ]
        assert sum(done) == 3

    def test_rows_can_be_narrowed_split_and_counted(self, engine: Engine) -> None:
        import pyarrow as pa

        rows = engine.rows(pa.table({"a": [1, 2, 3, 4], "b": [1, 1, 2, 2], "c": ["x", None, None, "y"]}))
        known = engine.rows(pa.table({"b": [1, 2, 2], "other": [0, 0, 0], "a": [1, 4, 5]}))

        left = rows.without(known, ["a", "b"])
        missing, there = rows.split_by_null("c")

        assert left.arrow().sort_by("a").to_pylist() == [{"a": 2, "b": 1, "c": None}, {"a": 3, "b": 2, "c": None}]
        assert left.count() == 2
        assert rows.select(["c", "a"]).arrow().sort_by("a").to_pylist()[0] == {"c": "x", "a": 1}
        assert missing.arrow()["a"].to_pylist() == [2, 3]
        assert there.arrow()["a"].to_pylist() == [1, 4]

    def test_a_kernel_runs_once_however_often_its_rows_are_used(
        self, engine: Engine, lake: Lake, tmp_path: Path
    ) -> None:
        uri = pin(lake, "predictions").uri
        append(engine, lake, prediction("a"))
        runs = tmp_path / "runs"

        def scored(batch: "pa.RecordBatch") -> "pa.RecordBatch":
            import pyarrow as pa

            with runs.open("a") as file:
                file.writelines(f"{path}\n" for path in batch["path"].to_pylist())
            return pa.RecordBatch.from_pylist(
                [prediction(path[5:-4], 0.9) for path in batch["path"].to_pylist()], schema=PREDICTIONS.schema
            )

        # What it works on is found by looking at the very table it is written to, as scoring does.
        new = engine.rows(_paths("a", "b", "c")).without(
            engine.sql("SELECT path FROM p", {"p": pin(lake, "predictions")}), ["path"]
        )
        rows = new.map(scored, PREDICTIONS.columns)

        assert rows.count() == 2
        engine.merge(rows, PREDICTIONS, uri, Commit())
        engine.append(rows.split_by_null("predicted_name")[0], PREDICTIONS, uri, Commit())
        assert rows.arrow()["path"].to_pylist() == ["zone/b.jpg", "zone/c.jpg"]
        assert sorted(runs.read_text().split()) == ["zone/b.jpg", "zone/c.jpg"]


class TestMaintaining:
    def test_small_files_become_one_and_old_ones_go(self, engine: Engine, lake: Lake) -> None:
        for name in "abc":
            append(engine, lake, prediction(name), provenance={"of": name})
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
        assert [(row["path"], row["confidence"]) for row in on_one_alone] == [
            ("zone/a.jpg", 0.5),
            ("zone/b.jpg", 0.75),
            ("zone/c.jpg", 0.9),
            ("zone/d.jpg", 0.5),
            ("zone/e.jpg", 0.5),
            ("zone/f.jpg", 0.25),
        ]

    @pytest.mark.spark
    def test_image_bytes_written_by_one_are_worked_on_by_the_other(
        self, local_engine: Engine, spark_engine: Engine, lake: Lake
    ) -> None:
        put_photos(local_engine, lake, photo("a", b"\x00\xff"), photo("b", b"12"))
        put_photos(spark_engine, lake, photo("c", b"345"))

        def mapped(engine: Engine) -> list[dict[str, Any]]:
            keys = engine.sql("SELECT image_id FROM r WHERE length > 1", {"r": pin(lake, "raw_images")})
            rows = engine.map(pin(lake, "raw_images"), ["content", "image_id"], keys, sizes, SIZES)
            return sorted(rows.arrow().to_pylist(), key=repr)

        assert len(mapped(local_engine)) == 3
        assert mapped(local_engine) == mapped(spark_engine)


class Arrivals:
    """A landing zone, and what an engine handed over of it; `known` is what it handed over before."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self.engine = engine
        self.zone = folder / "a zone"
        self.zone.mkdir()
        self.checkpoint = folder / "checkpoint"
        self.batches: list[pa.Table] = []
        self.progress: list[int] = []

    def land(self, *names: str, content: bytes = b"jpeg") -> None:
        for name in names:
            (self.zone / name).parent.mkdir(parents=True, exist_ok=True)
            (self.zone / name).write_bytes(content)

    def handle(self, rows: Rows) -> None:
        self.batches.append(rows.without(self.known(), FILE_KEY).arrow())

    def known(self) -> Rows:
        import pyarrow as pa

        schema = pa.schema([RAW_IMAGES.schema.field(name) for name in FILE_KEY])
        batches = [batch.select(FILE_KEY).cast(schema) for batch in self.batches]
        return self.engine.rows(pa.concat_tables([schema.empty_table(), *batches]))

    def taken_in(
        self, limits: tuple[int, int] = (100, 10_000), handle: Callable[[Rows], None] | None = None
    ) -> list[str]:
        """Take in, and return the paths of what is new."""
        before = len(self.batches)
        self.engine.arrivals(
            "in",
            ZONE,
            str(self.zone),
            str(self.checkpoint),
            self.known,
            handle or self.handle,
            limits,
            self.progress.append,
        )
        return sorted(path for batch in self.batches[before:] for path in batch["path"].to_pylist())


@pytest.fixture
def arrivals(engine: Engine, tmp_path: Path) -> Arrivals:
    return Arrivals(engine, tmp_path)


class TestArrivals:
    def test_a_file_comes_with_its_path_in_the_zone_time_length_and_bytes(self, arrivals: Arrivals) -> None:
        arrivals.land("001.dress/a.jpg", content=b"\xff\xd8 bytes")
        os.utime(arrivals.zone / "001.dress/a.jpg", ns=(0, NOON.timestamp().__int__() * 10**9 + 123_456_789))

        arrivals.taken_in()

        assert [batch.to_pylist() for batch in arrivals.batches] == [
            [
                {
                    "path": "in/001.dress/a.jpg",
                    "modificationTime": NOON.replace(microsecond=123_000),
                    "length": 8,
                    "content": b"\xff\xd8 bytes",
                }
            ]
        ]
        assert sum(arrivals.progress) == 1

    def test_names_of_any_kind_and_the_pattern(self, arrivals: Arrivals) -> None:
        names = ["a b/ü é.JPG", "p%20q/100%.jpeg", "h#a/?q.jpg", "gl[ob]/{a,b}*.jpg", "back\\slash.jpg", "co:lon.jpg"]
        arrivals.land(*names, "quo'te\".jpg", "no.txt", "jpg", "x.jpg.part")
        arrivals.land("empty.jpg", content=b"")
        arrivals.land(".hidden/x.jpg", "_hidden/x.jpg", "d/.x.jpg", "d/_x.jpg", "d/_a=b/x.jpg")

        assert arrivals.taken_in() == sorted(f"in/{name}" for name in [*names, "quo'te\".jpg", "empty.jpg"])

    def test_only_what_is_new_or_changed_is_handed_over(self, arrivals: Arrivals) -> None:
        arrivals.land("a.jpg", "b.jpg")
        assert arrivals.taken_in() == ["in/a.jpg", "in/b.jpg"]
        assert arrivals.taken_in() == []

        arrivals.land("a.jpg", content=b"other bytes")
        arrivals.land("c/d.jpg")
        assert arrivals.taken_in() == ["in/a.jpg", "in/c/d.jpg"]
        contents = {row["path"]: row["content"] for batch in arrivals.batches for row in batch.to_pylist()}
        assert contents["in/a.jpg"] == b"other bytes"

        shutil.rmtree(arrivals.checkpoint, ignore_errors=True)
        assert arrivals.taken_in() == []

    def test_a_batch_ends_at_so_many_files_or_bytes(self, arrivals: Arrivals) -> None:
        arrivals.land(*(f"{number}.jpg" for number in range(7)))
        arrivals.land("big.jpg", content=b"x" * 200)

        arrivals.taken_in(limits=(3, 100))

        assert sum(batch.num_rows for batch in arrivals.batches) == 8
        assert max(batch.num_rows for batch in arrivals.batches) == 3
        assert [
            1 for batch in arrivals.batches if "in/big.jpg" in batch["path"].to_pylist() and batch.num_rows > 1
        ] == []

    def test_an_error_comes_out_as_it_is_and_the_batch_comes_again(self, arrivals: Arrivals) -> None:
        def fail(_: Rows) -> None:
            raise ConflictError("another run was first")

        arrivals.land("a.jpg", "gone.jpg")
        with pytest.raises(ConflictError, match=r"^another run was first$"):
            arrivals.taken_in(handle=fail)
        (arrivals.zone / "gone.jpg").unlink()

        assert arrivals.taken_in() == ["in/a.jpg"]

    def test_a_file_that_goes_before_it_is_read_is_left_out(self, arrivals: Arrivals) -> None:
        def remove_first(rows: Rows) -> None:
            (arrivals.zone / "gone.jpg").unlink()
            arrivals.handle(rows)

        arrivals.land("a.jpg", "gone.jpg")

        assert arrivals.taken_in(handle=remove_first) == ["in/a.jpg"]

    def test_a_zone_that_is_empty_or_missing(self, arrivals: Arrivals) -> None:
        assert arrivals.taken_in() == []
        arrivals.zone.rmdir()

        with pytest.raises(DlassetsError, match=r"'in' is not there: .*a zone.*Create the folder"):
            arrivals.taken_in()


@pytest.mark.spark
class TestSparkAlone:
    def test_a_write_that_delta_skips_in_silence_is_a_conflict(
        self, spark_engine: Engine, lake: Lake, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        append(spark_engine, lake, prediction("a"), provenance={"run": 1}, transaction=Transaction("t", 1))
        # As where another run commits after this one has looked.
        monkeypatch.setattr("dlassets.engines.spark.refuse_overtaken", lambda *_: None)

        with pytest.raises(ConflictError, match="wrote the same batch"):
            append(spark_engine, lake, prediction("b"), provenance={"run": 2}, transaction=Transaction("t", 1))
        assert list(confidences(spark_engine, lake)) == ["zone/a.jpg"]

    def test_a_commit_that_lost_a_race_is_a_conflict(
        self, spark_engine: Engine, local_engine: Engine, lake: Lake
    ) -> None:
        """A merge that rewrites a file which another run has meanwhile rewritten."""
        append(spark_engine, lake, prediction("a"))
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
        before = spark_engine.session.conf.getAll
        append(spark_engine, lake, prediction("a"), provenance={"run": 1}, transaction=Transaction("t", 1))
        put_photos(spark_engine, lake, photo("a", b"1"))

        assert spark_engine.session.conf.getAll == before


def test_nothing_starts_before_it_is_needed() -> None:
    from dlassets.engines.spark import SparkEngine

    def start() -> Any:
        raise AssertionError("started")

    with pytest.raises(AssertionError, match="started"):
        SparkEngine(start).rows(_paths("a"))


def _paths(*names: str) -> "pa.Table":
    import pyarrow as pa

    return pa.table({PATH.name: [f"zone/{name}.jpg" for name in names]})
