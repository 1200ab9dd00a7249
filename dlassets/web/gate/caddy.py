"""The configuration of Caddy, the proxy: which server has which path, and that the gate is asked first.

Caddy ends TLS, asks the gate about each request (its `forward_auth`), and adds who asks, by headers that it takes away
from what comes from outside. It reads the secret that servers know it by when it starts: no secret is in the text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from dlassets.errors import SettingsError
from dlassets.settings import LOOPBACK, AccessSettings
from dlassets.web.gate.cookies import COOKIE
from dlassets.web.gate.policy import DAGSTER, LABEL, LABEL_STUDIO, MLFLOW, PAGES, PART_HEADER, SERVE
from dlassets.web.identity import PROXY_HEADER, ROLES_HEADER, USER_HEADER

# Below which path of the one address each server answers.
PATHS = {DAGSTER: "/dagster", MLFLOW: "/mlflow", SERVE: "/serve", LABEL: "/label", LABEL_STUDIO: "/label-studio"}
# Tasks of Label Studio name their photos so, whatever path it is below.
_FURTHER = {LABEL_STUDIO: ("/data/upload/*",)}
SECRET_VARIABLE = "DLASSETS_ACCESS__PROXY_SECRET"  # noqa: S105 - the variable's name


@dataclass(frozen=True)
class Upstreams:
    """Where the servers listen, each as host:port; None of those that are not there.

    `dagster` is writable; both of Dagster's have `--path-prefix /dagster`, and MLflow's `--static-prefix /mlflow`.
    `label` is `dlassets label`, or what `served` is (`dlassets serve`), which has the same page.
    """

    gate: str
    pages: str
    dagster: str
    dagster_read_only: str
    mlflow: str
    served: str | None = None
    label: str | None = None
    label_studio: str | None = None


@dataclass(frozen=True)
class Tls:
    """Where the certificate comes from: files of yours, or Caddy's own authority, which browsers do not know."""

    certificate: Path | None = None
    key: Path | None = None

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise SettingsError("A certificate needs its key, and a key its certificate: name both files, or neither.")


@dataclass(frozen=True)
class Proxy:
    """What Caddy is to do. `bind` is the address of this machine that is listened on; `url` is access.url.

    `data` is a folder for its own authority's keys. `secret_file` holds access.proxy_secret; None: Caddy is started
    with the variable DLASSETS_ACCESS__PROXY_SECRET.
    """

    url: str
    upstreams: Upstreams
    data: Path
    tls: Tls = Tls()
    bind: str = "127.0.0.1"
    secret_file: Path | None = None


def addresses(url: str) -> Mapping[str, str]:
    """Return the variables of all servers behind the proxy: where people reach each, which their guards ask for."""
    return {
        "DLASSETS_ACCESS__URL": url,
        "DLASSETS_UI__PAGES": url,
        "DLASSETS_UI__DAGSTER": url + PATHS[DAGSTER],
        "DLASSETS_UI__MLFLOW": url + PATHS[MLFLOW],
        "DLASSETS_UI__LABEL": url + PATHS[LABEL] + "/",
    }


def caddyfile(proxy: Proxy) -> str:
    """Return the text of the Caddyfile. Raises SettingsError for an address that is read without TLS elsewhere."""
    address = urlsplit(AccessSettings(url=proxy.url).url or "")
    if address.scheme == "http" and not {address.hostname, proxy.bind} <= LOOPBACK:
        raise SettingsError(
            f"{proxy.url} is no https://…, and is listened on by {proxy.bind}: passwords could be read on their way. "
            "Without TLS there is a gate on 127.0.0.1 alone."
        )
    secret = f"{{file.{proxy.secret_file}}}" if proxy.secret_file else f"{{env.{SECRET_VARIABLE}}}"
    return _TEMPLATE.format(
        data=_quoted(str(proxy.data)),
        site=f"{address.scheme}://{address.netloc}",
        bind=_quoted(proxy.bind),
        tls="" if address.scheme == "http" else f"\n\t{_tls(proxy.tls)}",
        gate=proxy.upstreams.gate,
        secret=_quoted(secret),
        proxy=PROXY_HEADER,
        part=PART_HEADER,
        user=USER_HEADER,
        roles=ROLES_HEADER,
        cookie=COOKIE,
        parts="".join(_parts(proxy.upstreams)),
    )


def _tls(tls: Tls) -> str:
    if tls.certificate is None:
        return "tls internal"
    return f"tls {_quoted(str(tls.certificate))} {_quoted(str(tls.key))}"


def _parts(upstreams: Upstreams) -> list[str]:
    dagster = [
        f"@operator header {ROLES_HEADER} *operator*",
        *_ours(upstreams.dagster, "@operator "),
        *_ours(upstreams.dagster_read_only),
    ]
    parts = [_part(DAGSTER, dagster), _part(MLFLOW, [f"reverse_proxy {upstreams.mlflow}"])]
    if upstreams.served:
        parts.append(_part(SERVE, [f"uri strip_prefix {PATHS[SERVE]}", *_ours(upstreams.served)]))
    if label := upstreams.label or upstreams.served:
        parts.append(_part(LABEL, _ours(label)))
    if upstreams.label_studio:
        strip = f"uri strip_prefix {PATHS[LABEL_STUDIO]}"
        parts.append(_part(LABEL_STUDIO, [strip, f"reverse_proxy {upstreams.label_studio}"]))
    return [*parts, _part(PAGES, _ours(upstreams.pages))]


def _part(part: str, lines: list[str]) -> str:
    path = PATHS.get(part)
    paths = " ".join([f"{path} {path}/*", *_FURTHER.get(part, ())])
    opened = f"\t\t@{part} path {paths}\n\t\thandle @{part} {{\n" if path else "\t\thandle {\n"
    body = "".join(f"\t\t\t\t{line}\n" for line in (f"import ask {part}", *lines))
    return f"{opened}\t\t\troute {{\n{body}\t\t\t}}\n\t\t}}\n"


def _ours(upstream: str, matcher: str = "") -> list[str]:
    """Return how a request is handed to a server of dlassets, which is to know that it comes by the proxy."""
    return [f"reverse_proxy {matcher}{upstream} {{", "\timport known", "}"]


def _quoted(text: str) -> str:
    """Return a word of a Caddyfile. Raises SettingsError for one that would be more than a word."""
    if any(character in text for character in '"`\n\r'):
        raise SettingsError(f"{text!r} cannot be in a Caddyfile: it holds a quote or a line break.")
    return f'"{text}"'


_TEMPLATE = """\
# Written by dlassets (dlassets/web/gate/caddy.py): changes are lost when it is written again.
{{
	admin off
	persist_config off
	skip_install_trust
	auto_https disable_redirects
	storage file_system {data}
}}

# What the servers behind know the proxy by.
(known) {{
	header_up {proxy} {secret}
}}

(ask) {{
	forward_auth {gate} {{
		uri /check
		import known
		header_up {part} {{args[0]}}
		header_up -Connection
		header_up -Upgrade
		copy_headers {user} {roles} Authorization
	}}
	# Who has it is that person, whichever server it is.
	request_header Cookie "(^|; *){cookie}=[^;]*" ""
}}

{site} {{
	bind {bind}{tls}
	route {{
		request_header -{user}
		request_header -{roles}
		request_header -{part}
		request_header -{proxy}
		handle /gate/* {{
			reverse_proxy {gate} {{
				import known
			}}
		}}
{parts}	}}
}}
"""
