"""What a deployment is made of: each process with its command, its part of the settings and secrets, and its health."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from dlassets.deployment.home import Home, outside
from dlassets.deployment.process import Probe, Process, Until
from dlassets.deployment.programs import Programs
from dlassets.deployment.spark import LOCAL, connect_server, master, worker
from dlassets.errors import SettingsError
from dlassets.resources.code_location import LOCATION
from dlassets.resources.instance import HOME_VARIABLE
from dlassets.settings import PROFILE_VARIABLE, Settings, load_settings
from dlassets.storage.lake import Lake
from dlassets.web.gate.caddy import PATHS, SECRET_VARIABLE, Proxy, Upstreams, addresses, caddyfile
from dlassets.web.gate.policy import DAGSTER, LABEL_STUDIO, MLFLOW
from dlassets.web.ports import HOST

SparkKind = Literal["cluster", "connect", "none"]
EngineName = Literal["local", "spark"]
REGION = "us-east-1"
WORKERS = ("spark-worker-1", "spark-worker-2")
# Users of databases and of MLflow's log-in.
DATABASES = ("dagster", "mlflow", "mlflow_accounts")
MLFLOW_WRITER, MLFLOW_READER, FIRST_USER = "dlassets", "reader", "admin"
DATABASE_PASSWORD = "DAGSTER_POSTGRES_PASSWORD"  # noqa: S105 - the variable's name
# Read when numpy is imported: products of small matrices are no faster with more threads, of which there are enough.
_ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in ("OPENBLAS", "OMP", "MKL")}
_POSTGRES_STOPS_BY = 2  # SIGINT: who is connected is not waited for


@dataclass(frozen=True)
class Options:
    """What `dlassets up` was told: the profile's name or file, the engine of runs, Spark, and whether Label Studio."""

    profile: str = "shared"
    engine: EngineName = "local"
    spark: SparkKind = "cluster"
    labelstudio: bool = False

    def __post_init__(self) -> None:
        if self.engine == "spark" and self.spark == "none":
            raise SettingsError("The engine spark needs a Spark: say --spark cluster or --spark connect.")

    @property
    def services(self) -> tuple[str, ...]:
        """The names of what listens."""
        spark = {"cluster": ("spark", "spark-pages", *WORKERS), "connect": ("spark",), "none": ()}[self.spark]
        studio = ("labelstudio",) if self.labelstudio else ()
        servers = ("postgres", "s3", "mlflow", "code-server", "dagster", "dagster-operate", "pages", "serve")
        return (*servers, "gate", "proxy", *spark, *studio)


