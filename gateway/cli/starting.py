"""How `gmi-gateway serve` starts: the gateway, or, without a GMI key, the gateway in front of a simulator."""

import asyncio
import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from secrets import randbits
from socket import socket
from types import FrameType
from typing import Any

import typer
from pydantic import SecretStr

from gateway.access.answering import AnsweredBy, KeyMissing, turn_to
from gateway.access.clock import unix_time
from gateway.access.keys import new_secret
from gateway.access.reconcile import SettingsConflict
from gateway.app import bind, bind_admin, bind_metrics, prepare, serve
from gateway.cli.api import Refused
from gateway.cli.demo_key import demo_secret
from gateway.cli.greeting import (
    greeting,
    hand_out,
    introduce_simulator,
    remind_of_admin,
    warn_of_simulated_calls,
    warn_of_unpriced_budgets,
    welcome,
    what_was_read,
)
from gateway.cli.migration import unusable
from gateway.cli.printing import runnable
from gateway.cli.settings import load_or_exit, prices_or_exit, print_finding
from gateway.configuration import is_loopback
from gateway.doctor.inventory import Inventory, take_inventory
from gateway.doctor.port import cannot_listen
from gateway.doctor.running import local_url, neighbours
from gateway.settings import Key, Settings
from gateway.store.engine import Store
from gateway.store.migrate import migrate
from gateway.store.residents import Resident, residents, residing
from gateway.store.url import database_url

_KEY_MISSING = (
    "This gateway was run with a GMI key before, and none is set now: set GMI_API_KEY (or GMI_API_KEY_FILE). To let"
    " the simulator answer all the same, start it with --simulator, or upstream.simulator: true"
    " (GATEWAY_UPSTREAM_SIMULATOR=true)."
)


def start(config: Path | None, overrides: Mapping[str, Any]) -> None:
    """Serve until told to stop. `overrides` are settings of the command line; what is wrong ends this process."""
    loaded = load_or_exit(config, overrides, code=2)
    settings = loaded.settings
    prices = prices_or_exit(settings, code=2)
    folder = Path(settings.server.state_dir)
    with _stoppable(), ExitStack() as stack:
        try:
            listener = stack.enter_context(bind(settings))
            admin_listener, metrics_listener = bind_admin(settings), bind_metrics(settings)
        except OSError as error:
            print_finding(cannot_listen(settings.server, error, on_folder=residents(folder)), err=True)
            raise typer.Exit(1) from None
        others = stack.enter_context(residing(folder, _myself(settings, listener, admin_listener)))
        port, secret, is_simulated = listener.getsockname()[1], None, settings.upstream.is_simulated
        if is_simulated:
            is_first_try = is_loopback(settings.server.host) and not settings.keys
            secret = demo_secret(folder) if is_first_try else None
            settings = stack.enter_context(_simulated(settings, secret))
        admin_secret, found = _prepared(settings, is_simulated=is_simulated)
        warn_of_unpriced_budgets(settings, found, prices)
        if others and settings.redis.url is None:
            with suppress(OSError):  # an admin key may wait to be shown
                print_finding(neighbours(others), err=True)
        read = what_was_read(loaded.file, settings, prices)
        with greeting(admin_secret):
            if is_simulated:
                introduce_simulator(settings, port, read, secret)
            else:
                welcome(settings, port, read)
            if admin_secret is None:
                remind_of_admin(found)
            else:
                hand_out(settings, port, admin_secret, has_other=is_simulated)
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


def _myself(settings: Settings, listener: socket, admin_listener: socket | None) -> Resident:
    """What others on this machine see of this gateway."""
    url = local_url(*listener.getsockname()[:2])
    admin_url = url if admin_listener is None else local_url(*admin_listener.getsockname()[:2])
    upstream = "the simulator" if settings.upstream.is_simulated else settings.upstream.base_url
    return Resident(os.getpid(), url, admin_url if settings.admin.enabled else None, upstream)


def _prepared(settings: Settings, *, is_simulated: bool) -> tuple[str | None, Inventory]:
    """The admin key's secret if this is the first start, and what there is."""
    try:
        with unusable(settings):
            return asyncio.run(_prepare(settings, is_simulated=is_simulated))
    except KeyMissing:
        refusal: Exception = Refused(_KEY_MISSING)
    except (Refused, SettingsConflict) as error:
        refusal = error
    typer.secho(runnable(str(refusal)), fg=typer.colors.RED, err=True)
    raise typer.Exit(1)


async def _prepare(settings: Settings, *, is_simulated: bool) -> tuple[str | None, Inventory]:
    url = database_url(settings)
    await migrate(url)
    store = Store(url, pool_size=1, timeout_s=settings.database.timeout_s)
    try:
        # First of all: what is wrong with it must not be mended by a start that is refused.
        by: AnsweredBy = "simulator" if is_simulated else "models"
        if await turn_to(store, by, is_asked=settings.upstream.simulator):
            warn_of_simulated_calls()
        return await prepare(settings), await take_inventory(store, unix_time())
    finally:
        await store.close()


@contextmanager
def _simulated(settings: Settings, secret: str | None) -> Iterator[Settings]:
    """`settings` with a simulator as upstream, reached directly, and a key for a first try; it runs for as long."""
    # It takes 35 ms to import, which a gateway with a key need not wait for.
    from gateway.simulator import running_simulator  # noqa: PLC0415

    direct = {"transport": "auto", "proxy": None, "ca_file": None, "organization_id": None}
    # Ids of an earlier run are in the database still, and have their owners.
    with running_simulator(seed=randbits(63)) as simulator_url:
        upstream = {"base_url": simulator_url, "api_key": SecretStr(new_secret()), **direct}
        changed: dict[str, Any] = {"upstream": settings.upstream.model_copy(update=upstream)}
        if secret is not None:
            changed["keys"] = (Key(name="demo", team="demo", secret=SecretStr(secret)),)
        yield settings.model_copy(update=changed)
