"""Settings in environment variables: `GATEWAY_<SECTION>_<KEY>`, and GMI's own names.

Knows which names are settings. Other names that begin with GATEWAY_ are left
alone: container platforms make up GATEWAY_PORT, GATEWAY_SERVICE_HOST and their
like for a service that is called gateway, GATEWAY_REDIS_PORT for gateway-redis.
"""

import re
from collections.abc import Mapping
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, EnvSettingsSource

from gateway.configuration.layers import COLLECTIONS, Layer
from gateway.configuration.problems import Origin, Problem
from gateway.configuration.yaml_text import BadTextError, YamlReader
from gateway.settings import SECTIONS, Settings

PREFIX = "GATEWAY_"
KEYS_VARIABLE = "GATEWAY_KEYS"
GMI_VARIABLES = {
    "GMI_API_KEY": ("upstream", "api_key"),
    "GMI_API_KEY_FILE": ("upstream", "api_key_file"),
    "GMI_BASE_URL": ("upstream", "base_url"),
}
_MADE_UP = re.compile(r"_SERVICE_(HOST|PORT)|_PORT_\d+_(TCP|UDP|SCTP)")
_MADE_UP_VALUE = re.compile(r"(tcp|udp|sctp)://")
_COLLECTION_NAMED = {str(path[-1]): path for path in COLLECTIONS}
_SECTION_PREFIXES = tuple(f"{PREFIX}{section.upper()}_" for section in SECTIONS)


def variable_of(path: tuple[str | int, ...]) -> str:
    """The environment variable of a setting: `GATEWAY_SERVER_PORT` for `("server", "port")`."""
    return PREFIX + "_".join(str(part).upper() for part in path[:2])


def read_gmi_variables(environ: Mapping[str, str], rank: int) -> Layer:
    """The layer of `GMI_API_KEY`, `GMI_API_KEY_FILE` and `GMI_BASE_URL`."""
    layer = Layer()
    for name, (section, key) in GMI_VARIABLES.items():
        if value := environ.get(name):
            layer.values.setdefault(section, {})[key] = value
            layer.origins[section, key] = Origin(name, None, rank)
    return layer


def read_environment(environ: Mapping[str, str], rank: int) -> Layer:
    """The layer of `GATEWAY_<SECTION>_<KEY>` and `GATEWAY_KEYS`. Empty variables count as unset."""
    source = _Source(environ, rank)
    source.layer.values = source()
    for section, content in source.layer.values.items():
        for key in content if section in SECTIONS else ():
            path = (section, key)
            source.layer.origins.setdefault(path, Origin(variable_of(path), None, rank))
    source.layer.problems += _parts_of_keys(environ, rank)
    return source.layer


VARIABLES = tuple(
    variable_of((section, key)) for section in SECTIONS for key in type(getattr(Settings(), section)).model_fields
)
"""The variables of all settings in sections."""


class _Schema(Settings, BaseSettings):  # type: ignore[misc]  # two types of one config dict
    """The settings in the shape that pydantic-settings asks for; never filled."""


class _Source(EnvSettingsSource):
    """Reads the mapping that it is given, not the process's environment; lists and tables are YAML."""

    def __init__(self, environ: Mapping[str, str], rank: int) -> None:
        super().__init__(_Schema, env_prefix=PREFIX, env_nested_delimiter="_", env_nested_max_split=1)
        self.env_vars = {name.lower(): value for name, value in environ.items() if value and is_ours(name, value)}
        self.layer = Layer()
        self._rank = rank

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:  # noqa: ARG002
        path = _COLLECTION_NAMED[field_name]
        reader = YamlReader(Origin(variable_of(path), None, self._rank), has_lines=False)
        try:
            decoded = reader.read(value, path)
        except BadTextError as error:
            self.layer.problems.append(error.problem)
            return None
        self.layer.origins |= reader.layer.origins
        self.layer.problems += reader.layer.problems
        return decoded


def _parts_of_keys(environ: Mapping[str, str], rank: int) -> list[Problem]:
    # GATEWAY_KEYS_0_NAME and its like would go unread without a word.
    cure = f"{KEYS_VARIABLE} holds the whole list, as YAML or JSON"
    names = [
        name
        for name, value in environ.items()
        if value and name.startswith(f"{KEYS_VARIABLE}_") and not is_made_up(name, value)
    ]
    return [Problem(("keys",), "cannot be set in parts", cure, Origin(name, None, rank)) for name in names]


def is_ours(name: str, value: str) -> bool:
    """Whether `name` is read as a setting, a misspelled key of a section included."""
    if name == KEYS_VARIABLE or name in VARIABLES:
        return True
    return name.startswith(_SECTION_PREFIXES) and name.isupper() and not is_made_up(name, value)


def is_made_up(name: str, value: str) -> bool:
    """Whether a container platform sets such a variable for a service: Docker's links and Kubernetes."""
    return bool(_MADE_UP.search(name) or _MADE_UP_VALUE.match(value))
