"""Secrets of the settings are in nothing that a process says: what of them is known, and all ways that text leaves by.

What whole commands and pipelines leave is searched among the slow tests (`secrets` has the cases).
"""

import base64
import json
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import dagster as dg
import pytest
from pydantic import BaseModel, ValidationError

from dlassets.errors import DlassetsError, SettingsError
from dlassets.masking import has_secret, learn, masked, without_secrets
from dlassets.settings import LandingZone, MlflowSettings, Settings, load_settings
from dlassets_tests import secrets
from dlassets_tests.mlflow_servers import mlflow_server
from dlassets_tests.programs import dlassets
from dlassets_tests.secrets import CREDENTIALS, SIGN, TOKENS

URI = f"http://{CREDENTIALS}@127.0.0.1:9/x?{TOKENS}"


def signs(text: str) -> list[str]:
    return SIGN.findall(text.encode())


# ---- what is known


@pytest.mark.parametrize(
    "said",
    [
        "Qz7fPass%2FQz7fWord%40",
        "Qz7fPass/Qz7fWord@",
        "Qz7fPass/Qz7fWord%40",
        "FATAL: no password for user Qz7fUser1",
        "Qz7fToken1, Qz7fSig1=",
        "Authorization: Basic " + base64.b64encode(b"Qz7fUser1:Qz7fPass/Qz7fWord@").decode(),
    ],
)
def test_what_settings_hold_is_masked_however_it_is_written(said) -> None:
    assert masked(said) == said
    learn({"mlflow": {"tracking_uri": URI}})

    assert "…" in masked(said)
    assert not signs(masked(said))
    assert base64.b64encode(b"Qz7fUser1")[:8].decode() not in masked(said)


def test_quotes_and_slashes_of_a_password_are_known_as_json_and_python_write_them() -> None:
    password = "it's\\a\"secret"
    learn(f"postgresql://me:{password}@db/x")

    for said in (password, json.dumps([password]), repr([password]), f"postgresql://me:{password}@db"):
        assert "secret" not in masked(said)


@pytest.mark.parametrize(
    ("name", "value", "secret"),
    [
        ("spark.hadoop.fs.s3a.secret.key", "AbCdEf12", "AbCdEf12"),
        ("spark.hadoop.fs.azure.account.key.lake.dfs.core.windows.net", "AbCdEf12", "AbCdEf12"),
        ("spark.ssl.keyPassword", "AbCdEf12", "AbCdEf12"),
        ("remote", "sc://host:15002/;token=AbCdEf12;user_id=me", "AbCdEf12"),
        ("repositories", "https://a.example.com/m2,https://me:AbCdEf12@b.example.com/m2", "AbCdEf12"),
        ("tracking_uri", "mysql+pymysql://me:AbCd/Ef12@db:3306/mlflow", "AbCd/Ef12"),
        ("tracking_uri", "postgresql://me:p@ss:word1@db:5432/mlflow", "p@ss:word1"),
    ],
)
def test_secrets_are_found_by_the_settings_name_and_in_any_form_of_uri(name, value, secret) -> None:
    learn(value, name)

    assert masked(f"It was {secret}.") == "It was …."


def test_what_a_uri_says_in_plain_words_as_well_is_no_secret_outside_of_it() -> None:
    learn("postgresql://mlflow:mlflow@db/mlflow")
    learn("postgresql://postgres:abc@mlflow-db/mlflow")
    learn("http://127.0.0.1:3000/people/me@work")

    assert masked("mlflow.db at 3000/people, abc") == "mlflow.db at 3000/people, abc"
    assert masked('for user "postgres" of postgres') == 'for user "…" of postgres'
    assert masked("postgresql://mlflow:mlflow@db/mlflow") == "postgresql://…@db/mlflow"


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("at postgresql://me:a/b@db/x, and", "at postgresql://…@db/x, and"),
        ("https://x.example.com/?a=1&sig=abc%3D&token=d;x", "https://x.example.com/?a=1&sig=…&token=…;x"),
        ("sc://h:15002/;token=abc;user_id=me", "sc://h:15002/;token=…;user_id=…"),
        ("http://127.0.0.1:3000/people/me@work?monkey=1", "http://127.0.0.1:3000/people/me@work?monkey=1"),
    ],
)
def test_uris_that_no_setting_has_are_masked_by_their_form(said, shown) -> None:
    assert masked(said) == shown


