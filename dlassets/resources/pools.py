"""Dagster's pools: how many steps of each may run at once, in all runs of an instance."""

from __future__ import annotations

from collections.abc import Mapping

import dagster as dg


def set_pools(instance: dg.DagsterInstance, limits: Mapping[str, int]) -> None:
    """Have Dagster's instance keep to these limits, before a run asks for a place; other pools stay as they are.

    An instance that ends with its process has no other runs to wait for, and no pools.
    """
    storage = instance.event_log_storage
    if not limits or not storage.supports_global_concurrency_limits:
        return
    known = {pool.name: pool.limit for pool in storage.get_pool_limits()}
    for name, limit in limits.items():
        if known.get(name) != limit:
            storage.set_concurrency_slots(name, limit)


def free_pools(instance: dg.DagsterInstance, run_id: str) -> None:
    """Give back the places of a run that cannot do so itself."""
    storage = instance.event_log_storage
    if storage.supports_global_concurrency_limits:
        storage.free_concurrency_slots_for_run(run_id)
