"""One typed tree of settings, from a profile and `DLASSETS_*` variables.

Order, later wins: the defaults below, the profile (`DLASSETS_PROFILE`: a name in `profiles/` or a YAML file), then the
variables. `DLASSETS_TRAINING__EPOCHS=20` sets `training.epochs`. Anything unknown is an error that names the nearest
setting. Nothing here reads a table, a model or a photo.
"""

from __future__ import annotations

import datetime as dt
import difflib
import fnmatch
import functools
import os
import re
import stat
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args
from urllib.parse import quote, urlencode, urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic_core import ErrorDetails

from dlassets.errors import SettingsError
from dlassets.masking import has_secret, learn, learn_variables, masked, may_be_secret

PREFIX = "DLASSETS_"
PROFILE_VARIABLE = PREFIX + "PROFILE"
PROFILES = Path(__file__).resolve().parent / "profiles"
DEFAULT_PROFILE = "local"
# How a folder's name says its class: 012.name, 12_name or 12.
LABEL_RULE = r"^(?:(?P<label>\d+)(?=[._ -]|$)[._ -]*)?(?P<name>.*)$"


# Lists of labels beside photos.
LISTS = ("*.csv", "*.tsv", "*.json", "*.jsonl", "*.parquet")
# What storage, systems and programs leave beside photos, besides names that begin with a dot or an underscore.
JUNK = (
    # Network storage: thumbnails, recycle bins, snapshots.
    *("@eaDir", "@__thumb", "@tmp", "#recycle", "@Recycle", "#snapshot", "@Recently-Snapshot", "lost+found"),
    *("Network Trash Folder", "Temporary Items"),
    # Windows, and programs for photos on it.
    *("Thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "$RECYCLE.BIN", "RECYCLER", "RECYCLED"),
    *("System Volume Information", "~$*", "Picasa.ini", "ZbThumbnail.info"),
    # Editors, browsers and copiers: what is not finished, or was put aside.
    *("*~", "#*#", "*.swp", "*.swo", "*.tmp", "*.temp", "*.part", "*.partial", "*.filepart", "*.crdownload"),
    *("*.download", "*.opdownload", "*.aria2", "*.!ut", "*.!qB"),
)


# What is listened on there is reached from this machine alone.
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})

# More of anything is a slip of the hand, which would otherwise end as an overflow far from here.
_MOST, _CENTURY_HOURS = 2**53, 876_600
Count = Annotated[int, Field(gt=0, lt=2**31)]
Minutes = Annotated[float, Field(gt=0, le=_CENTURY_HOURS * 60)]
Seconds = Annotated[float, Field(gt=0, le=_CENTURY_HOURS * 3600)]
Text = Annotated[str, Field(min_length=1)]
_STORES = re.compile(r"(?:https?|sqlite|(?:postgres(?:ql)?|mysql|mssql)(?:\+\w+)?)://|(?:databricks|uc)", re.ASCII)
_NO_USERS = re.compile(r"(?:s3a?|https?)://[^/]*@")
_HOSTS = re.compile(r"(?:k8s://)?([a-z][a-z0-9+.-]*)://(?:[^/]*@)?([^/?#;]*)")


def _tells_all(uri: str) -> str:
    """Return a URI that is written down wherever it is of use. Raises ValueError for one that nobody should read."""
    if has_secret(uri) or _NO_USERS.match(uri):
        raise ValueError(
            "it holds a user, password or token, which tables, logs and pages would show to everybody: leave that out. "
            "Storage is told by its own variables (AWS_ACCESS_KEY_ID, …), and browsers ask who sits there"
        )
    return uri


def _of_a_store(uri: str) -> str:
    """Return the URI of a store of MLflow's. Raises ValueError for what MLflow takes for a folder, or for nothing."""
    if _STORES.match(uri) is None:
        raise ValueError(
            "it begins as no store of MLflow's does: name a server (http://127.0.0.1:5000, https://…) or a database "
            "(sqlite:////path/to/mlflow.db, postgresql://…), or unset it for a store of the lake's own"
        )
    # By the driver that the extra `cluster` brings: SQLAlchemy itself would look for another.
    return re.sub(r"\Apostgres(?:ql)?://", "postgresql+psycopg2://", uri)


# Where files lie, or where people find a page.
Place = Annotated[str, Field(min_length=1), AfterValidator(_tells_all), AfterValidator(os.path.expanduser)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _is_learned(cls, given: Any) -> Any:
        """Have what is secret in it masked from now on, refused or not; secrets of files are read before that."""
        if isinstance(given, Mapping):
            given = {name: _read(name, value) if _is_in_a_file(name, value) else value for name, value in given.items()}
        learn(given)
        return given

    def __repr__(self) -> str:
        return masked(super().__repr__())

    def __str__(self) -> str:
        return masked(super().__str__())

    @field_validator("*")
    @classmethod
    def _can_be(cls, value: Any) -> Any:
        """Refuse what no setting can be: characters that no name has, ports and sizes that there are not."""
        if isinstance(value, str):
            if any(unicodedata.category(character) in {"Cc", "Cs"} for character in value):
                raise ValueError("it holds a control character, such as a line break")
            for port in _ports(value):
                if not port.isdecimal() or not 0 < int(port) <= 65_535:  # noqa: PLR2004 - sixteen bits
                    raise ValueError(f"{port!r} is no port: one is a number from 1 to 65535")
        elif isinstance(value, (int, float)) and abs(value) > _MOST:
            raise ValueError(f"it may be at most {_MOST}")
        return value


def _is_in_a_file(name: str, value: object) -> bool:
    """Whether what may be secret is said by the name of a file: {file: /run/secrets/token}."""
    return isinstance(value, Mapping) and set(value) == {"file"} and may_be_secret(str(name))


def _read(name: str, value: Mapping[str, Any]) -> str:
    """Return the secret in a file, without the line break at its end. Raises ValueError for what anybody may read."""
    path = Path(str(value["file"])).expanduser()
    try:
        if path.stat().st_mode & stat.S_IROTH:
            raise ValueError(f"anybody on this machine may read {path}, which holds {name}: chmod o-rwx {path}")
        secret = path.read_text().removesuffix("\n").removesuffix("\r")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{name} cannot be read from {path}: {error}") from error
    if not secret:
        raise ValueError(f"{path}, which is to hold {name}, is empty")
    return secret


def _ports(uri: str) -> list[str]:
    """Return the ports of a URI's hosts; a URI that Databricks reads has names there."""
    if not (match := _HOSTS.match(uri)) or match[1] == "databricks":
        return []
    return [host.rpartition(":")[2] for host in match[2].split(",") if ":" in re.sub(r"\[.*\]", "", host)]


def _plain_names(names: Iterable[str]) -> None:
    """Raise ValueError for a name that could be anything but a table's or a column's."""
    for name in names:
        if not re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII):
            raise ValueError(f"{name!r} is no name of a table or column: use letters, digits and _ alone")


