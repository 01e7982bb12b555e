"""What no single setting shows: settings that do not go together.

Pure but for two checks: one loads the file of certificate authorities, one
asks whether the folder of what is kept can be written.
Each check yields the paths that it looked at, the one to report first.
"""

import importlib.util
import ipaddress
import os
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path as FilePath
from typing import TYPE_CHECKING

from pydantic import SecretStr

from gateway.configuration.problems import Path
from gateway.settings import Admin, Key, Settings, Upstream
from gateway.settings.shapes import host_and_port

if TYPE_CHECKING:
    from gateway.settings.telemetry import Metrics


@dataclass(frozen=True, slots=True)
class Conflict:
    """Settings that do not go together; `paths[0]` is where it is reported."""

    paths: tuple[Path, ...]
    reason: str
    cure: str


def find_conflicts(settings: Settings) -> list[Conflict]:
    """All conflicts, in no order that matters."""
    return [conflict for check in _CHECKS for conflict in check(settings)]


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens on `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _native_with_proxy(settings: Settings) -> Iterator[Conflict]:
    if settings.upstream.transport == "native" and settings.upstream.proxy is not None:
        yield Conflict(
            (("upstream", "transport"), ("upstream", "proxy")),
            "native does not speak to proxies",
            "set it to auto or httpx2, or take upstream.proxy out",
        )


def _aliases_of_aliases(settings: Settings) -> Iterator[Conflict]:
    aliases = settings.models.aliases
    for alias, name in aliases.items():
        if name in aliases:
            what = "itself" if name == alias else "another alias"
            yield Conflict(
                (("models", "aliases", alias),),
                f"points to {what}, and an alias is looked up once only",
                "write the name that upstream knows",
            )


def _twins_in_a_team(settings: Settings) -> Iterator[Conflict]:
    for index, first in _twins(settings.keys, lambda key: (key.team, key.name)):
        yield Conflict(
            (("keys", index, "name"), ("keys", first, "name"), ("keys", index, "team")),
            f"is the name of keys[{first}] too, in the same team, so that logs could not tell them apart",
            "give each key of a team a name of its own",
        )


def _twin_secrets(settings: Settings) -> Iterator[Conflict]:
    for index, first in _twins(settings.keys, _digest):
        yield Conflict(
            (("keys", index), ("keys", first)),
            f"has the same secret as keys[{first}]",
            "give each key a secret of its own: openssl rand -hex 24",
        )


def _account_key_in_other_hands(settings: Settings) -> Iterator[Conflict]:
    if settings.upstream.api_key is None:
        return
    account_key = _sha256(settings.upstream.api_key)
    for path, digest in _holders(settings):
        if digest == account_key:
            yield Conflict(
                (path, ("upstream", "api_key")),
                "is the key of the account, which nobody is to hold",
                "give it a secret of its own: openssl rand -hex 24",
            )


def _admin_key_in_other_hands(settings: Settings) -> Iterator[Conflict]:
    if settings.admin.key is None:
        return
    admin_key = _sha256(settings.admin.key)
    for index, key in enumerate(settings.keys):
        if _digest(key) == admin_key:
            yield Conflict(
                (("keys", index), ("admin", "key")),
                "has the secret of admin.key",
                "give each key a secret of its own: openssl rand -hex 24",
            )


def _holders(settings: Settings) -> Iterator[tuple[Path, str | None]]:
    """Where a secret of the gateway's own stands, and its SHA-256."""
    if settings.admin.key is not None:
        yield ("admin", "key"), _sha256(settings.admin.key)
    if settings.metrics.token is not None:
        yield ("metrics", "token"), _sha256(settings.metrics.token)
    for index, key in enumerate(settings.keys):
        yield ("keys", index), _digest(key)


def _twins(keys: tuple[Key, ...], identity: Callable[[Key], object]) -> Iterator[tuple[int, int]]:
    first_of: dict[object, int] = {}
    for index, key in enumerate(keys):
        first = first_of.setdefault(identity(key), index)
        if first != index:
            yield index, first


def _digest(key: Key) -> str | None:
    return key.secret_sha256 if key.secret is None else _sha256(key.secret)


def _sha256(secret: SecretStr) -> str:
    return sha256(secret.get_secret_value().encode()).hexdigest()


def _unusable_authorities(settings: Settings) -> Iterator[Conflict]:
    if settings.upstream.ca_file is None:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=settings.upstream.ca_file)
    except ssl.SSLError:
        reason = "holds no certificate that can be read"
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = f"cannot be read: {getattr(error, 'strerror', 'not a path')}"
    else:
        return
    yield Conflict((("upstream", "ca_file"),), reason, "name a PEM file of certificates, readable by this user")


def _upstream_without_key(settings: Settings) -> Iterator[Conflict]:
    # The default may be spelled out: the file that is shipped does so, and runs the simulator.
    upstream = settings.upstream
    if not upstream.simulator and upstream.api_key is None and upstream.base_url != Upstream().base_url:
        yield Conflict(
            (("upstream", "base_url"), ("upstream", "api_key"), ("upstream", "api_key_file")),
            "is set, but there is no key for it",
            "set GMI_API_KEY, GMI_API_KEY_FILE or upstream.api_key, or take it out to run the simulator",
        )


def _unsigned_alerts(settings: Settings) -> Iterator[Conflict]:
    if settings.alerts.webhook_url is not None and settings.alerts.webhook_secret is None:
        yield Conflict(
            (("alerts", "webhook_url"), ("alerts", "webhook_secret"), ("alerts", "webhook_secret_file")),
            "is set, but there is no secret to sign alerts with",
            "set alerts.webhook_secret or alerts.webhook_secret_file: openssl rand -hex 24",
        )


def _workers_that_share_no_limits(settings: Settings) -> Iterator[Conflict]:
    if settings.server.workers > 1 and settings.redis.url is None:
        yield Conflict(
            (("server", "workers"), ("redis", "url")),
            "several workers without Redis would each admit all that limits allow, so that these would not hold",
            "set redis.url, or leave it at 1: one worker serves thousands of calls at once",
        )


def _sums_without_their_calls(settings: Settings) -> Iterator[Conflict]:
    calls, sums = settings.ledger.calls_retention_days, settings.ledger.days_retention_days
    if sums and (not calls or sums < calls):
        yield Conflict(
            (("ledger", "days_retention_days"), ("ledger", "calls_retention_days")),
            "would delete sums by day while ledger.calls_retention_days keeps their calls",
            "keep the sums as long as the calls, or for ever: 0",
        )


def _addresses_for_nothing(settings: Settings) -> Iterator[Conflict]:
    sections: tuple[tuple[str, Admin | Metrics, str, str], ...] = (
        ("admin", settings.admin, "the admin API", "administration is"),
        ("metrics", settings.metrics, "metrics", "metrics are"),
    )
    for name, section, what, where in sections:
        if section.listen is None:
            continue
        if not section.enabled:
            yield Conflict(
                ((name, "listen"), (name, "enabled")),
                f"is set while {name}.enabled is false",
                f"take it out, or enable {what}",
            )
        server = settings.server
        if _is_one_address(host_and_port(section.listen), (server.host, server.port)):
            yield Conflict(
                ((name, "listen"), ("server", "port"), ("server", "host")),
                "is the address of the calls",
                f"choose another port, or take it out: then {where} where the calls go",
            )


def _two_on_one_address(settings: Settings) -> Iterator[Conflict]:
    admin, metrics = settings.admin.listen, settings.metrics.listen
    if admin is not None and metrics is not None and _is_one_address(host_and_port(admin), host_and_port(metrics)):
        yield Conflict(
            (("metrics", "listen"), ("admin", "listen")), "is the address of administration", "choose another port"
        )


def _is_one_address(one: tuple[str, int], other: tuple[str, int]) -> bool:
    """Whether two servers could not listen on both."""
    is_one_host = one[0] == other[0] or _is_any(one[0]) or _is_any(other[0])
    return is_one_host and one[1] == other[1] != 0


def _is_any(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def _traces_without_the_extra(settings: Settings) -> Iterator[Conflict]:
    if settings.traces.endpoint is not None and not _is_installed("opentelemetry.exporter.otlp.proto.http"):
        yield Conflict(
            (("traces", "endpoint"),),
            "is set, but OpenTelemetry's exporter is not installed",
            "install it (docs/operations.md#traces), or take the setting out",
        )


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # nor the package that it is in
        return False


def _unwritable_state(settings: Settings) -> Iterator[Conflict]:
    folder = settings.server.state_dir
    if (reason := _why_unwritable(folder)) is not None:
        cure = "name a folder that this user may write to (in a container, mount a volume there)"
        yield Conflict((("server", "state_dir"),), reason, cure)


def _why_unwritable(folder: str) -> str | None:
    """Why nothing could be kept in `folder`, which need not be there yet; None if it can be."""
    if "\0" in folder:
        return "is not a path"
    path = FilePath(folder).absolute()
    try:
        there = next(part for part in (path, *path.parents) if part.exists())
    except OSError as error:
        return f"cannot be reached: {error.strerror}"
    if not there.is_dir():
        return "is not a folder" if there == path else "cannot be made: below a file"
    may = os.access(there, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids)
    return None if may else "cannot be written"


_CHECKS = (
    _native_with_proxy,
    _aliases_of_aliases,
    _twins_in_a_team,
    _twin_secrets,
    _account_key_in_other_hands,
    _admin_key_in_other_hands,
    _addresses_for_nothing,
    _two_on_one_address,
    _unwritable_state,
    _unusable_authorities,
    _upstream_without_key,
    _unsigned_alerts,
    _traces_without_the_extra,
    _workers_that_share_no_limits,
    _sums_without_their_calls,
)
