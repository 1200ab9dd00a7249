"""What lies in a deployment's folder before its processes start: made once, or written anew each time."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from urllib.parse import urlsplit

import yaml

from dlassets.deployment.home import as_shell, write_private
from dlassets.deployment.label_studio import give_database, installed
from dlassets.deployment.plan import (
    DATABASE_PASSWORD,
    DATABASES,
    FIRST_USER,
    Plan,
    as_user_of_postgres,
    user_of_postgres,
)
from dlassets.deployment.process import rendered
from dlassets.errors import DlassetsError
from dlassets.resources.code_location import LOCATION
from dlassets.resources.instance import DEFAULT as DAGSTER_YAML
from dlassets.settings import ROLES
from dlassets.storage.files import write_whole
from dlassets.web.gate.users import changed, checked, with_new_password
from dlassets.web.ports import HOST

_SUPERUSER = "keeper"


def prepare(plan: Plan) -> None:
    """Have all of the folder be as the plan says. Raises DlassetsError where it cannot be."""
    home = plan.home
    for folder in (home.logs, home.environments, home.dagster, home.caddy, home.spark):
        folder.mkdir(parents=True, exist_ok=True)
    for folder in (home.environments, home.dagster, home.caddy, home.spark):
        folder.chmod(0o700)
    _postgres(plan)
    _bucket(plan)
    _dagster(plan)
    _mlflow_accounts(plan)
    _first_user(plan)
    if plan.options.labelstudio:
        give_database(installed(), home.labelstudio)
    write_whole(home.caddy / "Caddyfile", plan.caddyfile)
    processes = plan.processes
    for process in processes:
        write_private(home.environments / f"{process.name}.env", as_shell(process.environment))
    write_whole(home.config, yaml.safe_dump(rendered(processes, home.environments, home.logs, home.folder)))
    write_private(home.environment, as_shell(plan.everything))


def _postgres(plan: Plan) -> None:
    """Make the databases and their users; what is there whole is left alone."""
    data = plan.home.postgres
    if data.exists():
        return
    new = data.with_name(f".{data.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(mode=0o700)
    word = new / "word"
    write_private(word, plan.secrets["postgres"])
    if os.geteuid() == 0:
        for path in (new, word):
            os.chown(path, *user_of_postgres())
    cluster = new / "data"
    made = ["-U", _SUPERUSER, "-A", "scram-sha-256", f"--pwfile={word}", "--encoding=UTF8", "--locale=C"]
    _run(plan, "initdb", ["-D", str(cluster), *made], "")
    _run(plan, "postgres", ["--single", "-j", "-D", str(cluster), "postgres"], _sql(plan))
    cluster.rename(data)
    shutil.rmtree(new)


def _sql(plan: Plan) -> str:
    """Return what makes users and databases, each ended by an empty line, as the server without clients reads it."""
    users = {"dagster": "dagster_database", "mlflow": "mlflow_database"}
    lines = [f"CREATE ROLE {user} LOGIN PASSWORD '{plan.secrets[secret]}';" for user, secret in users.items()]
    lines += [f"CREATE DATABASE {name} OWNER {name.partition('_')[0]};" for name in DATABASES]
    return "".join(f"{line}\n\n" for line in lines)


def _run(plan: Plan, program: str, arguments: Sequence[str], text: str) -> None:
    command = [*as_user_of_postgres(), str(plan.programs.postgres / program), *arguments]
    done = subprocess.run(
        command, input=text, cwd=plan.home.postgres.parent, capture_output=True, text=True, check=False
    )
    if done.returncode != 0 or "ERROR" in done.stderr:
        raise DlassetsError(f"PostgreSQL's databases could not be made in {plan.home.postgres}: {done.stderr.strip()}")


def _bucket(plan: Plan) -> None:
    """Make the lake's bucket: a folder, to the S3 server."""
    (plan.home.buckets / urlsplit(plan.settings.root).netloc).mkdir(parents=True, exist_ok=True)


def _dagster(plan: Plan) -> None:
    """Write where Dagster keeps its runs. A dagster.yaml that is there is never touched but for this part."""
    file = plan.home.dagster / "dagster.yaml"
    said = yaml.safe_load((file if file.exists() else DAGSTER_YAML).read_text())
    place = {"hostname": HOST, "port": plan.ports["postgres"], "username": "dagster", "db_name": "dagster"}
    place |= {"password": {"env": DATABASE_PASSWORD}, "scheme": "postgresql+psycopg2"}
    storage = {"postgres": {"postgres_db": place}}
    if said.get("storage") != storage:
        text = file.read_text() if file.exists() else DAGSTER_YAML.read_text()
        head = text.split(_OURS)[0].rstrip("\n")
        write_whole(file, f"{head}\n\n{_OURS}\n{yaml.safe_dump({'storage': storage}, sort_keys=False)}")
    server = {"host": HOST, "port": plan.ports["code-server"], "location_name": LOCATION}
    write_whole(plan.home.workspace, yaml.safe_dump({"load_from": [{"grpc_server": server}]}))


_OURS = "# From here on written by `dlassets up`; what is above is yours to change."


def _mlflow_accounts(plan: Plan) -> None:
    """Write what MLflow's log-in goes by: nobody may do more than read but its admin, whom processes are."""
    lines = ["[mlflow]", "default_permission = READ", f"database_uri = {plan.database('mlflow_accounts')}"]
    lines += ["authorization_function = mlflow.server.auth:authenticate_request_basic_auth"]
    # Looked up again for each request, a password would cost half of its time.
    lines += ["auth_cache_ttl_seconds = 60"]
    write_private(plan.home.mlflow_accounts, "\n".join([*lines, ""]))


def _first_user(plan: Plan) -> None:
    """Have somebody be able to log in, where nobody is: with all roles, and a password in a file."""
    if plan.home.users.exists():
        return
    with changed(plan.home.users) as users:
        users[FIRST_USER] = with_new_password(checked(FIRST_USER, ROLES), plan.secrets["first_user"])
    write_private(plan.home.first_password, plan.secrets["first_user"] + "\n")
