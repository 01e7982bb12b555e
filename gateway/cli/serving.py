"""`gmi-gateway serve`: the gateway, or, without a GMI key, the gateway in front of a simulator."""

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from secrets import randbits
from types import FrameType
from typing import Annotated, Any

import typer
from pydantic import SecretStr

from gateway import __version__
from gateway.access.keys import new_secret
from gateway.access.reconcile import ADMIN, ADMINS, SettingsConflict
from gateway.app import bind, bind_admin, bind_metrics, prepare, serve
from gateway.cli.api import Refused
from gateway.cli.migration import unusable
from gateway.cli.printing import drop_output
from gateway.cli.settings import ConfigOption, HostOption, PortOption, load_or_exit, prices_or_exit, print_finding
from gateway.configuration import is_loopback
from gateway.doctor.findings import KEYS_PAGE
from gateway.doctor.port import cannot_listen, local_url
from gateway.settings import Key, Settings

_MODEL = "openai/gpt-5.2"


def serve_command(
    config: ConfigOption = None,
    host: HostOption = None,
    port: PortOption = None,
    workers: Annotated[int | None, typer.Option(help="Processes that share the port (default: 1).")] = None,
) -> None:
    """Run the gateway; without a GMI key, against a simulator."""
    overrides = {"server.host": host, "server.port": port, "server.workers": workers}
    settings = load_or_exit(config, overrides, code=2).settings
    prices_or_exit(settings, code=2)
    with _stoppable(), ExitStack() as stack:
        try:
            listener = stack.enter_context(bind(settings))
            admin_listener, metrics_listener = bind_admin(settings), bind_metrics(settings)
        except OSError as error:
            print_finding(cannot_listen(settings.server, error), err=True)
            raise typer.Exit(1) from None
        port = listener.getsockname()[1]
        if settings.upstream.api_key is not None:
            admin_secret = _prepared(settings)
            with _greeting(admin_secret):
                _welcome(settings, port)
                _hand_out(settings, port, admin_secret)
        else:
            demo_secret = new_secret() if is_loopback(settings.server.host) and not settings.keys else None
            settings = stack.enter_context(_simulated(settings, demo_secret))
            admin_secret = _prepared(settings)
            with _greeting(admin_secret):
                _introduce_simulator(settings.server.host, port, demo_secret)
                _hand_out(settings, port, admin_secret, has_other=True)
        serve(settings, listener, admin_listener, metrics_listener)


@contextmanager
def _stoppable() -> Iterator[None]:
    """A stop before the server listens to signals, or after, ends the process at once, and well: with status 0."""
    # Nothing is under way that a database would not undo by itself; and what raised here might be caught anywhere.
    previous = {number: signal.signal(number, _leave) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _leave(_signal: int, _frame: FrameType | None) -> None:
    os._exit(0)


def _prepared(settings: Settings) -> str | None:
    try:
        with unusable(settings):
            return asyncio.run(prepare(settings))
    except (Refused, SettingsConflict) as refusal:
        typer.secho(str(refusal), fg=typer.colors.RED, err=True)
        raise typer.Exit(1) from None


@contextmanager
def _simulated(settings: Settings, demo_secret: str | None) -> Iterator[Settings]:
    """`settings` with a simulator as upstream, reached directly, and a key for a first try; it runs for as long."""
    # It takes 35 ms to import, which a gateway with a key need not wait for.
    from gateway.simulator import running_simulator  # noqa: PLC0415

    direct = {"transport": "auto", "proxy": None, "ca_file": None, "organization_id": None}
    # Ids of an earlier run are in the database still, and have their owners.
    with running_simulator(seed=randbits(63)) as simulator_url:
        upstream = {"base_url": simulator_url, "api_key": SecretStr(new_secret()), **direct}
        changed: dict[str, Any] = {"upstream": settings.upstream.model_copy(update=upstream)}
        if demo_secret is not None:
            changed["keys"] = (Key(name="demo", team="demo", secret=SecretStr(demo_secret)),)
        yield settings.model_copy(update=changed)


@contextmanager
def _greeting(admin_secret: str | None) -> Iterator[None]:
    """What is printed first. Where it cannot be, calls are served all the same."""
    is_shown = sys.stdout is not None
    try:
        yield
    except OSError as error:
        is_shown = False
        drop_output()
        typer.echo(f"Standard output cannot be written: {error.strerror}.", err=True)
    if admin_secret is not None and not is_shown:
        cure = f"Get another with gmi-gateway keys rotate {ADMINS}/{ADMIN}"
        typer.echo(f"The admin key that was made could not be shown and is lost. {cure}.", err=True)


def _welcome(settings: Settings, port: int) -> None:
    host, base_url = settings.server.host, _base_url(settings.server.host, port)
    where = f"on {base_url}" if is_loopback(host) else f"listening on {_authority(host, port)} (here: {base_url})"
    typer.echo(f"GMI gateway {__version__} {where}, upstream {settings.upstream.base_url}.")


def _hand_out(settings: Settings, port: int, admin_secret: str | None, *, has_other: bool = False) -> None:
    """Show the admin key that the first start made: this once, since what is kept of it cannot give it back."""
    if admin_secret is None:
        return
    typer.echo(f"Admin key, shown this once: {admin_secret}")
    typer.echo("Keep it: with it you make teams and keys for others (docs/keys.md, gmi-gateway keys --help).")
    if not has_other:
        typer.echo("Until then, try it:\n\n" + _curl(_base_url(settings.server.host, port), admin_secret) + "\n")


def _introduce_simulator(host: str, port: int, demo_secret: str | None) -> None:
    warning = "SIMULATOR: no GMI key is set, so a simulator makes the answers up. No model is asked."
    typer.secho(warning, fg=typer.colors.YELLOW, bold=True)
    typer.echo("For the real models, set GMI_API_KEY (or GMI_API_KEY_FILE) and start it again.")
    typer.echo(f"Make a key at {KEYS_PAGE}.")
    base_url = _base_url(host, port)
    where = base_url if is_loopback(host) else f"{base_url}, listening on {_authority(host, port)}"
    key = f"Key {demo_secret}. Try it" if demo_secret else "Try it; put one of your keys in place of YOUR_KEY"
    typer.echo(f"Base URL {where}. {key}:\n")
    typer.echo(_curl(base_url, demo_secret or "YOUR_KEY") + "\n")


def _curl(base_url: str, key: str) -> str:
    body = f'{{"model": "{_MODEL}", "messages": [{{"role": "user", "content": "Hello!"}}]}}'
    headers = f'-H "Authorization: Bearer {key}" -H "Content-Type: application/json"'
    return f"curl {base_url}/chat/completions {headers} -d '{body}'"


def _base_url(host: str, port: int) -> str:
    return f"{local_url(host, port)}/v1"


def _authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
