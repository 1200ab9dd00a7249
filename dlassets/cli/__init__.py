"""The `dlassets` command: what Dagster has no word for. Exit code 0: done; 1: a step failed; 2: used wrongly."""

from dlassets.cli.alerts import alerts
from dlassets.cli.annotators import annotators
from dlassets.cli.backups import backup
from dlassets.cli.classes import classes
from dlassets.cli.comparison import compare
from dlassets.cli.deployment import down, up
from dlassets.cli.doctor import doctor
from dlassets.cli.group import main
from dlassets.cli.jobs import jobs
from dlassets.cli.label_page import label
from dlassets.cli.labels import labels
from dlassets.cli.labelstudio import labelstudio
from dlassets.cli.loop import demo, dev, samples
from dlassets.cli.models import approve, models, reject, rollback
from dlassets.cli.quarantine import quarantine
from dlassets.cli.reproduce import reproduce
from dlassets.cli.serving import serve
from dlassets.cli.status import status
from dlassets.cli.tables import forget, history, restore
from dlassets.cli.training import automl
from dlassets.cli.upgrade import upgrade
from dlassets.cli.users import users
from dlassets.cli.verify import verify
from dlassets.cli.watch import stream, watch
from dlassets.cli.webhooks import webhooks

for command in (
    demo,
    samples,
    dev,
    up,
    down,
    jobs,
    watch,
    stream,
    serve,
    label,
    labelstudio,
    classes,
    labels,
    annotators,
    history,
    restore,
    backup,
    upgrade,
    forget,
    models,
    approve,
    reject,
    rollback,
    verify,
    status,
    doctor,
    quarantine,
    reproduce,
    compare,
    automl,
    alerts,
    webhooks,
    users,
):
    main.add_command(command)

__all__ = ["main"]
