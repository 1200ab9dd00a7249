"""A lake and its zones in buckets: events noted and read there, and a stream over what cannot be watched."""

import datetime as dt
import json
import threading

from dlassets.engines.base import Engine
from dlassets.intake.events import Manifest
from dlassets.pipeline.session import Session
from dlassets.pipeline.stream import stream
from dlassets.settings import LandingZone, Settings
from dlassets.storage.lake import Lake
from dlassets_tests.intake.test_ingest import photo
from dlassets_tests.storage.s3 import S3
from dlassets_tests.tables import get


def test_a_manifest_in_a_bucket_is_written_read_and_tidied(s3: S3, bucket: str) -> None:
    lake = Lake.at(f"s3a://{bucket}/lake")
    zone = LandingZone(uri=f"s3a://{bucket}/incoming", labelled=False)
    manifest = Manifest.of(lake, "new", zone)
    assert not manifest.pending()
    manifest.record([("a.jpg", "created"), ("b.jpg", "created")])
    record = {
        "eventName": "ObjectCreated:Put",
        "s3": {"bucket": {"name": bucket}, "object": {"key": "incoming/c+d.jpg"}},
    }
    s3.put(bucket, "lake/events/new/from-s3.jsonl", json.dumps({"Records": [record]}).encode() + b"\n")
    pending = manifest.pending()
    assert (set(pending.paths), pending.bad_lines) == ({"a.jpg", "b.jpg", "c d.jpg"}, 0)
    listed = dt.datetime.now(dt.UTC)
    manifest.advance(pending.position, listed)
    again = Manifest.of(lake, "new", zone)
    assert (bool(again.pending()), again.listed_at) == (False, listed)
    again.record([("d.jpg", "deleted")])
    assert again.pending().paths == ("d.jpg",)
    again.advance(again.end())
    assert not again.pending()
    again.request_listing()
    assert again.listed_at is None
    assert again.tidy(older_than_days=-1) == 3
    assert not again.pending()


def test_a_bucket_is_streamed_by_listing_it(local_engine: Engine, s3: S3, bucket: str, lake: Lake) -> None:
    zone = LandingZone(uri=f"s3a://{bucket}/incoming", labelled=False)
    settings = Settings(root=lake.root, landing={"photos": zone}, stream={"listing_seconds": 0.1})
    s3.put(bucket, "incoming/1.jpg", photo(1))
    stop = threading.Event()
    messages: list[str] = []
    seen: list[str] = []
    for batch in stream(Session(settings), stop, messages.append):
        if batch is None:
            continue
        seen += [row["path"] for row in get(local_engine, lake, "raw_images", "path") if row["path"] not in seen]
        if len(seen) == 2:
            stop.set()
        else:
            s3.put(bucket, "incoming/2.jpg", photo(2))
    assert (seen, messages) == (["photos/1.jpg", "photos/2.jpg"], [])