@dataclass(frozen=True)
class Plan:
    """A deployment: where it lies, what it was told, and what was chosen for it."""

    home: Home
    options: Options
    programs: Programs
    ports: Mapping[str, int]
    secrets: Mapping[str, str]

    @property
    def url(self) -> str:
        return f"https://localhost:{self.ports['proxy']}"

    @property
    def settings(self) -> Settings:
        """The settings of its processes. Raises SettingsError where the lake's root is no bucket of its S3 server."""
        settings = load_settings({**outside(), **self.common})
        if urlsplit(settings.root).scheme not in {"s3", "s3a"}:
            raise SettingsError(
                f"The root of a shared deployment is a bucket of its S3 server, such as s3a://dlassets/lake, and the "
                f"profile {self.options.profile} says {settings.root}."
            )
        return settings

    @property
    def common(self) -> dict[str, str]:
        """What each of its own processes is told, and no secret."""
        shared = {
            PROFILE_VARIABLE: self.options.profile,
            "DLASSETS_ENGINE": self.options.engine,
            "DLASSETS_MLFLOW__TRACKING_URI": f"http://{HOST}:{self.ports['mlflow']}{PATHS[MLFLOW]}",
            "DLASSETS_ACCESS__USERS_FILE": str(self.home.users),
            HOME_VARIABLE: str(self.home.dagster),
            "AWS_ENDPOINT_URL": f"http://{HOST}:{self.ports['s3']}",
            "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": REGION,
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }
        if self.options.spark == "cluster":
            shared |= {
                **LOCAL,
                "DLASSETS_SPARK__MASTER": f"spark://{HOST}:{self.ports['spark']}",
                # One on each worker. A session that says nothing would take all that there is, and the next one wait.
                "DLASSETS_SPARK__EXECUTORS": str(len(WORKERS)),
                "DLASSETS_SPARK__EXECUTOR_CORES": "1",
                "DLASSETS_SPARK__EXECUTOR_MEMORY": "1500m",
            }
        elif self.options.spark == "connect":
            shared["DLASSETS_SPARK__REMOTE"] = f"sc://{HOST}:{self.ports['spark']}"
        return {**shared, **addresses(self.url)}

    @property
    def bucket(self) -> dict[str, str]:
        return {
            "AWS_ACCESS_KEY_ID": self.secrets["s3_access_key"],
            "AWS_SECRET_ACCESS_KEY": self.secrets["s3_secret_key"],
        }

    @property
    def everything(self) -> dict[str, str]:
        """What a command or a run of Dagster is told to work on it: the lake, MLflow and Dagster's database."""
        told = {
            **self.common,
            **self.bucket,
            "MLFLOW_TRACKING_USERNAME": MLFLOW_WRITER,
            "MLFLOW_TRACKING_PASSWORD": self.secrets["mlflow_writer"],
            DATABASE_PASSWORD: self.secrets["dagster_database"],
        }
        return {**told, **self._studio}

    @property
    def _studio(self) -> dict[str, str]:
        """Where Label Studio is, for who asks people there and for who lets them in."""
        if not self.options.labelstudio:
            return {}
        return {
            "DLASSETS_LABELING__SERVICE": "folder,labelstudio",
            "DLASSETS_LABELING__LABEL_STUDIO__URL": f"http://{HOST}:{self.ports['labelstudio']}",
            "DLASSETS_LABELING__LABEL_STUDIO__TOKEN": self.secrets["labelstudio_token"],
        }

    def database(self, name: str) -> str:
        """Return the address of a database, with its password, as MLflow takes it."""
        user = "mlflow" if name.startswith("mlflow") else name
        password = self.secrets[f"{user}_database"]
        return f"postgresql+psycopg2://{user}:{password}@{HOST}:{self.ports['postgres']}/{name}"

    @property
    def caddyfile(self) -> str:
        at = {name: f"{HOST}:{port}" for name, port in self.ports.items()}
        upstreams = Upstreams(
            gate=at["gate"],
            pages=at["pages"],
            dagster=at["dagster-operate"],
            dagster_read_only=at["dagster"],
            mlflow=at["mlflow"],
            served=at["serve"],
            label_studio=at.get("labelstudio"),
        )
        return caddyfile(Proxy(self.url, upstreams, self.home.caddy))

    @property
    def processes(self) -> list[Process]:
        """All of them, each after those that it needs."""
        return [
            self._postgres,
            self._s3,
            *self._spark,
            self._dagster_tables,
            self._mlflow,
            self._mlflow_reader,
            self._code_server,
            self._daemon,
            self._webserver("dagster", "--read-only"),
            self._webserver("dagster-operate"),
            self._pages,
            self._serve,
            *([self._label_studio] if self.options.labelstudio else []),
            self._gate,
            self._caddy,
        ]

    @property
    def _postgres(self) -> Process:
        folder, port = self.programs.postgres, self.ports["postgres"]
        run = [str(folder / "postgres"), "-D", str(self.home.postgres), "-h", HOST, "-p", str(port)]
        return Process(
            "postgres",
            [*as_user_of_postgres(), *run, "-c", "unix_socket_directories="],
            probe=Probe(command=[str(folder / "pg_isready"), "--quiet", "--host", HOST, "--port", str(port)]),
            signal=_POSTGRES_STOPS_BY,
        )

    @property
    def _s3(self) -> Process:
        port = self.ports["s3"]
        run = [str(self.programs.s3), "--port", f"{HOST}:{port}", "--region", REGION, "--quiet", "--health", "/health"]
        keys = {
            "ROOT_ACCESS_KEY": self.secrets["s3_access_key"],
            "ROOT_SECRET_KEY": self.secrets["s3_secret_key"],
        }
        return Process("s3", [*run, "posix", str(self.home.buckets)], keys, probe=Probe(port, "/health"))

    @property
    def _spark(self) -> list[Process]:
        if self.options.spark == "none":
            return []
        environment = {**self.common, **self.bucket}
        if self.options.spark == "connect":
            return [connect_server(self.ports["spark"], environment)]
        port = self.ports["spark"]
        workers = [worker(name, self.ports[name], port, self.home.spark / name, environment) for name in WORKERS]
        return [master(port, self.ports["spark-pages"]), *workers]

    @property
    def _dagster_tables(self) -> Process:
        return Process(
            "dagster-tables",
            _python("dlassets.deployment.dagster_tables"),
            self.everything,
            {"postgres": Until.HEALTHY},
        )

    @property
    def _mlflow(self) -> Process:
        artifacts = f"{Lake.at(self.settings.root).mlflow}/artifacts".replace("s3a://", "s3://", 1)
        run = _python("dlassets.web.mlflow_server", "server", "--app-name", "dlassets", "--workers", "1")
        run += ["--static-prefix", PATHS[MLFLOW], "--serve-artifacts", "--artifacts-destination", artifacts]
        own = {
            "MLFLOW_BACKEND_STORE_URI": self.database("mlflow"),
            "MLFLOW_AUTH_CONFIG_PATH": str(self.home.mlflow_accounts),
            "MLFLOW_AUTH_ADMIN_USERNAME": MLFLOW_WRITER,
            "MLFLOW_AUTH_ADMIN_PASSWORD": self.secrets["mlflow_writer"],
            "MLFLOW_FLASK_SERVER_SECRET_KEY": self.secrets["mlflow_flask"],
            # Its job runner would be seven more processes for features that nothing here uses.
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        }
        return Process(
            "mlflow",
            [*run, "--host", HOST, "--port", str(self.ports["mlflow"])],
            {**self.common, **self.bucket, **own},
            {"postgres": Until.HEALTHY, "s3": Until.HEALTHY},
            Probe(self.ports["mlflow"], f"{PATHS[MLFLOW]}/health"),
            whole_group=True,
        )

    @property
    def _mlflow_reader(self) -> Process:
        environment = {**self.everything, **self._accounts}
        return Process(
            "mlflow-reader", _python("dlassets.deployment.mlflow_reader"), environment, {"mlflow": Until.HEALTHY}
        )

    @property
    def _accounts(self) -> dict[str, str]:
        accounts = {"READER": (MLFLOW_READER, "mlflow_reader"), "WRITER": (MLFLOW_WRITER, "mlflow_writer")}
        return {
            variable: value
            for account, (user, secret) in accounts.items()
            for variable, value in (
                (f"DLASSETS_ACCESS__MLFLOW_{account}__USER", user),
                (f"DLASSETS_ACCESS__MLFLOW_{account}__PASSWORD", self.secrets[secret]),
            )
        }

    @property
    def _code_server(self) -> Process:
        run = _python("dagster", "api", "grpc", "--module-name", "dlassets.definitions", "--location-name", LOCATION)
        # What runs need is stopped after it, and may begin beside it.
        spark = {process.name: Until.BEGUN for process in self._spark}
        return Process(
            "code-server",
            [*run, "--host", HOST, "--port", str(self.ports["code-server"])],
            self.everything,
            {"dagster-tables": Until.DONE, "s3": Until.HEALTHY, "mlflow": Until.BEGUN, **spark},
            Probe(self.ports["code-server"]),
            grace_seconds=30,
        )

    @property
    def _daemon(self) -> Process:
        return Process(
            "daemon",
            _python("dagster._daemon", "run", "--workspace", str(self.home.workspace)),
            self.everything,
            {"code-server": Until.HEALTHY},
            ready_line="Instance is configured with the following daemons",
        )

    def _webserver(self, name: str, *options: str) -> Process:
        run = _python("dlassets.web.dagster_webserver", "--workspace", str(self.home.workspace), *options)
        run += ["--path-prefix", PATHS[DAGSTER], "--host", HOST, "--port", str(self.ports[name])]
        probe = Probe(self.ports[name], f"{PATHS[DAGSTER]}/server_info")
        return Process(name, run, self._behind_the_proxy, {"code-server": Until.HEALTHY}, probe)

    @property
    def _behind_the_proxy(self) -> dict[str, str]:
        return {**self.everything, SECRET_VARIABLE: self.secrets["proxy"]}

    @property
    def _pages(self) -> Process:
        port = self.ports["pages"]
        run = _python("dlassets.web.pages", "--host", HOST, "--port", str(port))
        waits_for = {"mlflow": Until.HEALTHY, "dagster-tables": Until.DONE}
        return Process("pages", run, self._behind_the_proxy, waits_for, Probe(port, "/health"))

    @property
    def _serve(self) -> Process:
        port = self.ports["serve"]
        run = _python("dlassets.web.serving", f"--host={HOST}", f"--port={port}")
        environment = {**_ONE_THREAD, **self._behind_the_proxy}
        return Process("serve", run, environment, {"mlflow": Until.HEALTHY}, Probe(port, "/health"))

    @property
    def _label_studio(self) -> Process:
        from dlassets.deployment.label_studio import process

        at = f"{self.url}{PATHS[LABEL_STUDIO]}"
        return process(self.home.labelstudio, self.ports["labelstudio"], self.secrets, at)

    @property
    def _gate(self) -> Process:
        port = self.ports["gate"]
        environment = {
            **self.common,
            **self._accounts,
            **self._studio,
            "DLASSETS_ACCESS__COOKIE_SECRET": self.secrets["cookie"],
            SECRET_VARIABLE: self.secrets["proxy"],
        }
        run = _python("dlassets.web.gate", "--host", HOST, "--port", str(port))
        return Process("gate", run, environment, {"mlflow-reader": Until.DONE}, Probe(port, "/health"))

    @property
    def _caddy(self) -> Process:
        behind = ["gate", "pages", "dagster", "dagster-operate", "mlflow", "serve"]
        behind += ["labelstudio"] if self.options.labelstudio else []
        config = str(self.home.caddy / "Caddyfile")
        return Process(
            "caddy",
            [str(self.programs.proxy), "run", "--config", config, "--adapter", "caddyfile"],
            {SECRET_VARIABLE: self.secrets["proxy"], "HOME": str(self.home.caddy)},
            dict.fromkeys(behind, Until.HEALTHY),
            Probe(self.ports["proxy"]),
        )


def as_user_of_postgres() -> list[str]:
    """Return what a command of PostgreSQL begins with: it refuses to run as root."""
    if os.geteuid() != 0:
        return []
    user, group = user_of_postgres()
    return ["setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups"]


def user_of_postgres() -> tuple[int, int]:
    """Return the user and group that PostgreSQL runs as in root's place: Debian's postgres, or else nobody."""
    import pwd

    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return entry.pw_uid, entry.pw_gid
    raise SettingsError("PostgreSQL refuses to run as root, and there is neither a user postgres nor nobody.")


def _python(*arguments: str) -> list[str]:
    return [sys.executable, "-m", *arguments]


def path_of(profile: str) -> str:
    """Return a profile as any process finds it: a name, or the whole path of a file."""
    return str(Path(profile).expanduser().resolve()) if profile.endswith((".yaml", ".yml")) else profile
