"""What can be wrong between valid settings and a first answer: port, network, TLS, key, clock.

Each check says one thing and, where it is wrong, the cure. Opens short-lived
connections of its own; knows nothing of the running gateway.
"""

import stat
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path

from gateway.configuration import Doubt, Loaded, doubtful_settings, is_loopback, misspelt_variables
from gateway.doctor.findings import KEYS_PAGE, Finding, Mark
from gateway.doctor.port import examine_port
from gateway.settings import Upstream
from gateway.upstream.origin import Origin

_PROXY_VARIABLES = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")


def examine(loaded: Loaded, environ: Mapping[str, str], now: datetime, *, timeout_s: float = 5.0) -> Iterator[Finding]:
    """All findings for valid settings, in the order in which one would put them right.

    Without a key there is no upstream to look at, since the simulator stands in for it. `now` is this machine's
    time, with its zone. Each server gets `timeout_s` to take the connection, and again to answer.
    """
    settings = loaded.settings
    yield Finding(Mark.GOOD, f"settings are valid ({loaded.file or 'no file'})")
    yield from doubts(misspelt_variables(environ))
    yield from doubts(doubtful_settings(settings))
    yield from _secret_file(settings.upstream)
    yield examine_port(settings, timeout_s)
    if settings.upstream.api_key is None:
        cure = f"set GMI_API_KEY; make a key at {KEYS_PAGE}"
        yield Finding(Mark.WARNING, "no upstream key: `serve` runs against the simulator", cure)
        return
    yield from _ignored_proxy(settings.upstream, environ)
    # The HTTP client takes 50 ms to import, and `serve` imports this module.
    from gateway.doctor.network import examine_upstream  # noqa: PLC0415

    yield from examine_upstream(settings.upstream, now, timeout_s)


def doubts(found: Iterable[Doubt]) -> Iterator[Finding]:
    """What was hardly meant, as warnings."""
    for doubt in found:
        yield Finding(Mark.WARNING, doubt.text, doubt.cure)


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


def _ignored_proxy(upstream: Upstream, environ: Mapping[str, str]) -> Iterator[Finding]:
    set_here = [name for name in _PROXY_VARIABLES if environ.get(name)]
    if set_here and upstream.proxy is None and not is_loopback(Origin.from_url(upstream.base_url).host):
        text = f"{set_here[0]} is set, but the gateway uses a proxy only if its settings name one"
        cure = f'if the way out leads through it: GATEWAY_UPSTREAM_PROXY="${set_here[0]}"'
        yield Finding(Mark.WARNING, text, cure)
