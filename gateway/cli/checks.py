"""`gmi-gateway check-config`, `doctor` and `version`: what is there, and what keeps it from working."""

import os
import platform
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

import typer

from gateway import __version__
from gateway.cli.settings import ConfigOption, HostOption, PortOption, load_or_exit, prices_or_exit, print_finding
from gateway.configuration import SettingsError, changes, load, misspelt_variables
from gateway.doctor import doubts, examine
from gateway.doctor.findings import KEYS_PAGE, Finding, Mark

_LIBRARIES = ("fastapi", "uvicorn", "httptools", "httpx2", "msgspec", "pydantic")


def check_config(config: ConfigOption = None) -> None:
    """Say what is wrong with the settings, or what they are."""
    loaded = load_or_exit(config, {}, code=1)
    prices = prices_or_exit(loaded.settings, code=2)
    typer.echo(f"The settings are valid ({loaded.file or 'no file, so defaults and environment'}).")
    for change in changes(loaded.settings, loaded.origins):
        typer.echo(f"  {change}")
    typer.echo(f"Prices: {prices.priced or 'none, so that no call draws on a budget'}.")
    if loaded.settings.upstream.api_key is None:
        typer.echo(f"No upstream key: `serve` runs against the simulator. Make a key at {KEYS_PAGE}.")


def doctor(config: ConfigOption = None, host: HostOption = None, port: PortOption = None) -> None:
    """Look for what keeps the gateway from working: a line each, with the cure."""
    worst_is_bad = False
    for finding in _findings(config, {"server.host": host, "server.port": port}):
        print_finding(finding)
        worst_is_bad |= finding.mark is Mark.BAD
    if worst_is_bad:
        raise typer.Exit(1)


def version() -> None:
    """Print the versions of the gateway, Python and the libraries that matter."""
    typer.echo(f"gmi-gateway {__version__}")
    typer.echo(f"python {platform.python_version()}")
    for library in _LIBRARIES:
        typer.echo(f"{library} {version_of(library)}")


def _findings(config: Path | None, overrides: Mapping[str, Any]) -> Iterator[Finding]:
    try:
        loaded = load(config, os.environ, overrides)
    except SettingsError as error:
        yield from (Finding(Mark.BAD, str(problem)) for problem in error.problems)
        yield from doubts(misspelt_variables(os.environ))
        return
    yield from examine(loaded, os.environ, datetime.now(UTC))
