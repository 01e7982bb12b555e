"""What can be wrong between valid settings and a first answer: port, network, TLS, key, clock.

Each check says one thing and, where it is wrong, the cure. Opens short-lived
connections of its own; knows nothing of the running gateway.
"""

import stat
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path

from gateway.app import bind
from gateway.configuration import Loaded, is_loopback
from gateway.doctor.findings import KEYS_PAGE, Finding, Mark, cannot_listen
from gateway.settings import Settings, Upstream
from gateway.upstream.origin import Origin

_PROXY_VARIABLES = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")


def examine(loaded: Loaded, environ: Mapping[str, str], now: datetime, *, timeout_s: float = 5.0) -> Iterator[Finding]:
    """All findings for valid settings, in the order in which one would put them right.

    `now` is this machine's time, with its zone. Upstream gets `timeout_s` to take the connection, and again to answer.
    """
    settings = loaded.settings
    yield Finding(Mark.GOOD, f"settings are valid ({loaded.file or 'no file'})")
    yield from _secret_file(settings.upstream)
    yield _port(settings)
    if settings.upstream.api_key is None:
        cure = f"set GMI_API_KEY; make a key at {KEYS_PAGE}"
        yield Finding(Mark.WARNING, "no upstream key: `serve` runs against the simulator", cure)
    yield from _ignored_proxy(settings.upstream, environ)
    # The HTTP client takes 50 ms to import, and `serve` imports this module.
    from gateway.doctor.network import examine_upstream  # noqa: PLC0415

    yield from examine_upstream(settings.upstream, now, timeout_s)


def _secret_file(upstream: Upstream) -> Iterator[Finding]:
    if upstream.api_key_file is None:
        return
    mode = Path(upstream.api_key_file).stat().st_mode
    if mode & (stat.S_IRGRP | stat.S_IROTH):
        who = "everyone" if mode & stat.S_IROTH else "its group"
        cure = f"chmod 600 {upstream.api_key_file}"
        yield Finding(Mark.WARNING, f"{upstream.api_key_file} can be read by {who} on this machine", cure)
    else:
        yield Finding(Mark.GOOD, f"{upstream.api_key_file} can be read by its owner alone")


def _port(settings: Settings) -> Finding:
    try:
        bind(settings).close()
    except OSError as error:
        return cannot_listen(settings.server, error)
    server = settings.server
    return Finding(Mark.GOOD, f"{server.host}:{server.port} is free" if server.port else "a free port will be taken")


def _ignored_proxy(upstream: Upstream, environ: Mapping[str, str]) -> Iterator[Finding]:
    set_here = [name for name in _PROXY_VARIABLES if environ.get(name)]
    if set_here and upstream.proxy is None and not is_loopback(Origin.from_url(upstream.base_url).host):
        text = f"{set_here[0]} is set, but the gateway uses a proxy only if its settings name one"
        cure = f'if the way out leads through it: GATEWAY_UPSTREAM_PROXY="${set_here[0]}"'
        yield Finding(Mark.WARNING, text, cure)
