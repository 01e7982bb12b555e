"""What differs from the defaults, and who said so: for people to read.

Secrets are shown as stars; of a URL that may hold a password, scheme, host and path are shown.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from gateway.configuration.problems import Origin, Path
from gateway.settings import SECTIONS, Settings

_HIDDEN = "**********"


@dataclass(frozen=True, slots=True)
class Change:
    """A setting that is not its default; as text, `server.port = 9000 (GATEWAY_SERVER_PORT)`."""

    setting: str
    value: str
    origin: Origin | None

    def __str__(self) -> str:
        source = "" if self.origin is None else f" ({self.origin})"
        return f"{self.setting} = {self.value}{source}"


def changes(settings: Settings, origins: Mapping[Path, Origin]) -> Iterator[Change]:
    """Each setting that is not its default, and who said so."""
    for section in SECTIONS:
        values = getattr(settings, section)
        for name, field in type(values).model_fields.items():
            value = getattr(values, name)
            if value != field.get_default(call_default_factory=True):
                yield Change(f"{section}.{name}", _shown(value, field), origins.get((section, name)))
    if settings.keys:
        names = ", ".join(f"{key.name} (team {key.team})" for key in settings.keys)
        yield Change("keys", names, origins.get(("keys",)))


def _shown(value: Any, field: FieldInfo) -> str:
    if isinstance(value, SecretStr):
        return _HIDDEN
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return str(value) if field.repr else _without_credentials(value)


def _without_credentials(url: str) -> str:
    # Queries go too: libpq and Redis know passwords there.
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    credentials = f"***{at}" if user else at
    query = "?***" if parts.query else ""
    return f"{parts.scheme}://{credentials}{host}{parts.path}{query}"