def test_long_lines_are_masked_in_time() -> None:
    assert len(masked("x://a:b" * 100_000)) == 700_000


def test_an_address_is_told_without_user_and_query() -> None:
    assert without_secrets(URI) == "http://127.0.0.1:9/x"
    assert has_secret(URI)
    assert not has_secret(without_secrets(URI))


# ---- settings

# Texts that may hold one: those of servers that are told it, and what is no URI at all.
_OF_SPARK = {"spark.master", "spark.remote", "spark.conf"}
_OTHERS = {"mlflow.tracking_uri", "alerts.urls", "automation.heartbeat_url"}
TOLD = {*_OTHERS, *_OF_SPARK, *(f"compute.classes.{name}" for name in _OF_SPARK)}
NO_URIS = {
    "mlflow.experiment",
    "serving.token",
    "serving.webhook_secret",
    "registry.actor",
    "access.cookie_secret",
    "access.proxy_secret",
    *(f"landing.{name}" for name in ("pattern", "junk", "lists", "photo_column", "label_column")),
}


def text_settings(section: type[BaseModel] = Settings, parents: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the path of each setting that takes a text, some or a mapping of them."""
    for name, field in section.model_fields.items():
        sections = [kind for kind in (field.annotation, *get_args(field.annotation)) if isinstance(kind, type)]
        below = [kind for kind in sections if issubclass(kind, BaseModel)]
        if below:
            yield from text_settings(below[0], (*parents, name))
        elif "str" in repr(field.annotation):
            yield (*parents, name)


def planted(path: tuple[str, ...]) -> dict[str, Any]:
    """Return settings that have the URI in one place."""
    section, name = path[:-1], path[-1]
    field = (LandingZone if "landing" in section else _section(section)).model_fields[name]
    kind = repr(field.annotation)
    value: Any = {"spark.x": URI} if "dict" in kind else [URI] if "tuple" in kind else URI
    tree: Any = {name: value}
    if "landing" in section:
        return {"landing": {"labeled": {"uri": "x", "labelled": True} | tree}}
    for parent in reversed(section):
        tree = {parent: {"own": {"place": "spark"} | tree} if parent == "classes" else tree}
    return dict(tree)


def _section(path: tuple[str, ...]) -> Any:
    found: Any = Settings
    for name in path:
        found = found.model_fields[name].annotation
        if get_origin(found) is dict:
            found = get_args(found)[1]
        found = next((kind for kind in get_args(found) if kind is not type(None)), found)
    return found


def test_each_setting_that_takes_a_text_refuses_a_uri_with_secrets_or_has_them_masked() -> None:
    taken, refusals = set(), []
    for path in text_settings():
        try:
            settings = load_settings({}, **planted(path))
        except SettingsError as error:
            refusals += traceback.format_exception(error)
            continue
        taken.add(".".join(path))
        assert not signs(f"{settings} {settings!r}")
        assert not signs(masked("Qz7fPass/Qz7fWord@ of Qz7fUser1, Qz7fToken1"))

    assert not signs("".join(refusals))
    assert taken == TOLD | NO_URIS


@pytest.mark.parametrize(
    "uri",
    [
        "s3://AKIA12345:key@bucket/lake",
        "s3a://AKIA12345@bucket/lake",
        "abfss://container:key@account.dfs.core.windows.net/lake",
        "abfss://container@account.dfs.core.windows.net/lake?sv=1&sig=abc",
        "file://me:key@localhost/lake",
    ],
)
def test_a_place_of_files_with_a_secret_is_refused_with_what_to_do(uri) -> None:
    zone = {"labeled": {"uri": uri, "labelled": True}}
    for changes in ({"root": uri}, {"landing": zone}, {"features": {"weights": f"{uri}/x.pth"}}):
        with pytest.raises(SettingsError, match="AWS_ACCESS_KEY_ID"):
            load_settings({}, **changes)


@pytest.mark.parametrize("uri", ["abfss://container@account.dfs.core.windows.net/lake", "hdfs://me@name:8020/lake"])
def test_a_place_that_has_none_is_taken(uri) -> None:
    assert Settings(root=uri).root == uri


def test_pydantics_own_error_shows_no_value() -> None:
    with pytest.raises(ValidationError) as caught:
        MlflowSettings(tracking_uri=URI.replace(":9/", ":99999/"))

    assert not signs(str(caught.value))


# ---- the ways out of a process

PROGRAM = """
import logging, sys, threading, warnings

before = sys.stderr
logging.basicConfig(stream=before)
logging.getLogger("to.a.file").addHandler(logging.FileHandler(sys.argv[1]))

from dlassets.settings import load_settings
uri = load_settings().mlflow.tracking_uri
password = "Qz7fPass/Qz7fWord@"

def fail():
    try:
        raise OSError(5, "no answer", uri)
    except OSError as error:
        raise RuntimeError({"password": password}) from error

print("printed", uri, password)
sys.stdout.writelines([f"written {uri}\\n"])
warnings.warn(f"warned {uri}")
logging.getLogger("to.a.file").error("logged %s", {"uri": uri})
try:
    fail()
except RuntimeError:
    logging.getLogger("to.a.file").exception("excepted")
thread = threading.Thread(target=fail)
thread.start()
thread.join()
fail()
"""


def test_whatever_a_process_prints_logs_or_dies_of_has_none(tmp_path: Path) -> None:
    program = (sys.executable, "-c", PROGRAM, str(tmp_path / "log"))
    done = dlassets(command=program, DLASSETS_MLFLOW__TRACKING_URI=URI)
    said, logged = done.stdout + done.stderr, (tmp_path / "log").read_text()

    for word in ("printed", "written", "warned", "logged", "excepted"):
        assert word in said
    assert said.count("RuntimeError: {'password': '…'}") == 3
    assert "logged {'uri': 'http://…@127.0.0.1:9/x?token=…" in logged
    assert "RuntimeError: {'password': '…'}" in logged
    assert not signs(said + logged)


def test_secrets_of_the_environment_for_storage_are_masked_too() -> None:
    proxy = {"HTTPS_PROXY": "http://me:AbCd5678@proxy:3128"}
    load_settings({"AWS_SECRET_ACCESS_KEY": "AbCd/1234+x", "AWS_WEB_IDENTITY_TOKEN_FILE": "/var/run/token"} | proxy)

    assert masked("AbCd/1234+x or AbCd%2F1234%2Bx, by /var/run/token") == "… or …, by /var/run/token"
    assert masked("the proxy takes no AbCd5678") == "the proxy takes no …"


def test_dagster_writes_down_none_of_an_errors_causes_or_of_what_is_logged(tmp_path: Path) -> None:
    import dlassets.definitions  # noqa: F401 - it has Dagster mask them

    Settings(mlflow={"tracking_uri": URI})

    def connect() -> None:
        raise ConnectionError(f"no answer of Qz7fUser1 with Qz7fPass/Qz7fWord@ at {URI}")

    @dg.op
    def fails(context: dg.OpExecutionContext) -> None:
        context.log.warning("logged %s", URI)
        try:
            connect()
        except ConnectionError as error:
            raise DlassetsError("It cannot be reached.") from error

    @dg.job
    def a_job() -> None:
        fails()

    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        result = a_job.execute_in_process(instance=instance, raise_on_error=False)
        logs = instance.all_logs(result.run_id)
    said = "".join(map(str, logs))

    assert "ConnectionError: no answer of … with … at http://…@127.0.0.1:9/x?token=…" in said
    assert "logged http://…@127.0.0.1:9" in said
    assert [file for file in tmp_path.rglob("*") if file.is_file() and SIGN.search(file.read_bytes())] == []


# ---- whole commands and pipelines

# One of a kind; `python -m dlassets_tests.secrets FOLDER` takes all, which is the better part of an hour.
TRIED = (
    "served",
    "sqlite",
    "alerts-wrong",
    "access",
    "down-http",
    "down-sqlite-away",
    "zone-s3",
    "spark-wrong",
    "wrong-profile",
    "samples",
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as server:
        yield server.address


@pytest.mark.slow
@pytest.mark.parametrize("name", TRIED)
def test_nothing_of_a_run_has_a_planted_secret(name, server, photos, tmp_path) -> None:
    (case,) = (case for case in secrets.cases(server) if case.name == name)

    assert secrets.found_in(case, tmp_path, photos) == []
