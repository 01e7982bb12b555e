"""What is allowed, but was hardly meant: told, and not refused.

Knows the names of all variables, and which names container platforms make up.
Never holds the value of a variable.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from difflib import get_close_matches
from ipaddress import ip_network
from urllib.parse import urlsplit

from gateway.configuration.environment import GMI_VARIABLES, KEYS_VARIABLE, VARIABLES, is_made_up, is_ours, variable_of
from gateway.configuration.file import FILE_VARIABLE
from gateway.configuration.problems import showable
from gateway.settings import SECTIONS, Settings

_SECTIONS = frozenset(variable_of((section,)) for section in SECTIONS)
_CUTOFFS = {"GATEWAY": 0.85, "GMI": 0.75}
"""How alike two names must be, by difflib's ratio: half of a long name is its prefix, so it takes more."""


@dataclass(frozen=True, slots=True)
class Doubt:
    """One thing to look at again, and what was perhaps meant."""

    text: str
    cure: str


def misspelt_variables(environ: Mapping[str, str]) -> Iterator[Doubt]:
    """Variables that are nothing to the gateway, but nearly have the name of one that is, or that of a section."""
    for name, value in environ.items():
        if value and not _is_known(name, value) and not is_made_up(name, value):
            for cure in _cures(name.upper()):
                yield Doubt(f"{showable(name)} is set and means nothing here", cure)


def doubtful_settings(settings: Settings, now: datetime | None = None) -> Iterator[Doubt]:
    """Valid settings that are seldom right. `now`, with its zone, is by default the time."""
    url = settings.upstream.base_url
    if not urlsplit(url).path:
        yield Doubt("upstream.base_url has no path", f"most APIs sit under /v1: {url}/v1")
    yield from _proxies_without_end(settings)
    yield from _expired_keys(settings, now or datetime.now(UTC))


def _proxies_without_end(settings: Settings) -> Iterator[Doubt]:
    if any(ip_network(network).prefixlen == 0 for network in settings.server.trusted_proxies):
        text = "server.trusted_proxies holds every address, so that clients may claim to be anywhere"
        yield Doubt(text, "name the networks of the proxies alone")


def _expired_keys(settings: Settings, now: datetime) -> Iterator[Doubt]:
    for index, key in enumerate(settings.keys):
        if key.expires_at is not None and key.expires_at <= now:
            yield Doubt(
                f"keys[{index}].expires_at is past: {key.expires_at.isoformat()}", "take the key out or renew it"
            )


def _is_known(name: str, value: str) -> bool:
    # One that begins with a section is a setting, or refused as an unknown one; so are parts of the list of keys.
    return is_ours(name, value) or name.startswith(f"{KEYS_VARIABLE}_") or name in (FILE_VARIABLE, *GMI_VARIABLES)


def _cures(name: str) -> list[str]:
    if name in _SECTIONS:
        first = next(variable for variable in VARIABLES if variable.startswith(f"{name}_"))
        return [f"a section has a variable for each of its settings, as {first}"]
    return [f"did you mean {meant}?" for meant in _alike(name)]


def _alike(name: str) -> list[str]:
    known = [FILE_VARIABLE, KEYS_VARIABLE, *GMI_VARIABLES, *VARIABLES]
    for prefix, cutoff in _CUTOFFS.items():
        if name.startswith(prefix):
            return get_close_matches(name, known, n=1, cutoff=cutoff)
    return []
