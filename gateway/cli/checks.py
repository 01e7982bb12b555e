"""`gmi-gateway check-config`, `doctor` and `version`: what is there, and what keeps it from working."""

import os
import platform
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from gateway import __version__
from gateway.cli.options import ConfigOption, HostOption, PortOption

if TYPE_CHECKING:
    from gateway.doctor.findings import Finding
    from gateway.settings import Settings

_LIBRARIES = ("fastapi", "uvicorn", "httptools", "httpx2", "msgspec", "pydantic")
_PATIENCE_S = 1.0
"""How long to wait for what listens where the gateway would: it is on this machine."""


def check_config(config: ConfigOption = None) -> None:
    """Say what is wrong with the settings, or what they are."""
    # Here and below: it takes longer to import than a command has to say that it was mistyped.
    from gateway.cli.settings import load_or_exit, prices_or_exit  # noqa: PLC0415
    from gateway.configuration import changes  # noqa: PLC0415

    loaded = load_or_exit(config, {}, code=1)
    prices = prices_or_exit(loaded.settings, code=1)
    typer.echo(f"The settings are valid ({loaded.file or 'no file, so defaults and environment'}).")
    for change in changes(loaded.settings, loaded.origins):
        typer.echo(f"  {change}")
    typer.echo(f"Prices: {prices.priced or 'none, so that no call draws on a budget'}.")
    if loaded.settings.upstream.api_key is None:
        typer.echo(_without_key(loaded.settings))


def doctor(config: ConfigOption = None, host: HostOption = None, port: PortOption = None) -> None:
    """Look for what keeps the gateway from working: a line each, with the cure."""
    from gateway.cli.settings import print_finding  # noqa: PLC0415
    from gateway.doctor.findings import Mark  # noqa: PLC0415

    worst_is_bad = False
    for finding in _findings(config, {"server.host": host, "server.port": port}):
        print_finding(finding)
        worst_is_bad |= finding.mark is Mark.BAD
    if worst_is_bad:
        raise typer.Exit(1)


def version() -> None:
    """Print the versions of the gateway, Python and the libraries that matter."""
    from importlib.metadata import version as version_of  # noqa: PLC0415

    typer.echo(f"gmi-gateway {__version__}")
    typer.echo(f"python {platform.python_version()}")
    for library in _LIBRARIES:
        typer.echo(f"{library} {version_of(library)}")


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
