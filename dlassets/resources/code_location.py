"""Under which name user interfaces load the definitions: also of runs that none of them has started.

Dagster's Overview and its list of jobs show a run below the code location that it is of. A run that a program starts
(the demo, `dagster job execute`, `dagster asset materialize`) is told of none.
"""

from __future__ import annotations

import dagster as dg
from dagster._core.definitions.repository_definition import SINGLETON_REPOSITORY_NAME
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteRepositoryOrigin
from dagster._core.storage.tags import CODE_LOCATION_TAG, REPOSITORY_LABEL_TAG

# As in workspace.yaml and pyproject.toml: under another name, runs and switched-on sensors would be another location's.
LOCATION = "dlassets"


def give_location(instance: dg.DagsterInstance, run_id: str) -> None:
    """Write down that a run is of this code location, unless it is of one already."""
    run = instance.get_run_by_id(run_id)
    if run is None or run.remote_job_origin is not None:
        return
    repository = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin(LOCATION), SINGLETON_REPOSITORY_NAME)
    tags = {REPOSITORY_LABEL_TAG: repository.get_label(), CODE_LOCATION_TAG: LOCATION}
    instance.add_run_tags(run_id, tags)
    # What `dagster run migrate-repository` does; it leaves a tag alone that is not there yet.
    instance.run_storage.replace_job_origin(
        run.with_tags({**run.tags, **tags}), repository.get_job_origin(run.job_name)
    )
