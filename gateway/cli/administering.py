"""What commands for teams and keys have in common: they reach a gateway, ask it, and print.

Knows the order of that and the exit codes. A command is a coroutine function whose first parameters are the API and
what it prints to; its other parameters are options.
"""

import os
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import typer

from gateway.cli import values
from gateway.cli.api import Api, Refused, local_api, remote_api
from gateway.cli.options import Where, expand, read
from gateway.cli.printing import Printer, Record, drop_output, runnable, visible

if TYPE_CHECKING:
    from gateway.settings import Settings


@dataclass(frozen=True)
class Desk:
    """What every such command works with."""

    api: Api
    printer: Printer
    settings: "Settings | None"
    """Of the store that is worked on; None: a running gateway is asked, whose settings are its own."""


Command = Callable[..., Coroutine[Any, Any, None]]


def administers(command: Command) -> Callable[..., None]:
    """`command(desk, ...)` as a typer command, with the options of `Where` beside its own."""

    def run(arguments: dict[str, Any]) -> None:
        where: Where = arguments.pop("where")
        do(_work(command, where, arguments))

    return expand(command, run, given="desk", added={"where": Where})


def do(work: Coroutine[Any, Any, None]) -> None:
    """Run a command's work to its end; a refusal ends this process, with its exit code."""
    import asyncio  # noqa: PLC0415 - a command that was mistyped need not wait for it

    try:
        asyncio.run(work)
    except Refused as refusal:
        # Some quote names, or a file; those of a file have a line each.
        message = "\n".join(map(visible, runnable(refusal.message).split("\n")))
        typer.secho(message, fg=typer.colors.RED, err=True)
        raise typer.Exit(refusal.exit_code) from None


def check_secrets_can_be_shown() -> None:
    """Raises `Refused` where there is no standard output: before a secret is made that nobody would see."""
    if sys.stdout is None:
        raise Refused("Standard output is closed, so nothing was done.")


async def warn_of_prices(desk: Desk, record: Record) -> None:
    """Say on standard error why nothing will draw on the budgets of a team or a key that was made or changed."""
    from gateway.cli.pricing import doubt_of  # noqa: PLC0415 - few commands set a budget

    await doubt_of(desk, record)


@contextmanager
def printed(otherwise: str) -> Iterator[None]:
    """Raises `Refused` with `otherwise` where standard output cannot be written."""
    try:
        yield
    except OSError:
        drop_output()
        raise Refused(otherwise) from None


async def _work(command: Command, where: Where, arguments: dict[str, Any]) -> None:
    settings = settings_of(where)
    async with api_of(where, settings) as api:
        await command(Desk(api, Printer(as_json=where.json), settings), **arguments)


def settings_of(where: Where) -> "Settings | None":
    """Those of the store that is worked on; None where a running gateway is asked. May end this process."""
    if where.url is not None:
        return None
    if where.key is not None or where.key_file is not None:
        raise typer.BadParameter("goes with --url; the store itself asks for no key", param_hint="--key")
    from gateway.cli.settings import load_or_exit  # noqa: PLC0415 - whoever asks a gateway need not wait for it

    return load_or_exit(where.config, {}, code=2, warn=False).settings


@asynccontextmanager
async def api_of(where: Where, settings: "Settings | None") -> AsyncIterator[Api]:
    """The API of the gateway that `where` names, or of the store of `settings`. Raises `Refused`, BadParameter."""
    if settings is not None:
        async with local_api(settings) as api:
            yield api
        return
    url = read("--url", values.server_url, where.url or "")
    async with remote_api(url, _key(where)) as api:
        yield api


def _key(where: Where) -> str:
    found = values.secret_source(where.key, where.key_file, os.environ)
    if found is None:
        cure = "set GATEWAY_ADMIN_KEY or name a file with --key-file"
        raise typer.BadParameter(f"needs a key: {cure}", param_hint="--url")
    name, source = found
    try:
        return values.secret(source)
    except OSError as error:
        raise typer.BadParameter(f"cannot be read: {error.strerror}", param_hint=name) from None
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=name) from None
