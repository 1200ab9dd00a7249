"""What a sensor asks for is not done before a run has done it: one that failed is asked for again, later and later.

Each run says which sensor asked for it, and what for. Who asks looks at those: nothing else remembers.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import dagster as dg

_BY_TAG, _FOR_TAG = "dlassets/asked_by", "dlassets/asked_for"
# Of a run that has yet to begin, what waits by now: it does all that there is when it begins.
_AND_FOR_TAG = "dlassets/and_asked_for"
_TO_BEGIN = (dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.STARTING)
# Between the first run that failed and the second; each further pause is so many times as long.
_PAUSE, _LONGER = dt.timedelta(minutes=1), 4


@dataclass(frozen=True)
class Asked:
    """The run to ask for now, or why there is none; it is given up where too many have failed.

    `is_to_begin` where an earlier run has yet to begin, and will do this too.
    """

    request: dg.RunRequest | None
    said: str = ""
    is_given_up: bool = False
    is_to_begin: bool = False


def ask(
    instance: dg.DagsterInstance, sensor: str, wanted: str | None, attempts: int, *, each_by_itself: bool = False
) -> Asked:
    """Return what a sensor asks for: `wanted` names what waits.

    Where nothing new does, that is what its newest run was to do, if that one came to no good end. Of what a good run
    has left waiting all the same, more are asked for as after a bad one. It is given up after so many `attempts`. While
    a run has yet to begin no other is asked for, unless a sensor's runs do one thing `each_by_itself`.
    """
    newest = next(iter(_asked(instance, {_BY_TAG: sensor}, 1)), None)
    if wanted is None:
        if newest is None or newest.dagster_run.status is dg.DagsterRunStatus.SUCCESS:
            return Asked(None)
        wanted = newest.dagster_run.tags[_FOR_TAG]
    tags = {_BY_TAG: sensor, _FOR_TAG: wanted}
    tried = [*_asked(instance, tags), *_asked(instance, {_BY_TAG: sensor, _AND_FOR_TAG: wanted})]
    if tried:
        return _once_more(tried, tags, attempts)
    if newest and newest.dagster_run.status in _TO_BEGIN and not each_by_itself:
        run_id = newest.dagster_run.run_id
        instance.add_run_tags(run_id, {_AND_FOR_TAG: wanted})
        return Asked(None, f"Run {run_id}, which has yet to begin, does this too.", is_to_begin=True)
    return Asked(dg.RunRequest(run_key=wanted, tags=tags))


def _once_more(tried: Sequence[dg.RunRecord], tags: Mapping[str, str], attempts: int) -> Asked:
    """Return what to ask for after these runs, the newest first, that were asked for the same."""
    last = tried[0].dagster_run
    if not last.is_finished:
        return Asked(None, f"Run {last.run_id}, which was asked for this, has not ended.")
    said = f"Run {last.run_id} ended as {last.status.value}, and what it was asked for is not done"
    if len(tried) >= attempts:
        return Asked(
            None,
            f"{said}, as after {len(tried) - 1} runs before it. No more is asked for: see the run's log, mend what it "
            f"names, and run {last.job_name} by hand.",
            is_given_up=True,
        )
    ended = dt.datetime.fromtimestamp(tried[0].end_time or tried[0].update_timestamp.timestamp(), dt.UTC)
    due = ended + _PAUSE * _LONGER ** (len(tried) - 1)
    if ended <= dt.datetime.now(dt.UTC) < due:  # one that ended in the future says nothing of when
        return Asked(None, f"{said}. It is asked for again at {due:%Y-%m-%d %H:%M:%S} UTC.")
    return Asked(dg.RunRequest(run_key=f"{tags[_FOR_TAG]}:{len(tried) + 1}", tags=tags))


def _asked(instance: dg.DagsterInstance, tags: Mapping[str, str], most: int | None = None) -> Sequence[dg.RunRecord]:
    """Return the runs that have these tags, the newest first."""
    return instance.get_run_records(dg.RunsFilter(tags=tags), limit=most)
