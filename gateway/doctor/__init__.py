"""What can be wrong between valid settings and a first answer: ports, state, stores, network, TLS, key, clock.

Each check says one thing and, where it is wrong, the cure. Opens short-lived
connections of its own; knows nothing of the running gateway.
"""

import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.configuration import Doubt, Loaded, doubtful_settings, is_loopback, misspelt_variables
from gateway.doctor.findings import KEY_MISSING, KEYS_PAGE, Finding, Mark
from gateway.doctor.running import NO_KEY_HERE, UNSEEN, local_url, neighbours
from gateway.limits.redis_options import MEANS
from gateway.metering.prices import DEFAULT_FILE, PricesError, load_prices
from gateway.settings import Settings, Upstream
from gateway.upstream.origin import Origin

if TYPE_CHECKING:
    from gateway.store.residents import Resident

_PROXY_VARIABLES = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")

_SIMULATED = Finding(
    Mark.WARNING, "the settings ask for the simulator: no model is asked", "for the models, take out upstream.simulator"
)


def examine(loaded: Loaded, environ: Mapping[str, str], now: datetime, *, timeout_s: float = 5.0) -> Iterator[Finding]:
    """All findings for valid settings, in the order in which one would put them right.

    Without a key there is no upstream to look at: the simulator stands in for it, or a gateway runs already and has
    one that is not seen here. `now` is this machine's
    time, with its zone. Each server gets `timeout_s` to take the connection, and again to answer.
    """
    settings = loaded.settings
    yield Finding(Mark.GOOD, f"settings are valid ({loaded.file or 'no file'})")
    yield from doubts(misspelt_variables(environ))
    yield from doubts(doubtful_settings(settings, now))
    yield from _secret_file(settings.upstream.api_key_file)
    yield from _secret_file(settings.admin.key_file)
    yield from _secret_file(settings.alerts.webhook_secret_file)
    yield from _prices(settings)
    yield _limits(settings)
    # The gateway, which the ports are opened with, takes a second to import, and all commands import this module.
    from gateway.doctor.port import examine_ports  # noqa: PLC0415

    found = _residents(settings)
    ours = found[0] if len(found) == 1 and found[0].url else None
    has_one = yield from examine_ports(settings, timeout_s, ours)
    yield from _neighbours(settings, found, has_one=has_one)
    needs_key = False
    for finding in _stores(settings, now, timeout_s):
        needs_key = needs_key or finding == KEY_MISSING
        yield finding
    if settings.upstream.is_simulated:
        if settings.upstream.simulator:
            yield _SIMULATED
        elif (has_one or not needs_key) and (ours is None or ours.upstream is None):
            yield _no_key(has_one=has_one)
        return
    yield from _ignored_proxy(settings.upstream, environ)
    # As with the gateway: the HTTP client takes 50 ms.
    from gateway.doctor.network import examine_upstream  # noqa: PLC0415

    yield from examine_upstream(settings.upstream, now, timeout_s)


def doubts(found: Iterable[Doubt]) -> Iterator[Finding]:
    """What was hardly meant, as warnings."""
    for doubt in found:
        yield Finding(Mark.WARNING, doubt.text, doubt.cure)


def _no_key(*, has_one: bool) -> Finding:
    if has_one:
        return Finding(Mark.WARNING, NO_KEY_HERE, UNSEEN)
    cure = f"set GMI_API_KEY; make a key at {KEYS_PAGE}"
    return Finding(Mark.WARNING, "no upstream key: `serve` runs against the simulator", cure)


def _stores(settings: Settings, now: datetime, timeout_s: float) -> Iterator[Finding]:
    # Valid settings have a folder that can be written.
    yield Finding(Mark.GOOD, f"{Path(settings.server.state_dir).absolute()} can be written")
    # As with the HTTP client: SQLAlchemy and redis-py take longer to import than the rest.
    from gateway.doctor.database import examine_database  # noqa: PLC0415

    yield from examine_database(settings, int(now.timestamp()), timeout_s)
    if settings.redis.url is not None:
        from gateway.doctor.redis_server import examine_redis  # noqa: PLC0415

        yield examine_redis(settings.redis.url, timeout_s)


def _prices(settings: Settings) -> Iterator[Finding]:
    file = settings.prices.file
    try:
        prices = load_prices(None if file is None else Path(file))
    except PricesError as error:
        yield from (Finding(Mark.BAD, problem) for problem in error.problems)
        return
    if prices.priced:
        yield Finding(Mark.GOOD, f"there are prices ({prices.priced}, in {file or DEFAULT_FILE})")
    else:
        cure = f"write them into {file or DEFAULT_FILE} (docs/prices.md)"
        yield Finding(Mark.WARNING, "there are no prices, so that no call draws on a budget", cure)


def _limits(settings: Settings) -> Finding:
    if settings.redis.url is None:
        return Finding(Mark.GOOD, "limits are counted in memory, by the settings seen here; redis.url shares them")
    mode = settings.limits.on_redis_failure
    return Finding(Mark.GOOD, f"limits are shared in Redis; while it is away they are {MEANS[mode]} ({mode})")


def _residents(settings: Settings) -> "Sequence[Resident]":
    from gateway.store.residents import residents  # noqa: PLC0415 - it may be asked, but not waited for by all commands

    return residents(Path(settings.server.state_dir))


def _neighbours(settings: Settings, found: "Sequence[Resident]", *, has_one: bool) -> Iterator[Finding]:
    """`has_one`: a gateway runs where these settings say, so only the others are worth a word."""
    mine = local_url(settings.server.host, settings.server.port) if has_one else None
    if len(found) > 1 and settings.redis.url is None:
        yield neighbours([each for each in found if each.url != mine])


def _secret_file(name: str | None) -> Iterator[Finding]:
    if name is None:
        return
    mode = Path(name).stat().st_mode
    if mode & (stat.S_IRGRP | stat.S_IROTH):
        who = "everyone" if mode & stat.S_IROTH else "its group"
        yield Finding(Mark.WARNING, f"{name} can be read by {who} on this machine", f"chmod 600 {name}")
    else:
        yield Finding(Mark.GOOD, f"{name} can be read by its owner alone")


def _ignored_proxy(upstream: Upstream, environ: Mapping[str, str]) -> Iterator[Finding]:
    set_here = [name for name in _PROXY_VARIABLES if environ.get(name)]
    if set_here and upstream.proxy is None and not is_loopback(Origin.from_url(upstream.base_url).host):
        text = f"{set_here[0]} is set, but the gateway uses a proxy only if its settings name one"
        cure = f'if the way out leads through it: GATEWAY_UPSTREAM_PROXY="${set_here[0]}"'
        yield Finding(Mark.WARNING, text, cure)
