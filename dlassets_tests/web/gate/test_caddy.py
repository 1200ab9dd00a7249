"""The text of the Caddyfile: what is asked before what, and what is never in it."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from dlassets.errors import SettingsError
from dlassets.settings import load_settings
from dlassets.web.gate.caddy import Proxy, Tls, Upstreams, addresses, caddyfile

UPSTREAMS = Upstreams("127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3", "127.0.0.1:4", "127.0.0.1:5")
DATA = Path("/var/lib/dlassets/caddy")


def test_the_gate_is_asked_before_each_server_and_headers_of_strangers_are_taken_away_first() -> None:
    text = caddyfile(Proxy("https://lake.example.com", UPSTREAMS, DATA))

    site = text[text.index("https://lake.example.com {") :]
    order = re.findall(r"(request_header -X-\S+|import ask \w+|reverse_proxy .*?) ?\{?$", site, re.MULTILINE)
    assert order == [
        "request_header -X-Dlassets-User",
        "request_header -X-Dlassets-Roles",
        "request_header -X-Dlassets-Part",
        "request_header -X-Dlassets-Proxy",
        "reverse_proxy 127.0.0.1:1",
        "import ask dagster",
        "reverse_proxy @operator 127.0.0.1:3",
        "reverse_proxy 127.0.0.1:4",
        "import ask mlflow",
        "reverse_proxy 127.0.0.1:5",
        "import ask pages",
        "reverse_proxy 127.0.0.1:2",
    ]


def test_a_secret_is_named_and_not_told_and_certificates_are_files() -> None:
    by_variable = caddyfile(Proxy("https://lake.example.com", UPSTREAMS, DATA))
    tls = Tls(Path("/etc/lake.pem"), Path("/etc/lake.key"))
    by_file = caddyfile(Proxy("https://lake.example.com", UPSTREAMS, DATA, tls, secret_file=Path("/run/secrets/proxy")))

    assert '"{env.DLASSETS_ACCESS__PROXY_SECRET}"' in by_variable
    assert "tls internal" in by_variable
    assert '"{file./run/secrets/proxy}"' in by_file
    assert 'tls "/etc/lake.pem" "/etc/lake.key"' in by_file


def test_without_tls_nobody_but_this_machine_is_answered() -> None:
    text = caddyfile(Proxy("http://127.0.0.1:8080", UPSTREAMS, DATA))
    assert "tls" not in text[text.index("http://127.0.0.1:8080 {") :]

    for url, bind in (("http://lake.example.com", "127.0.0.1"), ("http://127.0.0.1:8080", "0.0.0.0")):
        with pytest.raises(SettingsError, match="passwords could be read on their way"):
            caddyfile(Proxy(url, UPSTREAMS, DATA, bind=bind))
    with pytest.raises(SettingsError, match="A certificate needs its key"):
        Tls(Path("/etc/lake.pem"))
    with pytest.raises(SettingsError, match="holds a quote or a line break"):
        caddyfile(Proxy("https://lake.example.com", UPSTREAMS, Path('/a"b')))


def test_servers_behind_it_are_told_where_people_reach_them() -> None:
    settings = load_settings(dict(addresses("https://lake.example.com")))

    assert settings.access.url == settings.ui.pages == "https://lake.example.com"
    assert settings.ui.mlflow == "https://lake.example.com/mlflow"
    assert settings.ui.label == "https://lake.example.com/label/"


def test_photos_of_label_studio_s_tasks_are_asked_for_at_it_whatever_path_it_is_below() -> None:
    text = caddyfile(Proxy("https://lake.example.com", replace(UPSTREAMS, label_studio="127.0.0.1:6"), DATA))

    assert "@label_studio path /label-studio /label-studio/* /data/upload/*\n" in text
    assert "/data/upload" not in caddyfile(Proxy("https://lake.example.com", UPSTREAMS, DATA))
