"""The simulator on a socket: uvicorn's HTTP protocol, its transport within reach.

Serves one application in a thread of its own, or in this process for the
command line. Configures no logging: that is for who runs it.
"""

import asyncio
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from gateway.simulator.app import TRANSPORT, Simulator

START_TIMEOUT_S = 10.0
STOP_TIMEOUT_S = 10.0
KEEP_ALIVE_S = 75


def build_simulator(*, seed: int = 0, api_key: str | None = None) -> Simulator:
    """An ASGI application that answers as GMI would, without a model.

    `seed` changes every id. With `api_key`, another bearer token is answered
    with the real API's 401; without it, any token or none will do.
    """
    return Simulator(seed, api_key)


class SimulatorProtocol(HttpToolsProtocol):
    """Puts the transport into the scope, so that a connection can be cut or reset for real."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.access_log = False
        self.logger = logging.getLogger(__name__)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["state"][TRANSPORT] = self.transport


def _configuration(app: Simulator) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        log_config=None,
        lifespan="off",
        ws="none",
        timeout_keep_alive=KEEP_ALIVE_S,
    )


class _ServerThread(threading.Thread):
    """A server with its own loop; `url` is its base URL, or why it did not start."""

    def __init__(self, app: Simulator, host: str, port: int) -> None:
        super().__init__(name="simulator", daemon=True)
        self._configuration = _configuration(app)
        self._address = host, port
        self.url: Future[str] = Future()
        self._stopping: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self) -> None:
        with asyncio.Runner(loop_factory=self._configuration.get_loop_factory()) as runner:
            try:
                runner.run(self._serve())
            except OSError as error:
                self.url.set_exception(error)

    def stop(self) -> None:
        if self._loop is not None and self._stopping is not None:
            self._loop.call_soon_threadsafe(self._stopping.set)
        self.join(STOP_TIMEOUT_S)

    async def _serve(self) -> None:
        loop, stopping, state = asyncio.get_running_loop(), asyncio.Event(), ServerState()
        server = await loop.create_server(lambda: self._protocol(state), *self._address, backlog=2048)
        # Only now is there something to stop: a loop that could not listen closes by itself.
        self._loop, self._stopping = loop, stopping
        self.url.set_result(_base_url(self._address[0], server))
        await stopping.wait()
        server.close()
        await _hang_up(state)
        await server.wait_closed()

    def _protocol(self, state: ServerState) -> SimulatorProtocol:
        return SimulatorProtocol(self._configuration, state, {}, self._loop)


def _base_url(host: str, server: asyncio.Server) -> str:
    port = server.sockets[0].getsockname()[1]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/v1"


async def _hang_up(state: ServerState) -> None:
    """Abort what is open; its tasks see their client leave, and end."""
    for connection in list(state.connections):
        connection.transport.abort()
    await asyncio.gather(*state.tasks, return_exceptions=True)


@contextmanager
def running_simulator(
    host: str = "127.0.0.1", port: int = 0, *, seed: int = 0, api_key: str | None = None
) -> Iterator[str]:
    """Serve in a thread; yields the base URL (`http://127.0.0.1:PORT/v1`). Raises OSError if it cannot listen."""
    thread = _ServerThread(build_simulator(seed=seed, api_key=api_key), host, port)
    thread.start()
    try:
        yield thread.url.result(START_TIMEOUT_S)
    finally:
        thread.stop()


def serve(host: str, port: int, *, seed: int = 0, api_key: str | None = None) -> None:
    """Serve in this process until it is told to stop."""
    uvicorn.run(
        build_simulator(seed=seed, api_key=api_key),
        host=host,
        port=port,
        http=SimulatorProtocol,
        ws="none",
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=1,
        timeout_keep_alive=KEEP_ALIVE_S,
    )