class LandingZone(_Section):
    """A place where photos arrive."""

    uri: Place = Field(description="Where the photos lie; relative to <root>/landing unless it is absolute or a URI.")
    labelled: bool = Field(description="Whether labels come with the photos.")
    pattern: str = Field(
        "", description="Regular expression a file's path must contain to be taken in; any file, where it is empty."
    )
    label_rule: str = Field(
        LABEL_RULE,
        description="Regular expression that the parent folder must match, with groups `label` (a number) and `name`.",
    )
    label_from: Literal["folder", "path", "list"] = Field(
        "folder",
        description="Whether label_rule must match the parent folder, be found in the path in the zone, or match the "
        "labels in lists beside the photos.",
    )
    lists: tuple[Text, ...] = Field(
        LISTS, description="Files that are lists of labels, by name or by path in the zone; * and ? are any text."
    )
    photo_column: str = Field("", description="A list's column of photos; a usual name (file_name, …) where empty.")
    label_column: str = Field("", description="A list's column of labels; a usual name (label, class, …) where empty.")
    discovery: Literal["listing", "events"] = Field(
        "listing",
        description="How new files are found: by listing all of them, or by the events in <root>/events/<name>.",
    )
    links: tuple[Place, ...] = Field(
        (),
        description="Folders outside of the zone that links in it may lead to; / allows any. Within it they may lead.",
    )
    max_files: int = Field(10_000_000, gt=0, description="No more files of the zone are looked at in one listing.")
    junk: tuple[Text, ...] = Field(
        JUNK,
        description="Names of files and folders that are left out, besides hidden ones; * and ? are any text.",
    )

    @property
    def has_lists(self) -> bool:
        """Whether lists beside the photos say their labels."""
        return self.labelled and self.label_from == "list"

    def is_list(self, path: str) -> bool:
        """Whether `path`, within the zone, is that of a list of labels."""
        if not self.has_lists:
            return False
        name = path.rpartition("/")[2]
        return any(fnmatch.fnmatch((path if "/" in kind else name).lower(), kind.lower()) for kind in self.lists)

    def takes_in(self, path: str) -> bool:
        """Whether `path`, within the zone, is one that its pattern takes in, or a list."""
        # Most zones have none, and a listing asks for each of its files.
        return not self.pattern or re.search(self.pattern, path) is not None or self.is_list(path)

    @field_validator("pattern", "label_rule")
    @classmethod
    def _compiles(cls, value: str) -> str:
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from error
        return value

    @model_validator(mode="after")
    def _has_label_group(self) -> LandingZone:
        if not {"label", "name"} & re.compile(self.label_rule).groupindex.keys():
            raise ValueError("label_rule needs a group named `label`, such as (?P<label>\\d+), or `name`")
        if self.label_from == "path" and self.label_rule == LABEL_RULE:
            raise ValueError("label_from: path needs a label_rule, such as '/(?P<name>[a-z]+)\\.\\d+\\.jpg$'")
        return self


