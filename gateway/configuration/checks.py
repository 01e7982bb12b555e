"""What no single setting shows: settings that do not go together.

Pure but for two checks: one loads the file of certificate authorities, one
looks a host name up that is about to be refused anyway, to say why.
Each check yields the paths that it looked at, the one to report first.
"""

import ipaddress
import socket
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256

from pydantic import SecretStr

from gateway.configuration.problems import Path
from gateway.settings import Key, Settings, Upstream


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


def _open_to_all(settings: Settings) -> Iterator[Conflict]:
    if settings.keys or is_loopback(settings.server.host):
        return
    if (reason := _why_unresolved(settings.server.host)) is not None:
        cure = "write an address of this machine, such as 127.0.0.1"
        yield Conflict((("server", "host"),), f"does not resolve: {reason}", cure)
        return
    yield Conflict(
        (("server", "host"), ("keys",)),
        "listens beyond this machine while no keys are configured, so that whoever reaches it could spend the"
        " account's money",
        "add a key under `keys:` (or in GATEWAY_KEYS) with name, team and secret; make the secret with:"
        " openssl rand -hex 24",
    )


def _why_unresolved(host: str) -> str | None:
    try:
        socket.getaddrinfo(host, None)
    except (OSError, UnicodeError) as error:
        return getattr(error, "strerror", None) or "not a host name"
    return None


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
    for index, key in enumerate(settings.keys):
        if _digest(key) == account_key:
            yield Conflict(
                (("keys", index), ("upstream", "api_key")),
                "is the key of the account, which nobody is to hold",
                "give it a secret of its own: openssl rand -hex 24",
            )


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
    if upstream.api_key is None and upstream.base_url != Upstream().base_url:
        yield Conflict(
            (("upstream", "base_url"), ("upstream", "api_key"), ("upstream", "api_key_file")),
            "is set, but there is no key for it",
            "set GMI_API_KEY, GMI_API_KEY_FILE or upstream.api_key, or take it out to run the simulator",
        )


_CHECKS = (
    _open_to_all,
    _native_with_proxy,
    _aliases_of_aliases,
    _twins_in_a_team,
    _twin_secrets,
    _account_key_in_other_hands,
    _unusable_authorities,
    _upstream_without_key,
)
