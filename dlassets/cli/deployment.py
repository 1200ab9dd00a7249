"""`dlassets up` and `down`: everything that a team shares, on this machine."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from dlassets.deployment.home import DEFAULT, Home

if TYPE_CHECKING:
    from dlassets.deployment.plan import EngineName, Plan, SparkKind

_home = click.option(
    "--home",
    type=click.Path(path_type=Path, file_okay=False),
    default=DEFAULT,
    show_default=True,
    help="The folder of the deployment: databases, buckets, passwords, logs.",
)


@click.command()
@_home
@click.option("--profile", default="shared", show_default=True, help="A profile, or a YAML file of your own.")
@click.option(
    "--engine",
    type=click.Choice(["local", "spark"]),
    default="local",
    show_default=True,
    help="Which engine runs and commands are on.",
)
@click.option(
    "--spark",
    type=click.Choice(["cluster", "connect", "none"]),
    default="cluster",
    show_default=True,
    help="A standalone cluster of two workers, a Spark Connect server, or no Spark at all.",
)
@click.option("--labelstudio", is_flag=True, help="Start Label Studio too, and ask people there as well.")
@click.option(
    "--timeout", type=click.FloatRange(min=1), default=300, show_default=True, help="Seconds until all is healthy."
)
def up(home: Path, profile: str, engine: str, spark: str, *, labelstudio: bool, timeout: float) -> None:
    """Start all that a team shares under a supervisor, and return once it is healthy.

    PostgreSQL, an S3 server, Spark, MLflow, Dagster, the pages, the served champion, and a proxy with a log-in in
    front of them, all on this machine alone. `dlassets down` stops them.
    """
    from dlassets.deployment import deployment
    from dlassets.deployment.plan import Options, path_of

    options = Options(path_of(profile), cast("EngineName", engine), cast("SparkKind", spark), labelstudio)
    began = time.monotonic()
    click.echo(f"Starting what is in {home}; logs are in {home / 'logs'}.")
    plan = deployment.up(home, options, click.echo, timeout)
    if plan is None:
        click.echo("It is up already. `dlassets down` stops it; with other options it is started again after that.")
        return
    click.echo(f"All is healthy after {time.monotonic() - began:.0f} s.")
    _announce(plan)


@click.command()
@_home
def down(home: Path) -> None:
    """Stop what `dlassets up` has started, each process before those that it needs. What it keeps stays."""
    from dlassets.deployment import deployment

    click.echo("Stopping." if deployment.down(home) else "Nothing is up.")


def _announce(plan: Plan) -> None:
    from dlassets.deployment.plan import FIRST_USER

    home: Home = plan.home
    click.echo(f"Start here   {plan.url}")
    click.echo(f"Dagster      {plan.url}/dagster")
    click.echo(f"MLflow       {plan.url}/mlflow")
    click.echo(f"Log in as {FIRST_USER}; the first password is in {home.first_password}. Others: dlassets users add.")
    click.echo(f"Commands work on it in a shell that has read {home.environment}:  . {home.environment}")
