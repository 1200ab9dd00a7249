"""Object storage, configured in one way for all that read and write it: the standard `AWS_*` variables.

delta-rs reads them by itself, Arrow is given them here, and Spark's S3A is told the same. No secret passes through a
setting: Arrow, delta-rs and S3A each look for credentials where Amazon's own tools do (variables, a profile, a role).
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from dlassets.errors import DlassetsError

if TYPE_CHECKING:
    import pyarrow.fs as pafs

ENDPOINT = "AWS_ENDPOINT_URL"
ALLOW_HTTP = "AWS_ALLOW_HTTP"
REGIONS = ("AWS_REGION", "AWS_DEFAULT_REGION")

_PLAIN_HTTP = f"{ENDPOINT} is plain http: set {ALLOW_HTTP}=true where that is meant, or an address with https."

# Arrow's tries of one request, with growing pauses between: a busy store answers 503 for seconds.
ATTEMPTS = 4

# S3A is of the Hadoop that pyspark carries, and the SDK the one that this S3A was built with.
HADOOP = "3.5.0"
AWS_SDK = "2.35.4"
S3A_JARS = (
    f"org.apache.hadoop:hadoop-aws:{HADOOP}",
    f"software.amazon.awssdk:s3:{AWS_SDK}",
    f"software.amazon.awssdk:s3-transfer-manager:{AWS_SDK}",
    f"software.amazon.awssdk:sts:{AWS_SDK}",  # roles of a service account on Kubernetes
)
# hadoop-aws asks for the whole SDK, 640 MB, of which it uses these modules.
S3A_EXCLUDED = "software.amazon.awssdk:bundle"
# What Spark's driver found in its variables goes to the executors first; then what Arrow and delta-rs look at as well.
S3A_CREDENTIALS = (
    "org.apache.hadoop.fs.s3a.TemporaryAWSCredentialsProvider",
    "org.apache.hadoop.fs.s3a.SimpleAWSCredentialsProvider",
    "software.amazon.awssdk.auth.credentials.DefaultCredentialsProvider",
)


def on_s3(uri: str) -> bool:
    return uri.startswith(("s3://", "s3a://"))


def is_object_storage(uri: str) -> bool:
    return "://" in uri and not uri.startswith("file://")


def filesystem_of(uri: str) -> tuple[pafs.FileSystem, str]:
    """Return what reads a path or URI, and the path in it.

    Nothing in a URI counts as escaped: a `%`, `#` or `?` is part of a name. Raises DlassetsError where the variables
    contradict each other.
    """
    import pyarrow.fs as pafs

    scheme, separator, rest = uri.partition("://")
    if not separator or scheme == "file":
        return pafs.LocalFileSystem(), _folder(rest if separator else uri)
    if on_s3(uri):
        return _s3(), _folder(rest)
    place, _, path = rest.partition("/")
    filesystem, base = pafs.FileSystem.from_uri(f"{scheme}://{place}")
    return filesystem, _folder(f"{base}/{path}")


_opened = functools.lru_cache(filesystem_of)


def cached_filesystem_of(uri: str) -> tuple[pafs.FileSystem, str]:
    """Return what `filesystem_of` does; a store is opened once a process, and not for each of a thousand files."""
    if not is_object_storage(uri):
        return filesystem_of(uri)
    scheme, _, rest = uri.partition("://")
    name, _, path = rest.partition("/")
    filesystem, base = _opened(f"{scheme}://{name}")
    return filesystem, _folder(f"{base}/{path}")


def _folder(path: str) -> str:
    return path.rstrip("/") or "/"


def _s3() -> pafs.FileSystem:
    import pyarrow.fs as pafs

    # Arrow finds the region and the credentials by itself, but not the endpoint.
    scheme, _, host = (endpoint(os.environ) or "https://").partition("://")
    return pafs.S3FileSystem(
        scheme=scheme,
        endpoint_override=host or None,
        retry_strategy=pafs.AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS),
    )


def endpoint(environment: Mapping[str, str]) -> str | None:
    """Return the store's address; None for Amazon's own.

    Raises DlassetsError for an address that is none, and for plain http where that is not said to be meant.
    """
    address = environment.get(ENDPOINT) or None
    if address is None:
        return None
    if not re.match(r"https?://[^/]", address):
        raise DlassetsError(
            f"{ENDPOINT}={address} is no address. Set it to one such as https://minio.example.com:9000."
        )
    allowed = environment.get(ALLOW_HTTP, "").lower() in {"true", "1", "yes", "on"}
    if address.startswith("http://") and not allowed:
        raise DlassetsError(_PLAIN_HTTP)
    return address


def s3a_config(uris: Iterable[str], environment: Mapping[str, str]) -> dict[str, str]:
    """Return the Spark settings that reading and writing these URIs takes; none where none is on S3.

    Raises DlassetsError as `endpoint` does.
    """
    if not any(on_s3(uri) for uri in uris):
        return {}
    config = {
        "spark.jars.packages": ",".join(S3A_JARS),
        "spark.jars.excludes": S3A_EXCLUDED,
        "spark.hadoop.fs.s3a.aws.credentials.provider": ",".join(S3A_CREDENTIALS),
        # The stream that is the default gives up where a connection breaks off; this one reads on from there.
        "spark.hadoop.fs.s3a.input.stream.type": "classic",
    }
    if address := endpoint(environment):
        # A store that is not Amazon's rarely has a host name for each bucket.
        config |= {"spark.hadoop.fs.s3a.endpoint": address, "spark.hadoop.fs.s3a.path.style.access": "true"}
    if region := next(filter(None, map(environment.get, REGIONS)), None):
        config["spark.hadoop.fs.s3a.endpoint.region"] = region
    return config


# What the three say of the same trouble, each in its own words; the first that fits counts.
_TROUBLES = {
    r"NoSuchBucket|NO_SUCH_BUCKET": "There is no such bucket: create {bucket}, or change the URI.",
    r"URL scheme is not allowed": _PLAIN_HTTP,
    r"InvalidAccessKeyId|INVALID_ACCESS_KEY_ID|SignatureDoesNotMatch|SIGNATURE|ExpiredToken|EXPIRED_TOKEN|InvalidToken"
    r"|AccessDenied|ACCESS_DENIED|403|[Cc]redential|169\.254\.\d": (
        "The store takes no requests with these credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and "
        "AWS_SESSION_TOKEN, where they are temporary) or give the machine a role, and let it list, read and write "
        "{bucket}."
    ),
    r"NETWORK_CONNECTION|HTTP error|[Tt]imed? ?out|[Cc]onnect": (
        f"The store does not answer: set {ENDPOINT} to its address (now {{endpoint}}) and AWS_REGION to its region."
    ),
}


def advice(uri: str, error: object) -> str:
    """Return what storage said, in a line, and what to do about it: for the end of a DlassetsError's message."""
    message = one_line(str(error))
    if not on_s3(uri):
        return f"{message}. Check that the place exists, has room and is yours to write."
    bucket = uri.split("://", 1)[1].split("/", 1)[0]
    address = os.environ.get(ENDPOINT) or "unset, which means Amazon's own"
    for pattern, remedy in _TROUBLES.items():
        if re.search(pattern, message):
            return f"{message}. {remedy.format(bucket=bucket, endpoint=address)}"
    return f"{message}. It was tried several times: run again when the store is well."


def one_line(message: str) -> str:
    """Return what storage said without colours, line breaks and the XML around it."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", message)
    found = re.search(r"<Code>(\w+)</Code>\s*<Message>(.*?)</Message>", plain, re.DOTALL)
    return (f"{found[1]}: {found[2]}" if found else " ".join(plain.replace("↳", "").split())).rstrip(".")


def concerns_one_file(error: OSError) -> bool:
    """Whether a file cannot be read for a reason of its own, and not because its storage fails just now.

    A system's own file systems number their errors; Arrow's object stores do not.
    """
    return error.errno is not None or re.search(r"ACCESS_DENIED|InvalidObjectState", str(error)) is not None
