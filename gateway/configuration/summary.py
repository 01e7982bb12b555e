"""What differs from the defaults, and who said so: for people to read.

Secrets are shown as stars; of a URL that may hold a password, scheme, host and path are shown.
"""

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from gateway.configuration.problems import Origin, Path
from gateway.settings import SECTIONS, Settings

_HIDDEN = "**********"


def changes(settings: Settings, origins: Mapping[Path, Origin]) -> Iterator[str]:
    """A line for each setting that is not its default: `server.port = 9000 (GATEWAY_SERVER_PORT)`."""
    for section in SECTIONS:
        values = getattr(settings, section)
        for name, field in type(values).model_fields.items():
            value = getattr(values, name)
            if value != field.get_default(call_default_factory=True):
                yield f"{section}.{name} = {_shown(value, field)}{_source(origins, (section, name))}"
    if settings.keys:
        names = ", ".join(f"{key.name} (team {key.team})" for key in settings.keys)
        yield f"keys = {names}{_source(origins, ('keys',))}"


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


def _source(origins: Mapping[Path, Origin], path: Path) -> str:
    return f" ({origins[path]})" if path in origins else ""
