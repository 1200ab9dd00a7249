"""Where everything of a lake lies, under one root. Every path rule stands here."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from dlassets.errors import SettingsError

_FILE = "file://"
_MISREAD = re.compile(r"[][\\^|?]|%[0-9A-Fa-f]{2}")


def is_uri(location: str) -> bool:
    return re.match(r"[a-z][a-z0-9+.-]+://", location) is not None


def is_local(location: str) -> bool:
    """Whether a place is a folder of this machine, by a plain path or a `file://` URI."""
    return location.startswith(_FILE) or not is_uri(location)


def refuse_misread(location: str) -> str:
    """Return the place of a table or lake. Raises SettingsError for one that Delta or MLflow would take for another.

    Their addresses read some signs otherwise: what is written to `100%25` would come to lie in `100%`.
    """
    if (found := _MISREAD.search(location)) is None:
        return location
    raise SettingsError(
        f"{location} cannot hold tables: its name has {found[0]!r}, by which Delta's and MLflow's addresses mean "
        "something else. Nothing was written. Rename the folder, or name another (a lake's is DLASSETS_ROOT)."
    )


def local_path(uri: str) -> Path:
    """Return the folder behind a plain path or `file://` URI. Raises SettingsError for any other storage."""
    if not is_local(uri):
        raise SettingsError(f"{uri} is not a local folder, and this needs one.")
    return Path(uri.removeprefix(_FILE))


@dataclass(frozen=True)
class Lake:
    """`root` is an absolute path or a URI; make one with `Lake.at`."""

    root: str

    @classmethod
    def at(cls, root: str) -> Lake:
        """Return the lake at a path or URI; a link to it, or a path from here, is the same lake.

        Raises SettingsError where its tables cannot lie there: see `refuse_misread`.
        """
        if is_uri(root) and not root.startswith(_FILE):
            return cls(refuse_misread(root.rstrip("/")))
        scheme = _FILE if root.startswith(_FILE) else ""
        return cls(refuse_misread(f"{scheme}{local_path(root).expanduser().resolve()}"))

    @classmethod
    def of_table(cls, uri: str, name: str) -> Lake:
        """Return the lake that has the table of this name at this URI."""
        return cls(uri.removesuffix(f"/tables/{name}"))

    def under(self, *parts: str) -> str:
        return "/".join((self.root, *parts))

    def within(self, location: str) -> str:
        """Return a place of this lake as its path from the root."""
        return location.removeprefix(f"{self.root}/")

    def table(self, name: str) -> str:
        return self.under("tables", name)

    def zone(self, uri: str) -> str:
        """A landing zone's folder: as it stands when absolute, else under `landing`."""
        return uri if is_uri(uri) or uri.startswith("/") else self.under("landing", uri)

    def checkpoint(self, stream: str) -> str:
        return self.under("checkpoints", stream)

    def listing(self, zone: str) -> str:
        """Where a landing zone's sensor leaves its listing for the run that it starts."""
        return f"{self.checkpoint(f'ingest-{zone}')}/listing.parquet"

    def events(self, zone: str) -> str:
        """Where the events of a landing zone are written: JSON lines, in any number of files."""
        return self.under("events", zone)

    @property
    def registry_hints(self) -> str:
        """What MLflow's webhooks brought lately: a file that makes the sensor of the registry look at once."""
        return self.under("hints", "mlflow.json")

    @property
    def answer_hints(self) -> str:
        """What Label Studio's webhook brought last: a file that makes the sensor of answers look at once."""
        return self.under("hints", "labelstudio.txt")

    @property
    def tensorboard(self) -> str:
        """Curves of trainings as TensorBoard reads them, a folder each."""
        return self.under("tensorboard")

    @property
    def files(self) -> str:
        """Photos' bytes, where they are kept as files of the lake."""
        return self.under("files")

    @property
    def backbones(self) -> str:
        """Weights of backbones, by their SHA-256, where they come from elsewhere than an installed package."""
        return self.under("backbones")

    @property
    def training(self) -> str:
        """Checkpoints of trainings that go on, a folder each."""
        return self.under("training")

    def edge(self, model: str, version: int) -> str:
        """Where the bundle of a registered model's version lies, by which devices answer."""
        return self.under("edge", f"{model}-{version}")

    @property
    def reports(self) -> str:
        """Pages and pictures that steps make for people."""
        return self.under("reports")

    @property
    def requests(self) -> str:
        return self.under("labeling", "requests")

    @property
    def answers(self) -> str:
        return self.under("labeling", "answers")

    @property
    def labelstudio(self) -> str:
        """The Label Studio of the lake's own: how to log in, its database and photos; and what others were shown."""
        return self.under("labelstudio")

    def job(self, name: str) -> str:
        """Where a pipeline of the lake's own is kept."""
        return f"{self.jobs}/{name}.json"

    @property
    def jobs(self) -> str:
        return self.under("jobs")

    @property
    def mlflow(self) -> str:
        return self.under("mlflow")

    @property
    def dagster_home(self) -> str:
        return self.under("dagster")
