import pytest
from rich.console import Console

from benchmarks.contest import LIMIT, Outcome, Speed
from benchmarks.training import embedders
from benchmarks.training.embedding import CONTEST, LOCAL, SPARK, TORCH


def speed(who, rate, limit=None):
    made = Speed(who)
    made.add({"images": 100, "wall_s": 100 / rate, "cpu_s": 0.4, "first_s": 3.0}, limit)
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