Capture = Literal["taken_at", "camera", "latitude", "longitude"]
# Formats of photos, by what their bytes are, whatever their names end in.
Format = Literal["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "HEIC", "AVIF"]
FORMATS: tuple[Format, ...] = get_args(Format)


class IngestSettings(_Section):
    files_per_batch: Count = Field(10_000, description="A micro-batch ends at this many files,")
    bytes_per_batch: int = Field(
        128 * 2**20,
        gt=0,
        lt=2**31,
        description="or at this many bytes, whichever comes first; times the cores of a cluster.",
    )
    max_file_bytes: int = Field(100 * 2**20, gt=0, lt=2**31, description="A larger file is quarantined as too_large.")
    max_pixels: Count = Field(
        100_000_000,
        description="A larger picture is quarantined before it is decoded; more than 178,956,970 are so in any case.",
    )
    formats: tuple[Format, ...] = Field(
        FORMATS,
        min_length=1,
        description="The formats that are taken in, where their decoders are installed; in the variable, with commas "
        "between them.",
    )
    storage: Literal["table", "files", "landing"] = Field(
        "table", description="Where photos' bytes are kept: in raw_images, as files of the lake, or where they arrived."
    )
    capture: tuple[Capture, ...] = Field((), description="What cameras wrote down that raw_images has a column for.")
    reconcile_minutes: Minutes = Field(
        60, description="With events, all files are listed as well when that was so long ago."
    )

    @field_validator("formats", mode="before")
    @classmethod
    def _is_listed(cls, value: Any) -> Any:
        return [part.strip().upper() for part in value.split(",")] if isinstance(value, str) else value


class ArchiveSettings(_Section):
    """How much a zip or tar of photos may unpack to, by what its headers declare; more of it is refused as a whole."""

    max_members: int = Field(2_000_000, gt=0, description="Files and folders, with those of archives within it.")
    max_bytes: int = Field(256 * 2**30, gt=0, description="Bytes unpacked, with those of archives within it.")
    max_ratio: float = Field(
        100, ge=1, description="Bytes unpacked for each of an archive's own, where they are more than 64 MiB."
    )
    max_depth: int = Field(3, ge=1, description="Archives in each other: 1 looks into none that lies in another.")


class LabelSettings(_Section):
    conflicts: Literal["drop", "first", "ask"] = Field(
        "drop", description="Equal bytes with different labels: learn from none, take the oldest label, or ask people."
    )
    ignore_case: bool = Field(False, description="Whether classes whose names differ in case alone are one.")


CAMERA = "camera"


class SplitSettings(_Section):
    """Shares of the three sides; what train and validation leave is the test split."""

    train: float = Field(0.70, gt=0, lt=1)
    validation: float = Field(0.15, gt=0, lt=1)
    look_alike_bits: int | None = Field(
        4,
        ge=0,
        le=16,
        description="Photos whose perceptual hashes (64 bits) differ in no more share a side; null: none.",
    )
    group_by: str | None = Field(
        None,
        description="What else shares a side: a pattern on the path, whose first group is the same for those that "
        "belong together, or camera.",
    )

    @field_validator("group_by")
    @classmethod
    def _has_a_group(cls, value: str | None) -> str | None:
        if value in (None, CAMERA):
            return value
        try:
            groups = re.compile(value).groups
        except re.error as error:
            raise ValueError(f"neither {CAMERA} nor a regular expression: {error}") from error
        if not groups:
            raise ValueError(f"must be {CAMERA}, or a regular expression with a group, such as /(lot-[0-9]+)/")
        return value

    @model_validator(mode="after")
    def _leaves_a_test_split(self) -> SplitSettings:
        if self.train + self.validation >= 1:
            raise ValueError("train + validation must leave something for the test split")
        return self


_JAVA_MEMORY = r"^[1-9]\d*[kmgtKMGT]?[bB]?$"


class ExecutorSpan(_Section):
    """Executors that come and go with the work: Spark's dynamic allocation."""

    at_least: Count = 1
    at_most: Count

    @model_validator(mode="after")
    def _is_a_span(self) -> ExecutorSpan:
        if self.at_least > self.at_most:
            raise ValueError("at_least must be no more than at_most")
        return self


class SparkSettings(_Section):
    master: str = Field("local[*]", description="local[*], spark://… or k8s://…")
    remote: str | None = Field(None, description="A Spark Connect server, sc://host:port; wins over master.")
    driver_memory: str = Field("4g", pattern=_JAVA_MEMORY)
    executors: Count | ExecutorSpan | None = Field(
        None, description="How many a session takes of its cluster, or between how many; unset: all that it gives."
    )
    executor_cores: Count | None = Field(None, description="Cores of each; unset: as the cluster has it.")
    executor_memory: str | None = Field(None, pattern=_JAVA_MEMORY)
    executor_gpus: Count | None = Field(None, description="GPUs of each, one a task; unset: none.")
    only_writer: bool = Field(
        False, description="On S3: one Spark driver alone writes the lake, so it may do so without a condition."
    )
    conf: dict[str, str] = Field(default_factory=dict, description="Any further Spark setting.")

    @property
    def is_local(self) -> bool:
        """Whether this machine does the work, with no cluster to take executors of."""
        return self.remote is None and self.master.startswith("local")

    @property
    def most_cores(self) -> int | None:
        """How many cores a session of a cluster comes to have at most, None where it says nothing of them."""
        if self.executors is None or self.executor_cores is None:
            return None
        most = self.executors.at_most if isinstance(self.executors, ExecutorSpan) else self.executors
        return most * self.executor_cores

    def changed_by(self, other: SparkSettings) -> SparkSettings:
        """Return these settings with what the other ones say in their place; both `conf` count."""
        said = {name: getattr(other, name) for name in other.model_fields_set}
        return self.model_copy(update={**said, "conf": {**self.conf, **other.conf}})

    def check_executors(self, where: str) -> None:
        """Raise ValueError for executors that there cannot be; `where` names these settings."""
        said = [name for name in _EXECUTORS if getattr(self, name) is not None]
        if said and self.is_local:
            raise ValueError(f"{where}.{said[0]} is of a cluster, and {where}.master is {self.master}: name a cluster")
        if said and self.remote is not None:
            raise ValueError(
                f"{where}.{said[0]} is of no use with {where}.remote: the server has its executors already"
            )
        if self.executors is not None and self.executor_cores is None:
            raise ValueError(f"{where}.executors needs {where}.executor_cores: a session is to take no more than that")


_EXECUTORS = ("executors", "executor_cores", "executor_memory", "executor_gpus")


class FeatureSettings(_Section):
    backbone: str = Field(
        "efficientnet_lite0",
        pattern=r"^[\w.:@/+-]+$",
        description="What turns a photo into numbers: efficientnet_lite0 to _lite2, timm/… or torchvision/….",
    )
    weights: Place = Field(
        "package",
        description="Its weights: those of its installed package, none (random ones), a file or URI "
        "(.safetensors, .pth), or a registered model's (models:/<name>/<version>).",
    )
    side: int = Field(224, ge=32, le=1024, description="It is shown a photo's middle square, as so many pixels a side.")
    crop: float = Field(1.0, gt=0, le=1, description="How much of the shorter side that square is.")
    flips: bool = Field(
        False, description="Whether the numbers are the mean of the photo's and of its mirror image's: twice the time."
    )
    square_root: bool = Field(
        True, description="Whether the square root of each number is taken: large ones then count less."
    )
    runtime: Literal["auto", "openvino", "torch"] = Field(
        "auto", description="auto: OpenVINO where it runs, else torch."
    )


class PixelSettings(_Section):
    """Training on pixels: what `training.trainable` other than head takes."""

    epochs: Count = Field(12, description="At most; the learning rate falls to nothing over so many.")
    batch_size: Count = Field(32, description="Photos a step, of all processes together.")
    learning_rate: float = Field(1e-4, gt=0, description="Of the backbone's blocks, after the warm-up.")
    head_learning_rate: float = Field(3e-4, gt=0, description="Of the head.")
    weight_decay: float = Field(0.05, ge=0)
    warmup_epochs: float = Field(1, ge=0, description="Over these the learning rate rises from nothing.")
    augmentation: Literal["none", "light", "strong"] = Field(
        "light", description="none; light: crops and flips; strong: colours, turns and erased patches as well."
    )
    mixed_precision: bool = Field(True, description="bfloat16 where the device computes it faster.")
    clip_norm: float = Field(1.0, gt=0, description="The gradient's norm is cut to this.")
    checkpoint_steps: Count = Field(50, description="A killed training goes on from at most so many steps before.")
    workers: Count | None = Field(None, description="Threads that decode, a process; unset: one a core.")


class ComputeSettings(_Section):
    """Where a model is trained. It changes how long that takes, and not what is learned."""

    processes: Count = Field(1, description="On Spark, its TorchDistributor starts them; else this machine does.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: a GPU where there is one.")
    attempts: Count = Field(
        3, description="How often a training is started, the first time included, whose processes are killed."
    )


class TrainingSettings(_Section):
    trainable: Literal["head", "last_n", "all"] = Field(
        "head", description="head: a linear one, on cached features. last_n, all: so many blocks as well, on pixels."
    )
    last_n: Count = Field(1, description="Blocks of the backbone, counted from its end, that last_n trains.")
    epochs: Count = Field(50, description="Of a head, at most; training stops when validation stops improving.")
    patience: Count = Field(5, description="Epochs without a better validation loss before it stops.")
    min_improvement: float = Field(1e-4, ge=0, description="What counts as a better validation loss.")
    l2: float | None = Field(
        None, ge=0, description="Penalty on the squares of the head's weights; unset: the one that validation prefers."
    )
    balance: Literal["none", "weights", "sampling"] = Field(
        "none", description="How rare classes come to count as much: by the loss, or by being drawn more often."
    )
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="The share of a label that all classes are given.")
    seed: int = Field(0, ge=0, lt=2**31)
    pixels: PixelSettings = PixelSettings()
    compute: ComputeSettings = ComputeSettings()


class Span(_Section):
    """The numbers that tuning may choose a setting from."""

    low: float
    high: float
    log: bool = Field(False, description="Whether small numbers are tried as often as large ones.")

    @model_validator(mode="after")
    def _is_a_span(self) -> Span:
        if not self.low < self.high:
            raise ValueError("low must be less than high")
        if self.log and self.low <= 0:
            raise ValueError("on a log scale low must be greater than 0")
        return self


Choices = Annotated[tuple[bool | int | float | str, ...], Field(min_length=1)]

_SPACE: dict[str, Span | tuple[bool | int | float | str, ...]] = {
    "label_smoothing": Span(low=0.0, high=0.2),
    "balance": ("none", "weights"),
}


class TuningSettings(_Section):
    trials: Count = Field(30, description="Trials a study has in all; one that was cut short goes on.")
    minutes: Minutes = Field(30.0, description="No trial starts after so long.")
    processes: Count = Field(2, description="Trials at once.")
    pruning: bool = Field(True, description="Whether a trial that does worse than most at the same epoch is ended.")
    space: dict[str, Span | Choices] = Field(
        _SPACE, description="What is tried, by setting of `training` (pixels.learning_rate, say): a span, or a list."
    )
    use: bool = Field(True, description="Whether trained_model takes the best trial's settings, where there are any.")


