"""Where settings come from: file, environment, command line; and how a bad one is reported.

Knows the sources and their order, secrets in files, and the settings that do
not go together. What a valid setting is by itself, `gateway.settings` knows.
Every problem is found in one go; no message, repr or log holds a secret.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

from pydantic import ValidationError

from gateway.configuration.checks import find_conflicts, is_loopback
from gateway.configuration.doubts import Doubt, doubtful_settings, misspelt_variables
from gateway.configuration.environment import (
    GMI_VARIABLES,
    KEYS_VARIABLE,
    read_environment,
    read_gmi_variables,
    variable_of,
)
from gateway.configuration.explain import explain, field_at
from gateway.configuration.file import DEFAULT_FILE, FILE_VARIABLE, PRICES_FILE, read_file, settings_file
from gateway.configuration.layers import Layer, merge
from gateway.configuration.problems import Origin, Path, Problem, SettingsError, overlap
from gateway.configuration.secret_files import settle_secret_files
from gateway.configuration.summary import changes
from gateway.settings import Settings

__all__ = [
    "DEFAULT_FILE",
    "FILE_VARIABLE",
    "GMI_VARIABLES",
    "KEYS_VARIABLE",
    "PRICES_FILE",
    "Doubt",
    "Loaded",
    "Origin",
    "Problem",
    "SettingsError",
    "changes",
    "doubtful_settings",
    "field_at",
    "is_loopback",
    "load",
    "load_settings",
    "misspelt_variables",
    "variable_of",
]

_FILE_RANK, _GMI_RANK, _ENVIRONMENT_RANK, _COMMAND_LINE_RANK = 1, 2, 3, 4


@dataclass(frozen=True, slots=True)
class Loaded:
    """Valid settings, the file that was read, and where each setting that is not a default came from."""

    settings: Settings
    file: FilePath | None
    origins: Mapping[Path, Origin]


def load_settings(path: FilePath | None, environ: Mapping[str, str], overrides: Mapping[str, Any]) -> Settings:
    """The settings: defaults, under the file, under `environ`, under `overrides`.

    `path` None: the file that `GATEWAY_CONFIG` names, else `config/gateway.yaml` if it is there. `overrides`
    has keys such as `server.port`; a value of None overrides nothing. Raises `SettingsError`.
    """
    return load(path, environ, overrides).settings


def load(path: FilePath | None, environ: Mapping[str, str], overrides: Mapping[str, Any]) -> Loaded:
    """As `load_settings`, with the origin of every setting."""
    file = settings_file(path, environ)
    layer = merge(
        [
            Layer() if file is None else read_file(file, environ, _FILE_RANK),
            read_gmi_variables(environ, _GMI_RANK),
            read_environment(environ, _ENVIRONMENT_RANK),
            _command_line(overrides),
        ]
    )
    settle_secret_files(layer)
    if file is not None:
        _take_prices_beside(file, layer)
    settings = _check(_validate(layer), layer)
    return Loaded(settings, file, layer.origins)


def _take_prices_beside(file: FilePath, layer: Layer) -> None:
    """Prices are found beside the settings, wherever the gateway is started, unless some source names others."""
    beside = file.with_name(PRICES_FILE.name)
    section = layer.values.setdefault("prices", {})
    is_named = not isinstance(section, dict) or section.get("file") is not None
    if not is_named and beside.is_file() and beside.resolve() != PRICES_FILE.resolve():
        section["file"] = str(beside)
        layer.origins["prices", "file"] = Origin(f"beside {file}", None, _FILE_RANK)


def _command_line(overrides: Mapping[str, Any]) -> Layer:
    layer = Layer()
    for dotted, value in overrides.items():
        if value is None:
            continue
        section, key = dotted.split(".")
        layer.values.setdefault(section, {})[key] = value
        layer.origins[section, key] = Origin(f"--{key.replace('_', '-')}", None, _COMMAND_LINE_RANK)
    return layer


def _validate(layer: Layer) -> Settings:
    """The settings; for bad ones, problems go to `layer`, and defaults stand in so that checks can go on."""
    try:
        return Settings.model_validate(layer.values)
    except ValidationError as error:
        layer.problems += explain(error, layer)
        for detail in error.errors(include_url=False, include_context=False, include_input=False):
            location = detail["loc"]
            layer.drop(location[:1] if location[0] == "keys" else location[:2])
    return Settings.model_validate(layer.values)


def _check(settings: Settings, layer: Layer) -> Settings:
    failed = [problem.path for problem in layer.problems]
    for conflict in find_conflicts(settings):
        if not any(overlap(path, bad) for path in conflict.paths for bad in failed):
            origin = layer.origin_of(conflict.paths[0])
            layer.problems.append(Problem(conflict.paths[0], conflict.reason, conflict.cure, origin))
    if layer.problems:
        raise SettingsError(layer.problems)
    return settings
