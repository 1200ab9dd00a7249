import pytest
from rich.console import Console

from benchmarks.contest import LIMIT, Outcome, Speed
from benchmarks.training import embedders
from benchmarks.training.embedding import CONTEST, LOCAL, SPARK, TORCH


def speed(who, rate, limit=None, **more):
    made = Speed(who)
    made.add({"images": 100, "wall_s": 100 / rate, "cpu_s": 0.4, "first_s": 3.0, **more}, limit)
    return made


def shown(result):
    console = Console(width=200)
    with console.capture() as capture:
        for table in result.tables():
            console.print(table)
    return capture.get()


def test_each_is_compared_with_the_limit_of_its_own_minutes():
    speeds = [speed(LOCAL, 90, 100), speed(SPARK, 40, 50), speed(TORCH, 4, 50), speed("Daft", 30, 100)]
    missing = Speed("Ray", missing="not installed")

    text = shown(Outcome(CONTEST, 100, speed(LIMIT, 100), [*speeds, missing]))

    assert "0.90" in text
    assert "0.80" in text  # 40 of 50, though the limit did 100 at another time
    assert "11.2" in text  # 0.90 by 0.08
    assert "fastest peer, Daft" in text
    assert "3.00" in text
    assert "not installed" in text


def test_where_a_peer_is_faster_once_its_workers_run_the_table_says_so_too():
    speeds = [speed(LOCAL, 90, 100, between=95), speed("Daft", 60, 100, between=100), speed("Ray", 70, 100)]

    text = shown(Outcome(CONTEST, 100, speed(LIMIT, 100), speeds))

    assert "times the fastest peer, Ray" in text
    assert "1.29" in text  # 0.90 by 0.70, whole jobs
    assert "times the fastest peer, between batches, Daft" in text
    assert "0.95" in text


def test_between_batches_are_the_photos_after_the_first_batch_until_the_last_step_is_done(monkeypatch):
    clock, times = embedders.Clock(), iter([10.0, 11.0, 12.0, 14.0])
    monkeypatch.setattr("time.time", lambda: next(times))
    for what, done in (("embedded", 8), ("embedded", 24), ("scored", 16), ("scored", 24)):
        clock.count(what, done, 24)

    assert clock.between() == {"between": 16 / 4}


@pytest.fixture(scope="module")
def lake(photos, tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("bench"))
    assert embedders.written(str(photos), folder, 20) == 20
    return folder


@pytest.mark.parametrize("task", ["loop", "local"])
def test_a_task_embeds_every_photo_and_says_what_it_took(lake, task):
    figures = getattr(embedders, task)(lake, workers=2)

    assert figures["images"] == 20
    assert min(figures["wall_s"], figures["cpu_s"], figures["first_s"]) > 0


@pytest.mark.spark
@pytest.mark.parametrize("task", ["spark", "spark_openvino", "spark_torch"])
@pytest.mark.slow
def test_so_does_one_on_spark(task, lake, spark_engine, monkeypatch):
    monkeypatch.setattr(embedders, "spark_with", lambda _: spark_engine.session)

    assert getattr(embedders, task)(lake, workers=2)["images"] == 20


def test_the_loop_s_embeddings_are_those_of_dlassets(lake):
    import numpy as np
    import pyarrow.parquet as pq
    from deltalake import DeltaTable

    embedders.local(lake, workers=2)
    contents = pq.read_table(embedders.files_of(lake)[0], columns=["image_id", "content"])
    looped = dict(
        zip(contents["image_id"].to_pylist(), embedders.embedder()(contents["content"].to_pylist()), strict=True)
    )

    rows = pq.read_table(DeltaTable(f"{lake}/tables/image_features").file_uris()[0]).to_pylist()
    for row in rows:
        ours, theirs = np.array(row["features"]), looped[row["image_id"]]
        assert ours @ theirs > 0.999 * np.linalg.norm(ours) * np.linalg.norm(theirs)
    assert len(rows) == 20


def test_every_contender_is_a_task():
    assert all(callable(getattr(embedders, contender.task)) for contender in CONTEST.contenders)