class RegistrySettings(_Section):
    model_name: str = Field("image_classifier", max_length=200)
    gate_confidence: float = Field(
        0.95, gt=0, le=1, description="How sure it must be that a challenger is worse than the champion to refuse it."
    )
    tolerance: float = Field(
        0.05, ge=0, lt=1, description="How far below the champion's accuracy a challenger may be, shown or not."
    )
    approval: Literal["automatic", "person"] = Field(
        "automatic", description="Who promotes a version that passed its validation; `dlassets approve` is a person's."
    )
    self_approval: bool = Field(False, description="Whether who trained a version may approve it.")
    outside_moves: Literal["follow", "put_back"] | None = Field(
        None,
        description="What becomes of the alias champion where it was moved by hand in MLflow; unset: it is followed "
        "with approval `automatic`, and put back with `person`.",
    )
    actor: str | None = Field(
        None,
        max_length=200,
        description="Who is written down as having done it; unset: the user of Dagster's run, else of this process.",
    )

    @property
    def puts_back(self) -> bool:
        """Whether a version counts as champion only where `model_events` says so."""
        return (self.outside_moves or ("put_back" if self.approval == "person" else "follow")) == "put_back"

    @field_validator("model_name")
    @classmethod
    def _is_plain(cls, value: str) -> str:
        # It stands in MLflow's filters and URIs, in SQL and in the names of files.
        if not re.fullmatch(r"\w([\w .-]*\w)?", value):
            raise ValueError("use letters, digits, _, and between them spaces, . and - alone")
        return value


ValidationCheck = Literal[
    "loads_in_a_clean_process",
    "has_signature_and_example",
    "not_worse_than_champion",
    "accurate",
    "no_class_or_slice_worse",
    "calibrated",
    "agrees_with_champion",
    "robust",
    "fast",
    "small",
]


class ValidationSettings(_Section):
    blocking: tuple[ValidationCheck, ...] = Field(
        ("loads_in_a_clean_process", "has_signature_and_example", "not_worse_than_champion"),
        description="The checks that a version must pass to be promoted; the others warn.",
    )
    accuracy: float = Field(0.0, ge=0, le=1, description="The least share of test photos that it is right on.")
    level: float = Field(
        0.05, gt=0, lt=1, description="How likely a class or slice may be called worse by chance, of all there are."
    )
    calibration_error: float = Field(
        0.1, ge=0, le=1, description="How far confidence and accuracy may be apart, where chance does not do as much."
    )
    agreement: float = Field(
        0.5, ge=0, le=1, description="The least share of photos that it says what the champion says of."
    )
    sample: int = Field(64, ge=0, le=200, description="Test photos that are blurred, darkened and so on; 0: none.")
    accuracy_lost: float = Field(
        0.25, ge=0, le=1, description="The most accuracy that any of that may cost, where chance does not do as much."
    )
    milliseconds: float = Field(500.0, gt=0, description="How long one photo may take, from its pixels to the answer.")
    megabytes: float = Field(500.0, gt=0, description="How large the package may be.")
    load_seconds: Seconds = Field(120.0, description="How long a clean process may take to load it and answer.")
    memory_gigabytes: float = Field(16.0, gt=0, le=2**20, description="How much address space that process may have.")


class ScoringSettings(_Section):
    top_k: Count = 5
    labeled: bool = Field(True, description="Whether photos that have a label are scored too.")
    challengers: bool = Field(
        False, description="Whether versions that may become champion score the same photos beside it."
    )


LabelingServiceName = Literal["folder", "labelstudio"]


class LabelStudioSettings(_Section):
    """A Label Studio that is there; without, the lake's own, which `make labelstudio` starts on this machine."""

    url: Annotated[Place, Field(pattern=r"^https?://[^/?#]")] | None = Field(
        None, description="Where it answers, such as http://127.0.0.1:8080; unset: the lake's own."
    )
    token: Annotated[str, Field(min_length=16)] | None = Field(None, description="A token of a user there.")
    # It takes no other title.
    project: Annotated[str, Field(min_length=3, max_length=50, pattern=r"^\S(.*\S)?$")] = Field(
        "dlassets", description="The title of the project there, which is made where it is not."
    )

    hint_url: Annotated[Place, Field(pattern=r"^https?://[^/?#]")] | None = Field(
        None,
        description="Where `dlassets serve` or `dlassets label` answers as Label Studio reaches it, which says at "
        "once there that somebody has answered; unset: it says nothing.",
    )

    @model_validator(mode="after")
    def _names_both(self) -> LabelStudioSettings:
        if (self.url is None) != (self.token is None):
            raise ValueError("set url and token, or neither: then it is the lake's own (make labelstudio)")
        return self


StrategyName = Literal["threshold", "least_confidence", "margin", "entropy", "diversity", "hybrid", "random"]


