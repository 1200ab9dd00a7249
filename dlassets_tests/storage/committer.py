"""A driver of its own that commits to a table beside others: `python -m dlassets_tests.storage.committer local …`.

Called with an engine (`local`, `spark`, or a Spark Connect server's address), a lake's root, a name, how many commits
to make, and settings of Spark (`name=value`). It says `ready`, waits for a line, appends one row a commit, and says how
often it lost to another.
"""

import datetime as dt
import sys

from dlassets.engines.base import Commit, Engine
from dlassets.engines.local import LocalEngine
from dlassets.engines.spark import SparkEngine
from dlassets.engines.spark_session import spark_session
from dlassets.errors import ConflictError
from dlassets.lakehouse.tables import DELETED_FILES
from dlassets.settings import SparkSettings
from dlassets.storage.lake import Lake

WHEN = dt.datetime(2026, 1, 2, tzinfo=dt.UTC)


def main(engine: str, root: str, name: str, commits: str, *conf: str) -> None:
    import pyarrow as pa

    lake = Lake.at(root)
    committing: Engine = LocalEngine()
    if engine != "local":
        remote = None if engine == "spark" else engine
        given = dict(each.split("=", 1) for each in conf)
        settings = SparkSettings(master="local[1]", remote=remote, driver_memory="1g", conf=given)
        session = spark_session(settings, [root])
        session.sql("SELECT 1").collect()
        committing = SparkEngine(lambda: session)
    print("ready", flush=True)  # noqa: T201
    sys.stdin.readline()
    lost = 0
    for number in range(int(commits)):
        row = {"path": f"{name}/{number}", "landing": name, "deleted_at": WHEN, "returned_at": None}
        rows = committing.rows(pa.Table.from_pylist([row], schema=DELETED_FILES.schema))
        lost += not committed(committing, rows, lake)
    print(lost, flush=True)  # noqa: T201


def committed(engine, rows, lake: Lake) -> bool:
    try:
        engine.append(rows, DELETED_FILES, lake.table("deleted_files"), Commit())
    except ConflictError:
        return False
    return True


if __name__ == "__main__":
    main(*sys.argv[1:])
