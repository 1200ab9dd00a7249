"""Secrets planted in settings, and a search for them in everything that the processes of a run leave and show.

`python -m dlassets_tests.secrets FOLDER` runs every case in an empty folder and prints what was found, and how often.
"""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import click
import psutil

from dlassets_tests.mlflow_servers import mlflow_server
from dlassets_tests.programs import COMMAND
from dlassets_tests.servers import free_port

# Whatever is planted begins so, and goes on with letters and digits: so no writing of it in a URI hides it.
SIGN = re.compile(rb"Qz7f[A-Za-z0-9]+")
USER, PASSWORD = "Qz7fUser1", "Qz7fPass%2FQz7fWord%40"
CREDENTIALS = f"{USER}:{PASSWORD}"
TOKENS = "token=Qz7fToken1&sig=Qz7fSig1%3D&password=Qz7fQuery1"
MAIL = "from=lake@example.com&to=me@example.com"
REFUSED = "127.0.0.1:9"  # the port of discard, on which nothing listens

DLASSETS = COMMAND
JOB = (sys.executable, "-m", "dagster", "job", "execute", "-m", "dlassets.definitions", "-j")
TICK = (sys.executable, "-m", "dagster", "sensor", "preview", "-m", "dlassets.definitions")

Finding = tuple[str, str, str]


@dataclass(frozen=True)
class Case:
    """Commands on one lake with secrets in its settings. `stopped` are those that go on until they are told to end."""

    name: str
    settings: Mapping[str, str]
    commands: Sequence[Sequence[str]] = ()
    stopped: Sequence[Sequence[str]] = ()
    profile: str | None = None
    photos: bool = False
    variables: Mapping[str, str] = field(default_factory=dict)


