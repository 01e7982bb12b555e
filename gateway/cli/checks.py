"""`gmi-gateway check-config`, `doctor` and `version`: what is there, and what keeps it from working."""

import os
import platform
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from gateway import __version__
from gateway.cli.options import ConfigOption, HostOption, JsonOption, PortOption
from gateway.cli.printing import json_text

if TYPE_CHECKING:
    from gateway.configuration import Doubt
    from gateway.doctor.findings import Finding
    from gateway.settings import Settings

_LIBRARIES = ("fastapi", "uvicorn", "httptools", "httpx2", "msgspec", "pydantic")
_PATIENCE_S = 1.0
"""How long to wait for what listens where the gateway would: it is on this machine."""


def check_config(config: ConfigOption = None, *, as_json: JsonOption = False) -> None:
    """Say what is wrong with the settings, or what they are."""
    # Here and below: it takes longer to import than a command has to say that it was mistyped.
    from gateway.cli.settings import load_or_exit, prices_or_exit  # noqa: PLC0415
    from gateway.configuration import changes  # noqa: PLC0415

    if as_json:
        described = _described_settings(config)
        _tell(described, is_well=described["is_valid"])
        return
    loaded = load_or_exit(config, {}, code=1)
    prices = prices_or_exit(loaded.settings, code=1)
    typer.echo(f"The settings are valid ({loaded.file or 'no file, so defaults and environment'}).")
    for change in changes(loaded.settings, loaded.origins):
        typer.echo(f"  {change}")
    typer.echo(f"Prices: {prices.priced or 'none, so that no call draws on a budget'}.")
    if loaded.settings.upstream.simulator:
        typer.echo("upstream.simulator is true: `serve` runs against the simulator.")
    elif loaded.settings.upstream.api_key is None:
        typer.echo(_without_key(loaded.settings))


def doctor(
    config: ConfigOption = None, host: HostOption = None, port: PortOption = None, *, as_json: JsonOption = False
) -> None:
    """Look for what keeps the gateway from working: a line each, with the cure."""
    from gateway.cli.settings import print_finding  # noqa: PLC0415
    from gateway.doctor.findings import Mark  # noqa: PLC0415

    found = []
    for finding in _findings(config, {"server.host": host, "server.port": port}):
        found.append(finding)
        if not as_json:
            print_finding(finding)
    is_well = all(finding.mark is not Mark.BAD for finding in found)
    if as_json:
        data = [{"mark": each.mark.name.lower(), "text": each.text, "cure": each.cure} for each in found]
        _tell({"is_well": is_well, "data": data}, is_well=is_well)
    elif not is_well:
        raise typer.Exit(1)


def version(*, as_json: JsonOption = False) -> None:
    """Print the versions of the gateway, Python and the libraries that matter."""
    from importlib.metadata import version as version_of  # noqa: PLC0415

    versions = {"gmi-gateway": __version__, "python": platform.python_version()}
    versions |= {library: version_of(library) for library in _LIBRARIES}
    if as_json:
        typer.echo(json_text(versions, indent=2))
        return
    for name, number in versions.items():
        typer.echo(f"{name} {number}")


def _tell(document: dict[str, Any], *, is_well: bool) -> None:
    """Print it, and end with exit code 1 where something is wrong."""
    typer.echo(json_text(document, indent=2))
    if not is_well:
        raise typer.Exit(1)


def _described_settings(config: Path | None) -> dict[str, Any]:
    """What `check-config` says, for scripts; nothing but what is wrong where the settings cannot be used."""
    from gateway.configuration import (  # noqa: PLC0415
        SettingsError,
        changes,
        doubtful_settings,
        load,
        misspelt_variables,
    )
    from gateway.metering.prices import PricesError, load_prices  # noqa: PLC0415

    doubts = [*misspelt_variables(os.environ)]
    try:
        loaded = load(config, os.environ, {})
        file = loaded.settings.prices.file
        prices = load_prices(None if file is None else Path(file))
    except (SettingsError, PricesError) as error:
        return {"is_valid": False, "problems": [str(each) for each in error.problems], "warnings": _described(doubts)}
    return {
        "is_valid": True,
        "problems": [],
        "warnings": _described([*doubts, *doubtful_settings(loaded.settings)]),
        "file": None if loaded.file is None else str(loaded.file),
        "changes": [
            {"setting": each.setting, "value": each.value, "source": None if each.origin is None else str(each.origin)}
            for each in changes(loaded.settings, loaded.origins)
        ],
        "priced_models": prices.priced,
        "has_upstream_key": loaded.settings.upstream.api_key is not None,
    }


def _described(doubts: "Iterable[Doubt]") -> list[dict[str, str]]:
    return [{"text": each.text, "cure": each.cure} for each in doubts]


def _without_key(settings: "Settings") -> str:
    from gateway.doctor.findings import KEYS_PAGE  # noqa: PLC0415 - as above
    from gateway.doctor.running import NO_KEY_HERE, UNSEEN, is_running  # noqa: PLC0415

    if is_running(settings.server, _PATIENCE_S):
        return f"{NO_KEY_HERE[0].upper()}{NO_KEY_HERE[1:]}; {UNSEEN}."
    return f"No upstream key: `serve` runs against the simulator. Make a key at {KEYS_PAGE}."


def _findings(config: Path | None, overrides: Mapping[str, Any]) -> "Iterator[Finding]":
    from gateway.configuration import SettingsError, load, misspelt_variables  # noqa: PLC0415
    from gateway.doctor import doubts, examine  # noqa: PLC0415
    from gateway.doctor.findings import Finding, Mark  # noqa: PLC0415

    try:
        loaded = load(config, os.environ, overrides)
    except SettingsError as error:
        yield from (Finding(Mark.BAD, str(problem)) for problem in error.problems)
        yield from doubts(misspelt_variables(os.environ))
        return
    yield from examine(loaded, os.environ, datetime.now(UTC))