class LabelingSettings(_Section):
    service: tuple[LabelingServiceName, ...] = Field(
        ("folder",), min_length=1, description="Where people are asked; in the variable, with commas between several."
    )
    label_studio: LabelStudioSettings = LabelStudioSettings()
    threshold: float = Field(0.95, ge=0, le=1, description="Predictions less confident than this go to people.")
    share: float = Field(1.0, gt=0, le=1, description="The share of those that is sent.")
    strategy: StrategyName = Field("margin", description="In which order people are asked about them.")
    audit_share: float = Field(
        0.0, ge=0, le=1, description="The share of all photos without a label that people are asked about as well."
    )
    batch_limit: Count | None = Field(
        500, description="At most this many wait for an answer at once; null: any number."
    )
    run_limit: Count | None = Field(None, description="At most this many are sent in one run; null: any number.")
    day_limit: Count | None = Field(None, description="At most this many are sent on one day (UTC); null: any number.")
    expire_days: Annotated[int, Field(gt=0, le=_CENTURY_HOURS // 24)] | None = Field(
        None, description="Requests that nobody has answered in so many days are withdrawn; null: none are."
    )
    priorities: dict[str, Annotated[int, Field(ge=-1000, le=1000)]] = Field(
        default_factory=dict, description="By landing zone, 0 where none is named: photos of a higher one go first."
    )
    batch_size: Count = Field(200, description="A batch is filled up to this many photos,")
    batch_hours: int = Field(24, ge=0, le=_CENTURY_HOURS, description="or until it is so old; then another begins.")
    relabel_limit: int = Field(
        0, ge=0, lt=2**31, description="At most this many of them have a label that looks wrong, the worst first."
    )
    overlap_share: float = Field(0.0, ge=0, le=1, description="The share of what is asked that several people answer,")
    overlap: int = Field(2, ge=2, le=100, description="each of them by so many.")
    most_answers: int = Field(
        3, ge=2, le=100, description="Where they do not agree, further people are asked, up to so many."
    )
    consensus_quality: float = Field(
        0.3, ge=0, le=1, description="What several people say is disputed where its quality is lower than this."
    )
    honeypot_share: float = Field(
        0.0, ge=0, le=0.5, description="The share of what is asked whose answer is known, to see how good people are."
    )
    retrain_after: Count | None = Field(
        None, description="So many new labels of people start a training; unset: none do."
    )
    cost_per_hour: float | None = Field(
        None, ge=0, description="What an hour of a person's work costs, in whatever you count; unset: nothing is said."
    )

    @field_validator("service", mode="before")
    @classmethod
    def _may_be_one_text(cls, value: Any) -> Any:
        return [part.strip() for part in value.split(",")] if isinstance(value, str) else value

    @model_validator(mode="after")
    def _names_each_once(self) -> LabelingSettings:
        if len(set(self.service)) < len(self.service):
            raise ValueError("service names one twice")
        return self

    @model_validator(mode="after")
    def _asks_no_fewer_in_the_end(self) -> LabelingSettings:
        if self.most_answers < self.overlap:
            raise ValueError(f"most_answers ({self.most_answers}) is below overlap ({self.overlap})")
        return self


class ServingSettings(_Section):
    """`dlassets serve`: the champion, asked over HTTP."""

    host: str = Field(
        "127.0.0.1", pattern=r"^[\w.:-]+$", description="The address of this machine that is listened on."
    )
    port: int = Field(8000, ge=0, le=65_535, description="0: any free one.")
    token: Annotated[str, Field(min_length=16)] | None = Field(
        None,
        description="What requests must bring, as `Authorization: Bearer …`; unset: this machine alone is answered.",
    )
    max_bytes: int = Field(32 * 2**20, gt=0, lt=2**31, description="A request with more bytes is refused (413).")
    max_pixels: Count = Field(50_000_000, description="A larger picture is refused before it is decoded.")
    max_images: Count = Field(64, description="More photos in one request are refused (413).")
    queue: Count = Field(256, description="No more photos wait at once: further requests are told to come back (429).")
    body_seconds: Seconds = Field(20, description="A request that is not here whole by then is refused (408).")
    processes: Count | None = Field(
        None, description="How many look at photos, some 200 MB of memory each; unset: one a processor."
    )
    top_k: Count = 5
    champion_seconds: Seconds = Field(5, description="How often MLflow is asked who is champion.")
    challengers: bool = Field(
        False, description="Whether the challenger answers each request too, for the log of requests alone."
    )
    log_requests: bool = Field(
        False, description="Whether each request becomes a row of served_requests: one that cannot is not answered."
    )
    log_bytes: bool = Field(False, description="Whether that row has the photo as well.")
    log_folder: Place | None = Field(
        None,
        description="A local folder where requests are written down before they are merged; unset: serving/ahead in "
        "the lake's root, where that is a folder.",
    )
    label_below: float | None = Field(
        None,
        ge=0,
        le=1,
        description="People are asked about served photos less confident than this; unset: about none.",
    )
    webhook_secret: Annotated[str, Field(min_length=16)] | None = Field(
        None, description="The secret of webhooks, MLflow's and Label Studio's; unset: none is taken."
    )

    @model_validator(mode="after")
    def _asks_about_what_it_writes_down(self) -> ServingSettings:
        if self.label_below is not None and not self.log_requests:
            raise ValueError("label_below is about requests that are written down: set log_requests as well")
        return self

    @model_validator(mode="after")
    def _is_open_to_none_but_this_machine(self) -> ServingSettings:
        if self.token is None and self.host not in LOOPBACK:
            raise ValueError("host is reached from other machines, so that token must be set, or anybody is answered")
        return self


class MlflowSettings(_Section):
    tracking_uri: Annotated[str, AfterValidator(_of_a_store)] | None = Field(
        None, description="A server or database; unset: a sqlite store under <root>/mlflow."
    )
    experiment: Text = "dlassets"
    tensorboard: bool = Field(
        True, description="Whether curves go to <root>/tensorboard as well, where the extra tensorboard is installed."
    )


_Z_ORDER: dict[str, tuple[str, ...]] = {
    "predictions": ("path",),
    "predictions_current": ("path",),
    "labeled_images": ("path",),
    "image_features": ("image_id",),
}


class MaintenanceSettings(_Section):
    target_file_bytes: int = Field(256 * 2**20, gt=0, description="Small files of a table are put together up to this.")
    retention_hours: int = Field(
        168,
        ge=24,
        le=_CENTURY_HOURS,
        description="How long files that no current version needs are kept, for time travel and readers.",
    )
    run_days: int = Field(
        90, ge=1, le=36_500, description="How long ended runs of Dagster are kept, with their events and logs."
    )
    z_order: dict[str, tuple[str, ...]] = Field(
        _Z_ORDER, description="Tables whose rows are laid out by columns that are queried."
    )

    @field_validator("z_order")
    @classmethod
    def _names_are_plain(cls, value: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        _plain_names(value)
        for columns in value.values():
            _plain_names(columns)
        return value


class StreamSettings(_Section):
    """Continuous mode: `dlassets watch` and `dlassets stream`."""

    batch_seconds: Seconds = Field(0.2, description="How long events are collected before they are taken in.")
    listing_seconds: Seconds = Field(10, description="How often a zone that cannot be watched is listed.")


class UiSettings(_Section):
    """Where people reach the pages of `dlassets dev` and the UIs of Dagster and MLflow: their links point there."""

    pages: Place = "http://127.0.0.1:4000"
    dagster: Place = "http://127.0.0.1:3000"
    mlflow: Place = "http://127.0.0.1:5000"
    label: Place | None = Field(
        None,
        description="Where people find the page of `dlassets label`, to which the others link then; unset: nowhere.",
    )
    origins: tuple[Place, ...] = Field(
        (),
        description="Further addresses at which browsers reach them; in the variable, with commas between them. "
        "Requests that name any other host, or come from a page of another origin, are refused.",
    )

    def page(self, name: str = "", /, **asked: str | int) -> str:
        """Return the address of a page of the pages, such as `page("photo", path=…)`; `files/` and a path within the
        lake is that file of its reports or contact sheets.
        """
        question = f"?{urlencode(asked)}" if asked else ""
        return f"{self.pages.rstrip('/')}/{quote(name)}{question}"

    @property
    def of_pages(self) -> tuple[str, ...]:
        """Every address at which browsers reach the pages, beside this machine's own names."""
        return (self.pages, *self.origins)

    @property
    def of_dagster(self) -> tuple[str, ...]:
        """Every address at which browsers reach Dagster, beside this machine's own names."""
        return (self.dagster, *self.origins)

    @property
    def of_label(self) -> tuple[str, ...]:
        """Every address at which browsers reach what is served, beside this machine's own names."""
        return (*filter(None, [self.label]), *self.origins)

    @property
    def of_mlflow(self) -> tuple[str, ...]:
        """Every address at which browsers reach MLflow, beside this machine's own names."""
        return (self.mlflow, *self.origins)

    @field_validator("origins", mode="before")
    @classmethod
    def _is_listed(cls, value: Any) -> Any:
        return [part.strip() for part in value.split(",")] if isinstance(value, str) else value

    @field_validator("origins")
    @classmethod
    def _are_addresses(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for address in value:
            if not re.fullmatch(r"https?://[^/\s*]+/?", address):
                raise ValueError(f"{address!r} is no address such as https://lake.example.com or http://10.0.0.5:3000")
        return value


WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
# What a schedule that repeats takes besides `at`.
_TAKES = {"daily": None, "weekly": "day", "biweekly": "starting", "monthly": "day"}
_LAST_OF_EVERY_MONTH = 28


class Schedule(_Section):
    """When a pipeline starts by itself: as the calendar repeats itself, or by a line of cron, which a text alone is."""

    repeat: Literal["daily", "weekly", "biweekly", "monthly"] | None = None
    at: str | None = Field(
        None, pattern=r"^([01]\d|2[0-3]):[0-5]\d$", description="The time of day; on a day that skips it, the next."
    )
    day: int | str | None = Field(
        None, description="Of weekly: a weekday, in English. Of monthly: a number, at most 28, or `last`."
    )
    starting: dt.date | None = Field(None, description="Of biweekly: the first day, and so the weekday and the weeks.")
    cron: str | None = Field(None, pattern=r"^[\w@*/,#? -]+$", description="A line of cron, in place of all of those.")
    time_zone: Text = Field("UTC", description="By its name in the IANA's list, such as Europe/Berlin.")
    paused: bool = Field(False, description="Whether it waits until somebody switches it on in Dagster.")

    @model_validator(mode="before")
    @classmethod
    def _is_cron(cls, given: Any) -> Any:
        return {"cron": given} if isinstance(given, str) else given

    @field_validator("day", mode="before")
    @classmethod
    def _is_a_number(cls, value: Any) -> Any:
        return int(value) if isinstance(value, str) and value.isdecimal() else value

    @field_validator("at", mode="before")
    @classmethod
    def _is_a_time(cls, value: Any) -> Any:
        """Read 14:30 as it was written: without quotes, YAML takes it for a number of base 60."""
        return f"{value // 60:02}:{value % 60:02}" if type(value) is int else value

    @field_validator("time_zone")
    @classmethod
    def _is_a_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ValueError, OSError, ZoneInfoNotFoundError) as error:
            near = difflib.get_close_matches(value, available_timezones(), n=1)
            hint = f"; did you mean {near[0]}?" if near else ", such as Europe/Berlin"
            raise ValueError(f"{value!r} is no time zone of the IANA's list{hint}") from error
        return value

    @model_serializer(mode="wrap")
    def _as_it_is_written(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what is not said of it."""
        return {name: value for name, value in dump(self).items() if value is not None and value is not False}

    @model_validator(mode="after")
    def _says_when(self) -> Schedule:
        given = [name for name in ("at", "day", "starting") if getattr(self, name) is not None]
        if (self.repeat is None) is (self.cron is None):
            raise ValueError("it says when by one of `repeat` (daily, weekly, biweekly, monthly) and `cron`")
        if self.repeat is None:
            if given:
                raise ValueError(f"cron says all of when: leave {', '.join(given)} out")
            return self
        taken = [name for name in ("at", _TAKES[self.repeat]) if name]
        if given != taken:
            raise ValueError(f"{self.repeat} takes {' and '.join(taken)}, and has {' and '.join(given) or 'neither'}")
        if self.repeat == "weekly" and self.day not in WEEKDAYS:
            raise ValueError(f"day {self.day!r} is no weekday: one is {', '.join(WEEKDAYS)}")
        if self.repeat == "monthly" and self.day != "last" and self.day not in range(1, _LAST_OF_EVERY_MONTH + 1):
            raise ValueError(f"day {self.day!r} is not in every month: use 1 to {_LAST_OF_EVERY_MONTH}, or last")
        return self


_SCHEDULED: dict[str, Schedule | None] = {
    "scoring_pipeline": Schedule(repeat="daily", at="02:00"),
    "training_pipeline": Schedule(repeat="weekly", day="sunday", at="04:00"),
    "maintenance_pipeline": Schedule(repeat="daily", at="03:00"),
}


class AutomationSettings(_Section):
    sensors: bool = Field(False, description="Whether sensors start by themselves.")
    schedules: bool = Field(False, description="Whether the schedules of `scheduled` start by themselves.")
    sensor_seconds: Count = 30
    attempts: Count = Field(
        6, description="Runs that a sensor asks for, later and later, before it gives up what none of them has done."
    )
    scheduled: dict[str, Schedule | None] = Field(
        default_factory=lambda: dict(_SCHEDULED), description="When which pipelines of dlassets start by themselves."
    )
    fresh_hours: dict[str, Annotated[float, Field(gt=0, le=_CENTURY_HOURS)]] = Field(
        default_factory=dict, description="Assets that are to be made at least every so many hours."
    )
    streaming: bool = Field(
        False, description="Whether `dlassets stream` is to be up: Dagster then shows when nothing is heard of it."
    )
    heartbeat_minutes: Minutes = Field(
        10, description="Dagster's daemon and its sensors may be silent for so long, before it is told."
    )
    heartbeat_url: Annotated[str, Field(pattern=r"^https?://\S+$")] | None = Field(
        None,
        description="Called while none of them is silent, as services of dead-man's switches want it; it is secret.",
    )

    @model_validator(mode="before")
    @classmethod
    def _says_schedules_in_one_place(cls, given: Any) -> Any:
        """Say where the lines of cron of release 0.2 have gone to: the nearest name would be another setting's."""
        for name in given if isinstance(given, Mapping) else ():
            if str(name).endswith("_cron"):
                pipeline = f"{str(name).removesuffix('_cron')}_pipeline"
                raise ValueError(f"{name} has become scheduled.{pipeline}, which takes a line of cron as well")
        return given


DEFAULT_CLASS = "default"
Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")]


class PodSettings(_Section):
    """What a run's pod asks of a Kubernetes cluster; nothing is said of it where runs start elsewhere."""

    cores: float = Field(gt=0, le=1024, description="Asked for; more are taken where nobody else wants them.")
    memory: str = Field(pattern=r"^[1-9]\d*[MGT]i$", description="Asked for, and the most that it may take.")
    gpus: int = Field(0, ge=0, le=64, description="NVIDIA's, on nodes that are kept for those who ask for one.")


class ComputeClass(_Section):
    """Where steps run that name it, and how long, how often and how many of them at once."""

    place: Literal["run", "process", "spark"] = Field(
        "run",
        description="run: the process of the run. process: one of its own. spark: the same, which has a Spark session "
        "of its own, whatever `engine` is.",
    )
    spark: SparkSettings = Field(
        SparkSettings(), description="How that session differs from what the section `spark` says."
    )
    gpu: bool | None = Field(None, description="true: there must be one. false: none is seen. Unset: as it is.")
    timeout_minutes: Minutes | None = Field(
        None, description="A step that takes longer is ended, with its process; unset: any time."
    )
    retries: int = Field(
        0, ge=0, le=100, description="How often a step is tried again, where that may help: see docs/compute.md."
    )
    retry_seconds: Seconds = Field(30, description="How long it waits before the first retry, and twice as long each.")
    pool: Name | None = Field(None, description="Steps of a pool wait for each other, in all runs.")
    pod: PodSettings | None = Field(
        None, description="On Kubernetes: what the pod of a run has that has a step of this class; unset: the chart's."
    )

    @model_validator(mode="after")
    def _has_a_process_where_it_needs_one(self) -> ComputeClass:
        if self.place == "run" and self.timeout_minutes is not None:
            raise ValueError(
                "timeout_minutes ends a step's process, and with place run that is the whole run's: set place to "
                "process. (How long a run may take is run_monitoring.max_runtime_seconds in Dagster's dagster.yaml.)"
            )
        if self.place == "run" and self.gpu is False:
            raise ValueError("gpu: false hides GPUs from a process, and with place run that is the whole run's")
        if self.place != "spark" and "spark" in self.model_fields_set:
            raise ValueError(f"spark says how a session differs, and with place {self.place} there is none of its own")
        return self

    def __str__(self) -> str:
        """Say in a line what it is, without a secret."""
        spark = self.spark
        said = [
            {
                "run": "in the run's process",
                "process": "in a process of its own",
                "spark": "in a Spark session of its own",
            }[self.place],
            f"of {spark.remote or spark.master}" if spark.model_fields_set & {"remote", "master"} else "",
            f"{spark.most_cores} cores at most" if spark.most_cores else "",
            {None: "", True: "with a GPU", False: "without a GPU"}[self.gpu],
            f"at most {self.timeout_minutes:g} minutes" if self.timeout_minutes else "",
            f"tried again {self.retries} times" if self.retries else "",
            f"pool {self.pool}" if self.pool else "",
        ]
        return masked(", ".join(filter(None, said)))


class StepsComputeSettings(_Section):
    """Which step runs where. Without classes each runs in the process of the run."""

    classes: dict[Name, ComputeClass] = Field(
        default_factory=dict, description=f"By name; `{DEFAULT_CLASS}` is that of whatever names none."
    )
    stages: dict[str, str] = Field(
        default_factory=dict, description="Which class: of a stage (ingest, training, …), or of a step, which wins."
    )
    pools: dict[Name, Count] = Field(default_factory=dict, description="How many steps of a pool at once; unset: 1.")

    @property
    def all_classes(self) -> dict[str, ComputeClass]:
        return {DEFAULT_CLASS: ComputeClass(), **self.classes}

    @property
    def pool_limits(self) -> dict[str, int]:
        """How many steps of each pool may run at once."""
        used = {each.pool: 1 for each in self.classes.values() if each.pool is not None}
        return {**used, **self.pools}

    @model_validator(mode="after")
    def _names_what_there_is(self) -> StepsComputeSettings:
        for stage, name in self.stages.items():
            if name not in self.all_classes:
                known = ", ".join(self.all_classes)
                raise ValueError(masked(f"{stage} names the class {name!r}, and the classes are {known}"))
        if unused := sorted(self.pools.keys() - {each.pool for each in self.classes.values()}):
            raise ValueError(f"no class has the pool {', '.join(unused)}: name it there, or leave it out")
        return self


AlertKind = Literal["run_failed", "check_failed", "freshness_missed", "approval_wanted", "champion_changed"]
ALERT_KINDS: tuple[AlertKind, ...] = get_args(AlertKind)


class AlertSettings(_Section):
    """Who is told when something needs a person. Without a URL nobody is, and nothing is written."""

    urls: tuple[Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9+.-]*://\S+$")], ...] = Field(
        (),
        description="Where alerts go, as Apprise's URLs (mailto://…, json://…, slack://…), which are masked as secrets "
        "are; in the variable, with spaces between them.",
    )
    urls_file: Place | None = Field(None, description="A file with further ones, a line each.")
    kinds: tuple[AlertKind, ...] = Field(
        ALERT_KINDS, min_length=1, description="What is told of; in the variable, with commas between them."
    )
    group_seconds: float = Field(
        30, ge=0, le=86_400, description="Alerts that are raised within so many seconds of the first are one message."
    )
    attempts: Count = Field(20, description="How often, later and later, it is tried to send one: 20 take three days.")

    @property
    def are_on(self) -> bool:
        return bool(self.urls or self.urls_file)

    @field_validator("urls", mode="before")
    @classmethod
    def _is_listed(cls, value: Any) -> Any:
        return value.split() if isinstance(value, str) else () if value is None else value

    @field_validator("kinds", mode="before")
    @classmethod
    def _are_listed(cls, value: Any) -> Any:
        return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


Role = Literal["viewer", "labeller", "operator", "approver"]
ROLES: tuple[Role, ...] = get_args(Role)
# Shorter ones could be guessed by trying.
Key = Annotated[str, Field(min_length=32)]


class MlflowAccount(_Section):
    """An account of MLflow's own log-in, which the gate hands on for people."""

    user: Text
    password: Text


class OidcSettings(_Section):
    """The identity provider that people log in at, as OpenID Connect has it."""

    issuer: Annotated[Place, Field(pattern=r"^https?://[^/?#]")] = Field(
        description="Its address, below which /.well-known/openid-configuration answers."
    )
    client_id: Text
    client_secret: Text
    scopes: tuple[Text, ...] = ("openid", "profile", "email")
    name_claim: Text = Field("email", description="The claim that is a person's name here; it must be theirs for good.")
    roles_claim: Text = Field("groups", description="The claim that lists the groups (or roles) of a person.")
    roles: dict[str, tuple[Role, ...]] = Field(
        default_factory=dict, description="Roles by group; who is in none of these groups is not let in."
    )

    @model_validator(mode="after")
    def _is_not_listened_to(self) -> OidcSettings:
        if self.issuer.startswith("http://") and urlsplit(self.issuer).hostname not in LOOPBACK:
            raise ValueError("issuer must be https://…: whoever is between could say who anybody is")
        return self


class AccessSettings(_Section):
    """The gate: one log-in in front of all that browsers reach. Without `url` there is none."""

    url: Place | None = Field(
        None, description="Where people find everything, such as https://lake.example.com; unset: there is no gate."
    )
    login: Literal["basic", "oidc"] = Field("basic", description="Passwords of users_file, or an identity provider.")
    users_file: Place | None = Field(None, description="What `dlassets users` keeps: who there is, and in which roles.")
    cookie_secret: Key | None = Field(None, description="Signs the cookies of who has logged in.")
    proxy_secret: Key | None = Field(
        None,
        description="Tells requests that come by the proxy; where it is set, pages, Dagster and what is served answer "
        "no others, and take the name of who asks from it.",
    )
    session_minutes: Minutes = Field(720, description="How long a log-in lasts.")
    attempts: Count = Field(5, description="Wrong passwords in a row, of one name or address, before the next waits.")
    mlflow_reader: MlflowAccount | None = Field(None, description="Who people are to MLflow; its permission is READ.")
    mlflow_writer: MlflowAccount | None = Field(None, description="Who operators and approvers are to MLflow.")
    oidc: OidcSettings | None = None

    @field_validator("url")
    @classmethod
    def _is_an_address(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"https?://[^/\s*?#]+/?", value):
            raise ValueError(f"{value!r} is no address such as https://lake.example.com")
        return value and value.rstrip("/")

    @model_validator(mode="after")
    def _has_a_provider_where_it_needs_one(self) -> AccessSettings:
        if self.login == "oidc" and self.oidc is None:
            raise ValueError(
                "login is oidc: set oidc.issuer, oidc.client_id, oidc.client_secret and oidc.roles as well"
            )
        return self


class Settings(_Section):
    """Everything that may differ between two deployments."""

    root: Place = Field("lake", description="The lake's root: a folder or a URI, such as s3a://bucket/folder.")
    engine: Literal["local", "spark"] = "local"
    landing: dict[str, LandingZone] = Field(
        default_factory=lambda: {
            "labeled": LandingZone(uri="labeled", labelled=True),
            "unlabeled": LandingZone(uri="unlabeled", labelled=False),
        }
    )
    ingest: IngestSettings = IngestSettings()
    archives: ArchiveSettings = ArchiveSettings()
    labels: LabelSettings = LabelSettings()
    split: SplitSettings = SplitSettings()
    spark: SparkSettings = SparkSettings()
    features: FeatureSettings = FeatureSettings()
    training: TrainingSettings = TrainingSettings()
    tuning: TuningSettings = TuningSettings()
    registry: RegistrySettings = RegistrySettings()
    validation: ValidationSettings = ValidationSettings()
    scoring: ScoringSettings = ScoringSettings()
    serving: ServingSettings = ServingSettings()
    labeling: LabelingSettings = LabelingSettings()
    maintenance: MaintenanceSettings = MaintenanceSettings()
    stream: StreamSettings = StreamSettings()
    mlflow: MlflowSettings = MlflowSettings()
    ui: UiSettings = UiSettings()
    compute: StepsComputeSettings = StepsComputeSettings()
    automation: AutomationSettings = AutomationSettings()
    alerts: AlertSettings = AlertSettings()
    access: AccessSettings = AccessSettings()

    @property
    def goes_on_by_itself(self) -> bool:
        """Whether Dagster's daemon is to do anything that nobody starts."""
        automation = self.automation
        named = automation.sensors or automation.schedules or automation.streaming or automation.fresh_hours
        return bool(named or automation.heartbeat_url or self.alerts.are_on)

    @model_validator(mode="after")
    def _takes_executors_that_there_can_be(self) -> Settings:
        self.spark.check_executors("spark")
        for name, compute in self.compute.classes.items():
            if compute.place == "spark":
                self.spark.changed_by(compute.spark).check_executors(f"compute.classes.{name}.spark")
        return self

    def of_class(self, name: str) -> Settings:
        """Return what a step of this compute class goes by."""
        compute = self.compute.all_classes[name]
        if compute.place != "spark":
            return self
        return self.model_copy(update={"engine": "spark", "spark": self.spark.changed_by(compute.spark)})

    @model_validator(mode="after")
    def _notes_the_cameras_it_groups_by(self) -> Settings:
        if self.split.group_by == CAMERA and CAMERA not in self.ingest.capture:
            raise ValueError(f"split.group_by is {CAMERA}, which ingest.capture must name, or no photo has one")
        return self

    @model_validator(mode="after")
    def _prefers_zones_that_there_are(self) -> Settings:
        if unknown := sorted(self.labeling.priorities.keys() - self.landing.keys()):
            zones = ", ".join(sorted(self.landing))
            raise ValueError(f"labeling.priorities names {', '.join(unknown)}, and the landing zones are {zones}")
        return self

    @model_validator(mode="after")
    def _knows_hints_by_a_secret(self) -> Settings:
        if self.labeling.label_studio.hint_url is not None and self.serving.webhook_secret is None:
            raise ValueError(
                "labeling.label_studio.hint_url is for hints that are known by serving.webhook_secret: set it"
            )
        return self

    @field_validator("landing")
    @classmethod
    def _names_are_plain(cls, zones: dict[str, LandingZone]) -> dict[str, LandingZone]:
        for name in zones:
            if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
                raise ValueError(f"landing zone {name!r}: use letters, digits, _ and - alone")
        return zones


def load_settings(environment: Mapping[str, str] | None = None, **changes: Any) -> Settings:
    """Return the settings of `environment` (the process's own by default), with `changes` on top.

    Raises SettingsError for an unknown setting or an impossible value, naming every one.
    """
    environment = os.environ if environment is None else environment
    learn_variables(environment)
    remote = environment.get("SPARK_REMOTE")
    sources: dict[str, dict[str, Any]] = {
        "SPARK_REMOTE": {"spark": {"remote": remote}} if remote else {},
        "the profile": _profile(environment.get(PROFILE_VARIABLE)),
        "the environment": _from_variables(environment),
        "the changes": changes,
    }
    try:
        return Settings.model_validate(functools.reduce(_merged, sources.values()))
    except ValidationError as error:
        lines = [f"  {message}" for details in error.errors() for message in _messages(details, sources)]
        raise SettingsError("These settings cannot be:\n" + "\n".join(lines)) from error


def changed_settings(settings: Settings, changes: Mapping[str, Any]) -> Settings:
    """Return settings with others in some places, by their dotted names, such as `training.epochs`.

    Texts are read as those of variables are. Raises SettingsError as `load_settings`.
    """
    tree: dict[str, Any] = {}
    for name, value in changes.items():
        for part in reversed(name.split(".")):
            value = {part: _value(name, value) if isinstance(value, str) else value}  # noqa: PLW2901 - from leaf to root
        tree = _merged(tree, value)
    try:
        return Settings.model_validate(_merged(settings.model_dump(), tree))
    except ValidationError as error:
        lines = [f"  {message}" for each in error.errors() for message in _messages(each, {"the parameters": tree})]
        raise SettingsError("These parameters cannot be:\n" + "\n".join(lines)) from error


def _profile(name: str | None) -> dict[str, Any]:
    given = name or DEFAULT_PROFILE
    path = Path(given).expanduser() if given.endswith((".yaml", ".yml")) else PROFILES / f"{given}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(profile.stem for profile in PROFILES.glob("*.yaml")))
        raise SettingsError(
            f"{PROFILE_VARIABLE}={name}: there is no {path}. Set it to the name of a profile ({known}) or to the path "
            "of a YAML file."
        )
    try:
        text = path.read_text()
        learn(text.splitlines())  # of what is no YAML, the error shows a piece
        tree = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise SettingsError(f"{path} is not YAML: {error}") from error
    if not isinstance(tree, dict):
        raise SettingsError(f"{path} must be a mapping of settings.")
    return tree


def _from_variables(environment: Mapping[str, str]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for variable, text in sorted(environment.items()):
        if not variable.startswith(PREFIX) or variable == PROFILE_VARIABLE:
            continue
        *parents, leaf = variable[len(PREFIX) :].lower().split("__")
        branch = tree
        for parent in parents:
            branch = branch.setdefault(parent, {})
            if not isinstance(branch, dict):
                raise SettingsError(f"{variable} sets a part of {parent!r}, which another variable sets as a whole.")
        branch[leaf] = _value(variable, text)
    return tree


def _value(variable: str, text: str) -> Any:
    """Return a variable's value: a mapping in YAML where it begins as one, none where it says so, else the text."""
    if text in {"", "null"}:
        return None
    learn(text)
    # Text stays text, and the setting's type reads it: a cron line or a pattern may well be YAML of some other kind.
    if not text.startswith("{"):
        return text
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SettingsError(f"{variable} begins as a YAML mapping, and is none: {error}") from error


def _messages(error: ErrorDetails, sources: dict[str, dict[str, Any]]) -> Iterator[str]:
    """Yield what is wrong with a setting: its value, or that there is none of its name, with the nearest that is."""
    path, section = (".".join(map(str, names)) for names in (error["loc"], error["loc"][:-1]))
    known = list(_known_names())
    if error["type"] not in {"extra_forbidden", "invalid_key"} or section not in {"", *known}:
        given = masked(repr(error["input"]))
        yield f"{path}: {error['msg']} (given: {given})"
        return
    for name in _paths({path: error["input"]}):
        source = next(source for source, tree in reversed(sources.items()) if name in _paths(tree))
        near = difflib.get_close_matches(name, known, n=1)
        hint = f" Did you mean {near[0]} ({PREFIX}{near[0].upper().replace('.', '__')})?" if near else ""
        yield f"Unknown setting {name!r} in {source}.{hint}"


def _known_names(section: type[BaseModel] = Settings, prefix: str = "") -> Iterator[str]:
    """Yield every setting's dotted name, and every section's."""
    for name, field in section.model_fields.items():
        yield prefix + name
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _known_names(field.annotation, f"{prefix}{name}.")


def _paths(tree: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _paths(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def _merged(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for name, value in top.items():
        below = merged.get(name)
        merged[name] = _merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged
