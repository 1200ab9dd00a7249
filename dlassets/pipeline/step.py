"""What a step is: it declares what it reads and makes, and is handed exactly that.

From the declaration follow the assets' dependencies in Dagster, what is recorded of a write (in Dagster and in the
Delta log), whether a stream has anything to do, and how a step is run at other versions or on another lake.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dlassets.engines.base import Commit, Snapshot, Written
from dlassets.engines.schema import Table
from dlassets.lakehouse.provenance import Provenance
from dlassets.lakehouse.snapshots import replanned
from dlassets.pipeline.report import Report
from dlassets.pipeline.session import Session
from dlassets.registry.models import VALIDATED_VERSION, Model, ModelVersion
from dlassets.registry.outages import explained_mlflow
from dlassets.storage.databases import explained_databases

if TYPE_CHECKING:
    Work = Callable[[Session, "Reads", Report], "Made"]


class UndeclaredReadError(RuntimeError):
    """A step read what it does not declare: a fault of the step."""


@dataclass(frozen=True)
class Made:
    """What a step did: what it wrote to each table, of what, and whatever else there is to know (`details`)."""

    provenance: Provenance
    written: Mapping[str, Written] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def changed(self) -> bool:
        return any(written.changed for written in self.written.values())

    @property
    def complete(self) -> bool:
        """Whether the same step, on the same inputs, would find nothing more to do."""
        return not any(written.left_out for written in self.written.values())


@dataclass(frozen=True)
class Step:
    """`makes` is what it writes, `reads` what that is made of.

    `looks_back` are tables that it reads as an earlier round of the loop left them: they are recorded like the others,
    and are no dependencies, which would go round in a circle.
    """

    work: Work
    makes: tuple[Table | Model, ...]
    reads: tuple[Table | Model, ...] = ()
    looks_back: tuple[Table, ...] = ()

    @property
    def name(self) -> str:
        return self.work.__name__

    @property
    def description(self) -> str:
        return (self.work.__doc__ or "").strip()

    @property
    def reads_champion(self) -> bool:
        return VALIDATED_VERSION in self.reads

    @explained_mlflow("it was asked what a step reads")
    @explained_databases()
    def hand_out(self, session: Session) -> Reads:
        """Pin everything that the step reads."""
        tables = [read for read in (*self.reads, *self.looks_back) if isinstance(read, Table)]
        champion = session.champion() if self.reads_champion else None
        return Reads(self, session, {table.name: session.pin(table) for table in tables}, champion)

    def run(self, session: Session, report: Report | None = None) -> Made:
        return self.done(session, report)[1]

    def done(self, session: Session, report: Report | None = None, first: Reads | None = None) -> tuple[Reads, Made]:
        """Do its work, and return what it was of: of what stands then, where another run committed first.

        `first` is what it was handed already, for the first try. Raises ConflictError where it lost again and again.
        """

        def work() -> tuple[Reads, Made]:
            nonlocal first
            read, first = first or self.hand_out(session), None
            return read, self.work(session, read, report or Report())

        return replanned(work)


def step(
    *makes: Table | Model, reads: Sequence[Table | Model] = (), looks_back: Sequence[Table] = ()
) -> Callable[[Work], Step]:
    """Declare a step: the function below is its work."""

    def declared(work: Work) -> Step:
        explained = explained_mlflow(f"{work.__name__} was made")(explained_databases()(work))
        return Step(explained, makes, tuple(reads), tuple(looks_back))

    return declared


class Reads:
    """The snapshots that a step was handed, and which of them it has looked at."""

    def __init__(
        self, owner: Step, session: Session, pinned: Mapping[str, Snapshot], champion: ModelVersion | None
    ) -> None:
        self._step = owner
        self._session = session
        self._pinned = pinned
        self._champion = champion
        self._used: dict[str, Snapshot] = {}

    def __getitem__(self, table: Table) -> Snapshot:
        """Return the pinned version of a table. Raises UndeclaredReadError for one that the step does not declare."""
        if table.name not in self._pinned:
            raise UndeclaredReadError(f"{self._step.name} does not declare that it reads {table.name}.")
        snapshot = self._used[table.name] = self._pinned[table.name]
        return snapshot

    def __contains__(self, table: Table) -> bool:
        return table.name in self._pinned

    def named(self, *tables: Table) -> dict[str, Snapshot]:
        """Return pinned versions by the tables' names, as queries want them."""
        return {table.name: self[table] for table in tables}

    def own(self, table: Table) -> Snapshot:
        """Return the newest version of a table that the step itself makes."""
        if table not in self._step.makes:
            raise UndeclaredReadError(f"{self._step.name} does not make {table.name}.")
        return self._session.pin(table)

    @property
    def champion(self) -> ModelVersion | None:
        """The version of the registered model that was in use when the step began, if any was."""
        self.declared(VALIDATED_VERSION)
        return self._champion

    @property
    def state(self) -> tuple[Any, ...]:
        """What it was handed, in short: where that is the same again, so is what a step makes of it."""
        return (*sorted((name, snapshot.version) for name, snapshot in self._pinned.items()), self._champion)

    def provenance(self, model: ModelVersion | None = None, **parameters: Any) -> Provenance:
        """Return what is recorded of a write: everything that has been looked at, and what else decides the rows."""
        lake = self._session.lake
        return Provenance(
            self._step.makes[0].name,
            {name: snapshot.version for name, snapshot in self._used.items()},
            elsewhere={n: s.uri for n, s in self._used.items() if s.uri != lake.table(n)},
            run_id=self._session.run_id,
            model=str(model) if model else None,
            package=model.package if model else None,
            parameters=parameters,
        )

    def declared(self, model: Model) -> None:
        """Raise UndeclaredReadError for a model that the step does not declare."""
        if model not in self._step.reads:
            raise UndeclaredReadError(f"{self._step.name} does not declare that it reads {model.name}.")


def commit_of(provenance: Provenance) -> Commit:
    return Commit(provenance.as_dict())
