"""The terminal's face: running and checking a gateway, and its teams and keys.

Knows what a person at a terminal needs to read; settings, checks, administration and the gateway itself are others'
business. Exit codes: 0 all is well, 1 something is wrong or was refused, 2 the command or the settings cannot be used
at all.
"""

import io
import sys
from typing import Annotated

import typer

from gateway import __version__
from gateway.cli import checks, keys, log, migration, serving, teams

app = typer.Typer(
    name="gmi-gateway",
    no_args_is_help=True,
    add_completion=False,
    # A pretty traceback may show the values of variables, and so a secret.
    pretty_exceptions_enable=False,
)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"gmi-gateway {__version__}")
        raise typer.Exit


@app.callback()
def options(
    *,
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the gateway's version."),
    ] = False,
) -> None:
    """One GMI Cloud account, shared by a team: OpenAI's API on this machine."""


app.command("serve")(serving.serve_command)
app.command()(checks.check_config)
app.command()(checks.doctor)
app.command()(checks.version)
app.add_typer(teams.commands)
app.add_typer(keys.commands)
app.command()(log.audit)
app.command()(migration.migrate)


def main() -> None:
    """The entry point of the console script."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a tick shows a question mark; it is no reason to fail.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    app()
