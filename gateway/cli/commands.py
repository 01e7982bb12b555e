"""The table of commands."""

from typing import Annotated

import typer

from gateway import __version__
from gateway.cli import alerts, calls, checks, keys, limits, log, migration, reconcile, serving, tail, teams, usage

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
        typer.Option(
            "--version", metavar="", callback=_print_version, is_eager=True, help="Print the gateway's version."
        ),
    ] = False,
) -> None:
    """One GMI Cloud account, shared by a team: OpenAI's API on this machine."""


app.command("serve")(serving.serve_command)
app.command()(checks.check_config)
app.command()(checks.doctor)
app.command()(checks.version)
app.add_typer(teams.commands)
app.add_typer(keys.commands)
app.add_typer(limits.commands)
usage.commands.command("reconcile")(reconcile.reconcile)
app.add_typer(usage.commands)
app.add_typer(calls.commands)
app.command()(tail.tail)
app.add_typer(alerts.commands)
app.command()(log.audit)
app.command()(migration.migrate)