def cases(mlflow: str) -> Iterator[Case]:
    """Yield the cases; `mlflow` is the host and port of a server that answers."""
    doctor, *others = ([*DLASSETS, *words.split()] for words in ("doctor", "history", "verify", "quarantine list"))
    look = [doctor, *others]
    ingest, train, score = ([*JOB, f"{name}_pipeline"] for name in ("ingest", "training", "scoring"))
    maintain = [*JOB, "maintenance_pipeline"]
    tick = [*TICK, "new_files_in_labeled"]
    watch, stream = [*DLASSETS, "watch"], [*DLASSETS, "stream"]
    servers = ("pages", "dagster", "mlflow")
    dev = [*DLASSETS, "dev", *(f"--{name}-port={free_port()}" for name in servers)]

    served = {"MLFLOW__TRACKING_URI": f"http://{CREDENTIALS}@{mlflow}"}
    addresses = {f"UI__{name.upper()}": f"http://{CREDENTIALS}@lake.example.com/{name}" for name in servers}
    small = {"TUNING__TRIALS": "2"}
    demo = [*DLASSETS, "demo", "--classes", "3", "--per-class", "24"]
    yield Case("served", served | small, [demo, *look, maintain, score, tick], [dev, stream])
    yield Case("addresses", addresses | small, [demo], [dev])
    sqlite = {"MLFLOW__TRACKING_URI": f"sqlite:///store.db?{TOKENS}"}
    told = f"json://{CREDENTIALS}@{REFUSED}/Qz7fToken1?{TOKENS} mailto://{CREDENTIALS}@{REFUSED}?{MAIL} nosuch://Qz7fToken1"
    alerts = [[*DLASSETS, "alerts", word] for word in ("test", "list", "send")]
    for name, urls in (("alerts", told.rpartition(" ")[0]), ("alerts-wrong", told)):
        given = {"ALERTS__URLS": urls, "ALERTS__GROUP_SECONDS": "0"}
        yield Case(name, given, [train, [*TICK, "alerts"], *alerts, doctor])
    yield _of_access(train, score, maintain, doctor, dev)
    yield Case("sqlite", sqlite | small, [train, *look, score], [dev], photos=True)

    down = {
        "http": f"http://{CREDENTIALS}@{REFUSED}/?{TOKENS}",
        "postgresql": f"postgresql://{CREDENTIALS}@{REFUSED}/mlflow?{TOKENS}",
        "mysql": f"mysql+pymysql://{CREDENTIALS}@{REFUSED}/mlflow",
        "sqlite-away": f"sqlite:////proc/nowhere/store.db?{TOKENS}",
    }
    for name, uri in down.items():
        automl = [*DLASSETS, "automl", "--minutes", "0.1"]
        commands = [train, automl, doctor, *([score, maintain] if name == "http" else [])]
        yield Case(f"down-{name}", {"MLFLOW__TRACKING_URI": uri} | small, commands, [stream, dev], photos=True)

    s3 = {"AWS_ENDPOINT_URL": f"http://{REFUSED}", "AWS_ALLOW_HTTP": "true", "AWS_REGION": "eu-west-1"}
    keys = {"AWS_ACCESS_KEY_ID": "none", "AWS_SECRET_ACCESS_KEY": "Qz7fStoreKey1"}
    zones = {
        "s3": f"s3://{CREDENTIALS}@bucket/zone",
        "abfss": f"abfss://{CREDENTIALS}@account.dfs.core.windows.net/zone?{TOKENS}",
        "file": f"file://{CREDENTIALS}@localhost/zone",
        "hdfs": f"hdfs://{CREDENTIALS}@{REFUSED}/zone",
        "ftp": f"ftp://{CREDENTIALS}@{REFUSED}/zone",
    }
    for name, uri in zones.items():
        given = {"LANDING": f"{{labeled: {{uri: '{uri}', labelled: true}}}}"}
        yield Case(f"zone-{name}", given, [ingest, tick, doctor], [watch, stream], variables=s3 | keys)
    for name in ("s3", "abfss", "file"):
        yield Case(f"root-{name}", {"ROOT": zones[name]}, [ingest, doctor, others[0]], [watch], variables=s3 | keys)
    for name, uri in {**zones, "https": f"https://{CREDENTIALS}@{REFUSED}/weights.pth?{TOKENS}"}.items():
        weights = {"FEATURES__WEIGHTS": uri if uri.endswith("pth") else f"{uri}/weights.pth"}
        yield Case(f"weights-{name}", weights, [train], variables=s3 | keys, photos=True)
    # Spark asks a server that does not answer for minutes; one that cannot be is said at once.
    for name, commands, stopped in (("remote", [], [ingest]), ("wrong", [ingest, doctor], [])):
        remote = f"sc://{REFUSED}/{'' if name == 'remote' else 'path'};token=Qz7fToken2;user_id={USER}"
        yield Case(f"spark-{name}", {"ENGINE": "spark", "SPARK__REMOTE": remote}, commands, stopped)
    wrong = {
        "port": f"postgresql://{CREDENTIALS}@db:99999/mlflow?{TOKENS}",
        "line": f"postgresql://{USER}:Qz7fPass\nQz7fWord@db/mlflow?{TOKENS}",
    }
    for name, uri in wrong.items():
        yield Case(f"wrong-{name}", {"MLFLOW__TRACKING_URI": uri}, [ingest, doctor], [dev])
    yield Case("wrong-name", {"MLFLOW": f"{{trackinguri: 'http://{CREDENTIALS}@db?{TOKENS}'}}"}, [ingest, doctor])
    yield Case("wrong-variable", {"MLFLOW": f"{{tracking_uri: 'http://{CREDENTIALS}@db', "}, [ingest, doctor])
    yield Case(
        "wrong-profile", {}, [ingest, doctor], profile=f"mlflow: {{tracking_uri: 'http://{CREDENTIALS}@db'\nroot: ["
    )
    origins = {"UI__ORIGINS": f"http://{CREDENTIALS}@lake.example.com, ftp://{CREDENTIALS}@other"}
    yield Case("wrong-origins", origins, [ingest, doctor], [dev])
    url = f"http://{CREDENTIALS}@{REFUSED}/photos.zip?{TOKENS}"
    yield Case("samples", {}, [[*DLASSETS, "samples", url, "photos"], [*DLASSETS, "demo", "--images", url]])


def _of_access(*commands: Sequence[str]) -> Case:
    """Return a whole loop with every secret that is no URI's: of the gate, of what is served, of Label Studio."""
    secrets = {
        "ACCESS__COOKIE_SECRET": "Qz7fCookie1" * 4,
        "ACCESS__PROXY_SECRET": "Qz7fProxy1" * 4,
        "ACCESS__MLFLOW_READER": "{user: reader, password: Qz7fReader1}",
        "ACCESS__MLFLOW_WRITER": "{user: writer, password: Qz7fWriter1}",
        "ACCESS__OIDC": f"{{issuer: 'http://{REFUSED}', client_id: gate, client_secret: Qz7fClient1}}",
        "SERVING__TOKEN": "Qz7fServing1Serving",
        "SERVING__WEBHOOK_SECRET": "Qz7fWebhook1Webhook",
        "LABELING__LABEL_STUDIO": f"{{url: 'http://{REFUSED}', token: Qz7fStudio1Studio}}",
    }
    login = {"ACCESS__URL": "http://127.0.0.1:9", "ACCESS__LOGIN": "oidc", "ACCESS__USERS_FILE": "users.yaml"}
    train, score, maintain, doctor, dev = commands
    gate = (sys.executable, "-m", "dlassets.web.gate")
    serve = [*DLASSETS, "serve", "--port", str(free_port())]
    wrong = [*DLASSETS, "users", "list"]
    return Case("access", secrets | login, [train, score, maintain, doctor, gate, wrong], [serve, dev], photos=True)


def found_in(case: Case, folder: Path, photos: Path, say: Callable[[str], None] = click.echo) -> list[Finding]:
    """Run a case in an empty folder; return each secret found, and where: one for each place and secret."""
    for name in ("home", "tmp", "work", "lake/landing/labeled", "lake/landing/unlabeled"):
        (folder / name).mkdir(parents=True)
    if case.photos:
        for photo in photos.glob("*/*"):
            place = folder / "lake/landing/labeled" / photo.parent.name / photo.name
            place.parent.mkdir(exist_ok=True)
            place.write_bytes(photo.read_bytes())
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("DLASSETS_", "DAGSTER_"))}
    environment |= {"DLASSETS_ROOT": str(folder / "lake"), "DAGSTER_HOME": str(folder / "home"), "COLUMNS": "4000"}
    environment |= {"TMPDIR": str(folder / "tmp"), "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", **case.variables}
    environment |= {f"DLASSETS_{name}": value for name, value in case.settings.items()}
    # Of a value that is no variable's, a profile has it.
    if case.profile is not None:
        (folder / "profile.yaml").write_text(case.profile)
        environment["DLASSETS_PROFILE"] = str(folder / "profile.yaml")
    found: list[Finding] = []
    for command in [*case.commands, *case.stopped]:
        words = " ".join(command[3 if command[1] == "-c" else 2 :])
        shown = f"{case.name}: {words}"
        seconds = 20 if command in case.stopped else None
        began = time.monotonic()
        with shown_command_lines() as lines:
            output = ran(command, folder / "work", environment, seconds)
        say(f"{time.monotonic() - began:6.1f} s {shown}")
        (folder / f"output-{len(list(folder.glob('output-*')))}.txt").write_bytes(shown.encode() + b"\n" + output)
        found += [(case.name, f"output of {words}", secret) for secret in signs(output)]
        given = {word.encode() for word in command}
        found += [
            (case.name, f"command line in {words}: {line[0]!r}", secret)
            for line in lines
            for secret in signs(b" ".join(word for word in line if word not in given))
        ]
    for file in sorted(folder.rglob("*")):
        if file.is_file() and file.name != "profile.yaml" and not file.name.startswith("output-"):
            where = str(file.relative_to(folder))
            found += [(case.name, where, secret) for secret in signs(where.encode() + contents(file))]
    return sorted(set(found))


def signs(text: bytes) -> set[str]:
    return {match.decode() for match in SIGN.findall(text)}


def contents(file: Path) -> bytes:
    """Return the bytes of a file, and of Parquet what they mean: they are packed."""
    import pyarrow.parquet as pq

    data = file.read_bytes()
    return data + str(pq.read_table(file).to_pylist()).encode() if data.startswith(b"PAR1") else data


def ran(command: Sequence[str], folder: Path, environment: Mapping[str, str], seconds: float | None) -> bytes:
    """Return everything that a command prints until it ends, of itself or because it is told to after so long."""
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        return process.communicate(timeout=seconds or 600)[0]
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
    try:
        return process.communicate(timeout=60)[0]
    except subprocess.TimeoutExpired:
        process.kill()
        return process.communicate()[0]


@contextmanager
def shown_command_lines() -> Iterator[set[tuple[bytes, ...]]]:
    """Give the command lines of all that this process starts meanwhile, and of what that starts."""
    seen: set[tuple[bytes, ...]] = set()
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.05):
            for child in psutil.Process().children(recursive=True):
                try:
                    seen.add(tuple(Path(f"/proc/{child.pid}/cmdline").read_bytes().split(b"\0")))
                except OSError:
                    continue

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield seen
    finally:
        ended.set()
        watcher.join()


def main(folder: Path, wanted: Sequence[str]) -> int:
    from dlassets.samples.generated import generate

    generate(folder / "photos", classes=3, per_class=24, seed=3)
    found: list[Finding] = []
    with mlflow_server(folder) as server:
        for case in cases(server.address):
            if not wanted or case.name in wanted:
                for finding in found_in(case, folder / case.name, folder / "photos"):
                    click.echo(" ".join(("FOUND", *finding)))
                    found.append(finding)
    click.echo(str(dict(Counter(name for name, *_ in found))))
    click.echo(f"{len(found)} secrets found")
    return 1 if found else 0


if __name__ == "__main__":
    place = Path(sys.argv[1])
    place.mkdir(parents=True)
    sys.exit(main(place, sys.argv[2:]))
