"""The one Spark driver that may write a lake on S3 without a condition: whoever has the lease of the lake.

The lease is an object beside the tables that says whose it is, created and renewed on a condition. It runs out where
nobody has renewed it for a while: how long ago that was, the store's own clock says, in its answers. A driver that was
held up for so long looks anew before it commits again. What it does not keep out is the engine `local`, which looks for
none, and a driver that is held up in the middle of a commit.
"""

from __future__ import annotations

import atexit
import datetime as dt
import json
import logging
import threading
import time
import uuid
from email.utils import parsedate_to_datetime
from typing import Any

from dlassets.errors import PassingError
from dlassets.extras import CLUSTER, require
from dlassets.storage.stores import advice

LEASE_SECONDS = 60.0
# Stores tell times by the second.
_CLOCK_STEP = 2.0
_REFUSED = {404, 409, 412}
_log = logging.getLogger(__name__)


class OnlyWriter:
    """A claim of `owner` to be the only writer below `root`, an s3:// or s3a:// URI. Safe in many threads.

    It is given back when this process ends, unless `is_shared`: clients of a Connect server are one driver, which goes
    on without any of them.
    """

    def __init__(self, root: str, owner: str, *, is_shared: bool = False, seconds: float = LEASE_SECONDS) -> None:
        require(CLUSTER, "spark.only_writer on S3")
        import boto3

        self._root, self._owner, self._is_shared, self._seconds = root, owner, is_shared, seconds
        self._bucket, _, folder = root.partition("://")[2].partition("/")
        self._key = f"{folder}/spark-writer.json".lstrip("/")
        self._client = boto3.Session().client("s3")  # not the one whose credentials are kept
        self._asking, self._ended = threading.Lock(), threading.Event()
        self._until = 0.0  # by this process's own clock, counted from when it asked
        self._tag: str | None = None
        self._thread: threading.Thread | None = None

    def check(self) -> None:
        """Have the lease, for a commit that is made now.

        Raises PassingError where another has it, and where the store does not say whose it is.
        """
        with self._asking:
            if time.monotonic() >= self._until - self._seconds / 2:
                self._take_or_say_why()
            if self._thread is None:
                self._thread = threading.Thread(target=self._renew_now_and_then, daemon=True, name="only-writer")
                self._thread.start()
                if not self._is_shared:
                    atexit.register(self._leave)

    def _take_or_say_why(self) -> None:
        try:
            self._take()
        except PassingError:
            raise
        except Exception as error:  # whatever the store, the network or the credentials say
            raise PassingError(
                f"Nothing says who writes {self._root}, and spark.only_writer allows one: {advice(self._root, error)} "
                "Nothing was written."
            ) from error

    def give_back(self) -> None:
        """Let another have it at once."""
        self._ended.set()
        with self._asking:
            found = self._found() if self._tag else None
            if found is not None and found[0]["owner"] == self._owner:
                self._client.delete_object(Bucket=self._bucket, Key=self._key)
            self._tag, self._until = None, 0.0

    def _leave(self) -> None:
        try:
            self.give_back()
        except Exception as error:  # noqa: BLE001 - whatever the store or the network says, as the process ends
            _log.warning("The lease of %s could not be given back, and runs out by itself: %s", self._root, error)

    def _renew_now_and_then(self) -> None:
        while not self._ended.wait(self._seconds / 3):
            try:
                with self._asking:
                    self._take()
            except Exception as error:  # noqa: BLE001 - of the store, the network: the next commit looks again, and says it
                _log.warning("The lease of the only writer of %s could not be renewed: %s", self._root, error)

    def _take(self) -> None:
        asked = time.monotonic()
        if not (self._tag and self._put(IfMatch=self._tag)):
            self._take_from(self._found())
        self._until = asked + self._seconds

    def _take_from(self, found: tuple[dict[str, Any], str, float] | None) -> None:
        """Take what nobody has, what has run out, or what is this owner's by a request whose answer got lost."""
        if found is None:
            taken = self._put(IfNoneMatch="*")
        else:
            said, tag, age = found
            is_free = said["owner"] == self._owner or age > said["seconds"] + _CLOCK_STEP
            taken = is_free and self._put(IfMatch=tag)
        if not taken:
            now = self._found()
            raise PassingError(
                f"Another Spark driver writes {self._root}: {now[0]['owner'] if now else 'one that began just now'}. "
                "With spark.only_writer there is to be one, since each would undo what the other commits. Nothing was "
                f"written. Run again when it has ended (if it was killed, in {self._seconds:.0f} seconds), or let both "
                "have the log store of this package and set spark.only_writer to false."
            )

    def _put(self, **condition: str) -> bool:
        """Write the lease, and return whether the condition held."""
        body = {"owner": self._owner, "seconds": self._seconds, "written": uuid.uuid4().hex}
        try:
            answer = self._client.put_object(
                Bucket=self._bucket, Key=self._key, Body=json.dumps(body).encode(), **condition
            )
        except self._client.exceptions.ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] not in _REFUSED:
                raise
            self._tag = None
            return False
        self._tag = answer["ETag"]
        return True

    def _found(self) -> tuple[dict[str, Any], str, float] | None:
        """Return what the lease says, its tag, and how many seconds ago, by the store's clock, it was written."""
        try:
            found = self._client.get_object(Bucket=self._bucket, Key=self._key)
        except self._client.exceptions.NoSuchKey:
            return None
        date = found["ResponseMetadata"]["HTTPHeaders"].get("date")
        now = parsedate_to_datetime(date) if date else dt.datetime.now(dt.UTC)
        age = (now - found["LastModified"]).total_seconds()
        return json.loads(found["Body"].read()), found["ETag"], age
