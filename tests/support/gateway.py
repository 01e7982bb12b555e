"""A real gateway on loopback for tests: its own thread, its own loop, uvicorn as in production.

Because it does not share the test's loop, blocking clients and asynchronous ones can both be pointed at it.
"""

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any, TypeVar

import uvloop

from gateway.access.ownership import Owner
from gateway.app import GatewayApp, bind_admin, bind_metrics, build_app, prepare
from gateway.call import CallRecord
from gateway.http.server import DrainingServer, server_config
from gateway.metering.ledger import Ledger
from gateway.relay.settlement import each
from gateway.settings import Settings
from tests.support.patience import wait_for
from tests.support.stores import fresh_sqlite_url

KEY = "sk-test-0123456789abcdef"
UPSTREAM_KEY = "sk-upstream-canary-4f9d2c71b8"
BEARER = {"Authorization": f"Bearer {KEY}"}

T = TypeVar("T")


class _Server(DrainingServer):
    """Says when it listens."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.listening = threading.Event()
        self._told = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        self._told.set()

    async def main_loop(self) -> None:
        """Waits to be told, where uvicorn looks ten times a second."""
        await self._told.wait()


class RunningGateway:
    """`url` is its root, `api` the base URL for OpenAI's clients; `records` are the calls that have ended."""

    def __init__(self, app: GatewayApp, port: int, server: _Server) -> None:
        self.app, self.port, self._server = app, port, server
        self.url = f"http://127.0.0.1:{port}"
        self.api = f"{self.url}/v1"
        self.records: list[CallRecord] = []
        self._recorded = threading.Condition()
        self.loop: asyncio.AbstractEventLoop | None = None
        self.admin_secret: str | None = None
        """The admin key that the first start made."""

    def observe(self, record: CallRecord, _detail: str) -> None:
        with self._recorded:
            self.records.append(record)
            self._recorded.notify_all()

    def wait_for_records(self, count: int, within_s: float = 5.0) -> list[CallRecord]:
        """The records, once there are `count` of them. Blocks the calling thread."""
        with self._recorded:
            if not wait_for(self._recorded, lambda: len(self.records) >= count, within_s):
                raise AssertionError(f"{len(self.records)} calls were recorded, not {count}")
            return list(self.records)

    async def recorded(self, count: int, within_s: float = 5.0) -> list[CallRecord]:
        """As `wait_for_records`, for a test that runs on a loop."""
        return await asyncio.to_thread(self.wait_for_records, count, within_s)

    def ask(self, question: Callable[[], T]) -> T:
        """The answer to `question`, asked on the gateway's own loop."""

        async def answer() -> T:
            return question()

        assert self.loop is not None
        return asyncio.run_coroutine_threadsafe(answer(), self.loop).result(5)

    def own(self, *ids: str, key: str = KEY) -> None:
        """Let these objects be those of whoever holds `key`, as if they had been made by it."""

        async def note() -> None:
            proxy = self.app.proxy
            principal = await proxy._directory.look_up(f"Bearer {key}".encode())
            proxy._objects._ownership.note(Owner(principal.team_id, principal.key_id), ids)

        assert self.loop is not None
        asyncio.run_coroutine_threadsafe(note(), self.loop).result(5)

    def has_pipelined(self) -> bool:
        """Whether a request waits behind another one on some connection; for `ask`."""
        connections: set[Any] = self._server.server_state.connections
        return any(connection.pipeline for connection in connections)

    def stop(self) -> None:
        """What SIGTERM does."""
        if self.loop is not None and not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self._server.handle_exit, 15, None)


def write_ledger(gateway: RunningGateway) -> None:
    """Have all calls that `gateway` has recorded in the database. Blocks the calling thread."""
    ledgers = (getattr(observe, "__self__", None) for observe in gateway.app.proxy.settlement._observers)
    ledger = next(each for each in ledgers if isinstance(each, Ledger))
    assert gateway.loop is not None
    asyncio.run_coroutine_threadsafe(ledger.drain(), gateway.loop).result(5)


def settings_for(base_url: str, **sections: Any) -> Settings:
    """Settings for a gateway in front of `base_url`, with one key; each section may be given as a dict."""
    upstream = {"base_url": base_url, "api_key": UPSTREAM_KEY, **sections.pop("upstream", {})}
    keys = sections.pop("keys", [{"name": "ada", "team": "engines", "secret": KEY}])
    log = sections.pop("log", {"calls": "off"})
    return Settings.model_validate({"upstream": upstream, "keys": keys, "log": log, **sections})


@contextmanager
def running_gateway(base_url: str, **sections: Any) -> Iterator[RunningGateway]:
    """A gateway in front of `base_url` on a free port, drained and gone at the end.

    Its state is its own, and gone with it, unless `server` or `database` say where it is.
    """
    with TemporaryDirectory(prefix="gateway-state-") as folder:
        server = {"state_dir": folder, **sections.pop("server", {})}
        settings = settings_for(base_url, server=server, **sections)
        if settings.database.url is None and server["state_dir"] == folder:
            fresh_sqlite_url(Path(folder))
        with _running(settings) as running:
            yield running


@contextmanager
def _running(settings: Settings) -> Iterator[RunningGateway]:
    app = build_app(settings, bind_admin(settings), bind_metrics(settings))
    server = _Server(server_config(app, settings.server), settings.server)
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    running = RunningGateway(app, listener.getsockname()[1], server)
    app.proxy.settlement.add_observer(each(running.observe))

    async def main() -> None:
        running.admin_secret = await prepare(settings)
        running.loop = asyncio.get_running_loop()
        await server.serve(sockets=[listener])

    thread = threading.Thread(target=lambda: uvloop.run(main()), name="gateway")
    thread.start()
    try:
        if not server.listening.wait(30):
            raise AssertionError("the gateway did not start")
        yield running
    finally:
        running.stop()
        thread.join(settings.server.drain_delay_s + settings.server.drain_s + 15)
        assert not thread.is_alive(), "the gateway did not stop"
