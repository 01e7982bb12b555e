"""What `gmi-gateway serve` prints first: where it can be reached, what it keeps where, and with which keys to begin.

Knows how that reads; what there is, it is told.
"""

import contextlib
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import typer

from gateway import __version__
from gateway.access.reconcile import ADMIN, ADMINS
from gateway.cli.pricing import NO_PRICES, cure_of
from gateway.cli.printing import drop_output, program
from gateway.cli.settings import print_finding
from gateway.configuration import is_loopback
from gateway.doctor.findings import KEYS_PAGE, Finding, Mark
from gateway.doctor.inventory import Inventory
from gateway.doctor.running import local_url
from gateway.metering.prices import DEFAULT_FILE, PriceList
from gateway.settings import Settings
from gateway.store.url import database_url, file_of, is_sqlite, shown

_MODEL = "openai/gpt-5.2"


@contextlib.contextmanager
def greeting(admin_secret: str | None) -> Iterator[None]:
    """What is printed first. Where it cannot be, calls are served all the same."""
    is_shown = sys.stdout is not None
    try:
        yield
    except OSError as error:
        is_shown = False
        drop_output()
        typer.echo(f"Standard output cannot be written: {error.strerror}.", err=True)
    if admin_secret is not None and not is_shown:
        cure = f"Get another with {program()} keys rotate {ADMINS}/{ADMIN}"
        typer.echo(f"The admin key that was made could not be shown and is lost. {cure}.", err=True)


def what_was_read(file: Path | None, settings: Settings, prices: PriceList) -> str:
    """Which files the start has read."""
    said = "no file, so defaults and environment" if file is None else str(file.absolute())
    listed = Path(settings.prices.file or DEFAULT_FILE).absolute()
    priced = f"{listed} ({prices.priced})" if prices.priced else f"none in {listed}"
    return f"Settings: {said}. Prices: {priced}."


def welcome(settings: Settings, port: int, read: str) -> None:
    """Where a gateway in front of a real upstream is; `read`: `what_was_read`."""
    host, base_url = settings.server.host, _base_url(settings.server.host, port)
    where = f"on {base_url}" if is_loopback(host) else f"listening on {_authority(host, port)} (here: {base_url})"
    typer.echo(f"GMI gateway {__version__} {where}, upstream {settings.upstream.base_url}.")
    typer.echo(_kept(settings))
    typer.echo(read)


def introduce_simulator(settings: Settings, port: int, read: str, demo_secret: str | None) -> None:
    """Where a gateway in front of a simulator is, and a line to paste."""
    why = "it was asked for" if settings.upstream.simulator else "no GMI key is set"
    warning = f"SIMULATOR: {why}, so a simulator makes the answers up. No model is asked."
    typer.secho(warning, fg=typer.colors.YELLOW, bold=True)
    if settings.upstream.simulator:
        typer.echo(
            "For the real models, take out --simulator or upstream.simulator, and start it again with a GMI key."
        )
    else:
        typer.echo("For the real models, set GMI_API_KEY (or GMI_API_KEY_FILE) and start it again.")
    typer.echo(f"Make a key at {KEYS_PAGE}.")
    typer.echo(_kept(settings))
    typer.echo(read)
    host = settings.server.host
    base_url = _base_url(host, port)
    where = base_url if is_loopback(host) else f"{base_url}, listening on {_authority(host, port)}"
    key = (
        f"Key {demo_secret}, the same at each start here. Try it"
        if demo_secret
        else "Try it; put one of your keys in place of YOUR_KEY"
    )
    typer.echo(f"Base URL {where}. {key}:\n")
    typer.echo(_curl(base_url, demo_secret or "YOUR_KEY") + "\n")


def hand_out(settings: Settings, port: int, admin_secret: str, *, has_other: bool) -> None:
    """Show the admin key that the first start made: this once, since what is kept of it cannot give it back."""
    typer.echo(f"Admin key, shown this once: {admin_secret}")
    typer.echo(f"Keep it: with it you make teams and keys for others (docs/keys.md, {program()} keys --help).")
    if not has_other:
        typer.echo("Until then, try it:\n\n" + _curl(_base_url(settings.server.host, port), admin_secret) + "\n")


def remind_of_admin(found: Inventory) -> None:
    """Say which admin key there is, which was shown before, and what to do if it is lost."""
    if found.has_declared_admin:
        typer.echo("Its admin key is the one that the settings hold.")
    elif found.admin is not None:
        cure = f"{program()} keys rotate {shlex.quote(found.admin)}"
        typer.echo(f"Its admin key ({found.admin}) was shown when it was made. Lost? {cure}")
    else:
        command = f"{program()} keys create --team {ADMINS} --name NAME --role admin"
        typer.echo(f"No admin key works any more. Make one: {command}")


def warn_of_unpriced_budgets(settings: Settings, found: Inventory, prices: PriceList) -> None:
    """Say on standard error that budgets are set which nothing draws on."""
    if not found.has_budgets or prices.priced:
        return
    # Nobody reads it where it cannot be written; an admin key may wait to be shown.
    with contextlib.suppress(OSError):
        print_finding(Finding(Mark.WARNING, f"budgets are set, but {NO_PRICES}", cure_of(settings)), err=True)


def warn_of_simulated_calls() -> None:
    """Say on standard error that what is counted is not the models' alone."""
    cure = f"begin anew with another folder or database, or set budgets back with {program()} limits reset"
    with contextlib.suppress(OSError):  # as above
        print_finding(Finding(Mark.WARNING, "sums and budgets hold calls that the simulator answered", cure), err=True)


def _kept(settings: Settings) -> str:
    folder, url = Path(settings.server.state_dir).absolute(), database_url(settings)
    if is_sqlite(url) and file_of(url).parent == folder:
        return f"All that it keeps is in {folder}: the database {file_of(url).name}, and journals."
    return f"All that it keeps is in {shown(url)}, and journals in {folder}."


def _curl(base_url: str, key: str) -> str:
    body = f'{{"model": "{_MODEL}", "messages": [{{"role": "user", "content": "Hello!"}}]}}'
    headers = f'-H "Authorization: Bearer {key}" -H "Content-Type: application/json"'
    return f"curl {base_url}/chat/completions {headers} -d '{body}'"


def _base_url(host: str, port: int) -> str:
    return f"{local_url(host, port)}/v1"


def _authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
