"""What is allowed, but was hardly meant: told, and not refused.

Knows the names of all variables, and which names container platforms make up.
Never holds the value of a variable.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from urllib.parse import urlsplit

from gateway.configuration.environment import GMI_VARIABLES, KEYS_VARIABLE, is_ours, variable_of
from gateway.configuration.file import FILE_VARIABLE
from gateway.configuration.problems import showable
from gateway.settings import SECTIONS, Settings

_MADE_UP = re.compile(r"_SERVICE_(HOST|PORT)|_PORT_\d+_(TCP|UDP|SCTP)")
_MADE_UP_VALUE = re.compile(r"(tcp|udp|sctp)://")
_CUTOFFS = {"GATEWAY": 0.85, "GMI": 0.75}
"""How alike two names must be, by difflib's ratio: half of a long name is its prefix, so it takes more."""


@dataclass(frozen=True, slots=True)
class Doubt:
    """One thing to look at again, and what was perhaps meant."""

    text: str
    cure: str


def misspelt_variables(environ: Mapping[str, str]) -> Iterator[Doubt]:
    """Variables that are nothing to the gateway, but nearly have the name of one that is."""
    known = _names()
    for name, value in environ.items():
        if value and not _is_known(name) and not _is_made_up(name, value):
            for meant in _alike(name.upper(), known):
                yield Doubt(f"{showable(name)} is set and means nothing here", f"did you mean {meant}?")


def doubtful_settings(settings: Settings) -> Iterator[Doubt]:
    """Valid settings that are seldom right."""
    url = settings.upstream.base_url
    if not urlsplit(url).path:
        yield Doubt("upstream.base_url has no path", f"most APIs sit under /v1: {url}/v1")


def _names() -> list[str]:
    paths = [(section, key) for section in SECTIONS for key in type(getattr(Settings(), section)).model_fields]
    return [FILE_VARIABLE, KEYS_VARIABLE, *GMI_VARIABLES, *map(variable_of, paths)]


def _is_known(name: str) -> bool:
    # One that begins with a section is a setting, or refused as an unknown one; so are parts of the list of keys.
    return is_ours(name) or name.startswith(f"{KEYS_VARIABLE}_") or name in (FILE_VARIABLE, *GMI_VARIABLES)


def _is_made_up(name: str, value: str) -> bool:
    return bool(_MADE_UP.search(name) or _MADE_UP_VALUE.match(value))


def _alike(name: str, known: list[str]) -> list[str]:
    for prefix, cutoff in _CUTOFFS.items():
        if name.startswith(prefix):
            return get_close_matches(name, known, n=1, cutoff=cutoff)
    return []
