"""What both engines ask of a Delta log before they write, and what its refusals mean."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from dlassets.engines.base import Commit
from dlassets.errors import ConflictError, DlassetsError

if TYPE_CHECKING:
    from deltalake import DeltaTable


def refuse_overtaken(delta: DeltaTable, commit: Commit) -> None:
    """delta-rs refuses a writer on a stale snapshot alone, so what a fresh one says is looked at first."""
    transaction = commit.transaction
    last = delta.transaction_version(transaction.app_id) if transaction else None
    if transaction and last is not None and last >= transaction.version:
        raise ConflictError(
            f"Another run wrote batch {last} of {transaction.app_id} to {delta.table_uri} before this one's "
            f"{transaction.version}. Nothing of this batch was written; run it again."
        )


@contextmanager
def explained(uri: str) -> Iterator[None]:
    """Say in this project's errors what delta-rs says of a write that lost, or that storage did not take."""
    from deltalake.exceptions import CommitFailedError, DeltaError

    try:
        yield
    except CommitFailedError as error:
        raise ConflictError(
            f"Another run changed {uri} at the same moment ({error}). Nothing was written; run it again."
        ) from error
    except (OSError, DeltaError) as error:
        # What storage says (no space left, say) comes as an error of delta-rs's own, among others that are not so.
        if isinstance(error, DeltaError) and not re.search(r"Generic \w+ error|os error", str(error)):
            raise
        raise DlassetsError(
            f"{uri} could not be written: {error}. Check that the place is there, has room and is yours to write, then "
            "run again: what was committed before stands."
        ) from error
