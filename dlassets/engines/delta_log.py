"""What both engines ask of a Delta log before they write."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlassets.engines.base import Commit
from dlassets.errors import ConflictError

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
