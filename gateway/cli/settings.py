"""Settings for a command, and what is found about them on a terminal.

Knows exit codes and colours; what is right and wrong, `gateway.configuration` and `gateway.doctor` know. It takes
longer to import than a command has to say that it was mistyped: commands import it when they run.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import typer

from gateway.cli.printing import runnable
from gateway.configuration import Loaded, SettingsError, doubtful_settings, load, misspelt_variables
from gateway.doctor import doubts
from gateway.doctor.findings import Finding, Mark
from gateway.metering.prices import PriceList, PricesError, load_prices
from gateway.settings import Settings

_COLOURS = {Mark.GOOD: typer.colors.GREEN, Mark.WARNING: typer.colors.YELLOW, Mark.BAD: typer.colors.RED}


def load_or_exit(config: Path | None, overrides: Mapping[str, Any], *, code: int, warn: bool = True) -> Loaded:
    """The settings, or the end of this process; `warn`: with what is doubtful about them on standard error."""
    try:
        loaded = load(config, os.environ, overrides)
    except SettingsError as error:
        typer.echo(str(error), err=True)
        # A misspelt variable is often why a setting is missed.
        print_findings(doubts(misspelt_variables(os.environ)), err=True)
        raise typer.Exit(code) from None
    if warn:
        print_findings(doubts([*misspelt_variables(os.environ), *doubtful_settings(loaded.settings)]), err=True)
    return loaded


def prices_or_exit(settings: Settings, *, code: int) -> PriceList:
    """The prices that the settings name, or the end of this process."""
    try:
        return load_prices(None if settings.prices.file is None else Path(settings.prices.file))
    except PricesError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(code) from None


def print_findings(findings: Iterable[Finding], *, err: bool = False) -> None:
    for finding in findings:
        print_finding(finding, err=err)


def print_finding(finding: Finding, *, err: bool = False) -> None:
    mark = typer.style(finding.mark.value, fg=_COLOURS[finding.mark])
    cure = f"; {finding.cure}" if finding.cure else ""
    typer.echo(runnable(f"{mark} {finding.text}{cure}"), err=err)
