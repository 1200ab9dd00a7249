"""Where a URI leads, what Spark is told of object storage, and what its errors tell a user to do."""

from pathlib import Path

import pytest

from dlassets.engines.spark_session import spark_config
from dlassets.errors import DlassetsError
from dlassets.settings import SparkSettings
from dlassets.storage.stores import (
    HADOOP,
    advice,
    concerns_one_file,
    endpoint,
    filesystem_of,
    is_object_storage,
    on_s3,
    s3a_config,
)

HTTP = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9000", "AWS_ALLOW_HTTP": "true", "AWS_REGION": "eu-west-1"}
SECRETS = {"AWS_ACCESS_KEY_ID": "known", "AWS_SECRET_ACCESS_KEY": "hush"}


@pytest.mark.parametrize(
    ("uri", "kind", "path"),
    [
        ("/lake/a b%20#c?", "local", "/lake/a b%20#c?"),
        ("file:///lake/100%/", "local", "/lake/100%"),
        ("s3://bucket/a b%20#c?d=e", "s3", "bucket/a b%20#c?d=e"),
        ("s3a://bucket/zone/", "s3", "bucket/zone"),
        ("s3://bucket", "s3", "bucket"),
    ],
)
def test_a_uri_leads_to_its_path_as_it_is_written(uri, kind, path, monkeypatch) -> None:
    monkeypatch.setenv("AWS_REGION", "eu-west-1")

    filesystem, found = filesystem_of(uri)

    assert (filesystem.type_name, found) == (kind, path)


def test_object_storage_is_told_from_folders() -> None:
    assert [on_s3(uri) for uri in ("s3://b", "s3a://b/c", "gs://b", "/s3://b")] == [True, True, False, False]
    assert all(map(is_object_storage, ("s3://b", "abfss://c@a/x", "gs://b")))
    assert not any(map(is_object_storage, ("file:///x", "/x")))


def test_plain_http_has_to_be_meant() -> None:
    assert endpoint(HTTP) == "http://127.0.0.1:9000"
    assert endpoint({"AWS_ENDPOINT_URL": "https://minio.example.com"}) == "https://minio.example.com"
    assert endpoint({}) is None
    with pytest.raises(DlassetsError, match="set AWS_ALLOW_HTTP=true"):
        endpoint({"AWS_ENDPOINT_URL": "http://127.0.0.1:9000"})
    with pytest.raises(DlassetsError, match=r"AWS_ENDPOINT_URL=minio:9000 is no address"):
        endpoint({"AWS_ENDPOINT_URL": "minio:9000"})


def test_spark_is_told_of_the_same_store_and_of_no_secret() -> None:
    config = s3a_config(["/lake", "s3://bucket/zone"], HTTP | SECRETS)

    assert config["spark.hadoop.fs.s3a.endpoint"] == "http://127.0.0.1:9000"
    assert config["spark.hadoop.fs.s3a.path.style.access"] == "true"
    assert config["spark.hadoop.fs.s3a.endpoint.region"] == "eu-west-1"
    assert not any(secret in value for value in config.values() for secret in SECRETS.values())


def test_amazon_s_own_store_needs_no_endpoint() -> None:
    config = s3a_config(["s3a://bucket"], {"AWS_DEFAULT_REGION": "us-west-2"})

    assert config["spark.hadoop.fs.s3a.endpoint.region"] == "us-west-2"
    assert not {"spark.hadoop.fs.s3a.endpoint", "spark.hadoop.fs.s3a.path.style.access"} & config.keys()


def test_only_a_lake_with_a_place_on_s3_fetches_its_jars(monkeypatch) -> None:
    for name, value in HTTP.items():
        monkeypatch.setenv(name, value)
    without = spark_config(SparkSettings(), ["/lake", "file:///zone"])
    added = {"spark.jars.excludes": "org.example:large", "spark.jars.packages": "org.example:mine:1"}
    config = spark_config(SparkSettings(conf=added), ["/lake", "s3a://bucket/zone"])

    assert without == spark_config(SparkSettings())
    assert config["spark.jars.excludes"] == "software.amazon.awssdk:bundle,org.example:large"
    packages = config["spark.jars.packages"].split(",")
    assert packages[0] == without["spark.jars.packages"]
    assert f"org.apache.hadoop:hadoop-aws:{HADOOP}" in packages
    assert packages[-1] == "org.example:mine:1"


@pytest.mark.parametrize(
    ("master", "patient"),
    [
        ("local", "local[1,4]"),
        ("local[*]", "local[*,4]"),
        ("local[3]", "local[3,4]"),
        ("local[3,2]", "local[3,2]"),
        ("spark://head:7077", "spark://head:7077"),
    ],
)
def test_a_task_that_reads_from_object_storage_is_tried_again(master, patient, monkeypatch) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    settings = SparkSettings(master=master)

    assert spark_config(settings, ["s3a://bucket"])["spark.master"] == patient
    assert spark_config(settings, ["/lake"])["spark.master"] == master


def test_s3a_is_of_the_hadoop_that_pyspark_carries() -> None:
    import pyspark

    assert (Path(pyspark.__file__).parent / "jars" / f"hadoop-client-api-{HADOOP}.jar").is_file()


@pytest.mark.parametrize(
    ("said", "remedy"),
    [
        ("AWS Error NO_SUCH_BUCKET during ListObjectsV2 operation: gone", "create photos"),
        ("403 Forbidden\n<Error><Code>InvalidAccessKeyId</Code><Message>No.</Message></Error>", "AWS_ACCESS_KEY_ID"),
        ("PUT http://169.254.169.254/latest/api/token failed", "AWS_ACCESS_KEY_ID"),
        ("AWS Error NETWORK_CONNECTION: curlCode: 7, Couldn't connect to server", "AWS_ENDPOINT_URL"),
        ("HTTP error\x1b[31m↳\x1b[0m URL scheme is not allowed", "AWS_ALLOW_HTTP=true"),
        ("AWS Error SLOW_DOWN during GetObject operation", "run again"),
    ],
)
def test_what_a_store_says_comes_with_what_to_do(said, remedy) -> None:
    told = advice("s3://photos/zone", OSError(said))

    assert remedy in told
    assert "\n" not in told
    assert "\x1b" not in told


def test_a_file_s_own_trouble_is_told_from_the_storage_s() -> None:
    def failing(path: Path) -> OSError:
        with pytest.raises(OSError) as raised:  # noqa: PT011 - whatever the system says of a folder read as a file
            path.read_bytes()
        return raised.value

    assert concerns_one_file(failing(Path(__file__).parent))
    assert concerns_one_file(OSError("AWS Error ACCESS_DENIED during GetObject operation: Access Denied"))
    assert not concerns_one_file(OSError("AWS Error SLOW_DOWN during GetObject operation: Please reduce"))
    assert not concerns_one_file(OSError("AWS Error NETWORK_CONNECTION during GetObject operation"))
