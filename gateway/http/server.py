"""uvicorn, set up for a gateway: its protocol, its loop, and a shutdown that lets streams finish."""

import asyncio
import contextlib
import logging
import multiprocessing
import socket
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Protocol, cast

import uvicorn

from gateway.errors import Draining
from gateway.http.listening import accept_waiting, ignore_newcomers
from gateway.http.protocol import GatewayProtocol
from gateway.http.proxy import Proxy
from gateway.settings import Server as ServerSettings

_log = logging.getLogger("gateway")
_CUT_GRACE_S = 2.0
"""How long cut streams have to get their in-band error out."""
_LAST_REQUESTS_S = 0.25
"""How long a connection may serve one more request, once nobody is let in any more: it may be on its way.

So too after a reply that could not say that the connection is to end, such as an event stream."""


class _Application(Protocol):
    proxy: Proxy
    is_leaving: bool


class DrainingServer(uvicorn.Server):
    """A server that, once told to stop, is not ready at once and stays until its calls are over or `drain_s` is.

    It stops listening `drain_delay_s` later, so that balancers try another node: they do so when a connection is
    refused, where a 503 would go on to the client.
    """

    def __init__(self, config: uvicorn.Config, settings: ServerSettings) -> None:
        super().__init__(config)
        self._drain_delay_s, self._drain_s = settings.drain_delay_s, settings.drain_s
        self._is_stopping = False

    @property
    def _application(self) -> _Application:
        application: _Application = self.config.loaded_app
        return application

    @property
    def _connections(self) -> list[GatewayProtocol]:
        return cast("list[GatewayProtocol]", list(self.server_state.connections))

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        asyncio.get_running_loop().set_exception_handler(_tell_of)
        await super().startup(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        # Not at once: some tell a process and its group. And who tells a group has told workers, whom their parent
        # tells too; it sends them SIGINT for a second signal, which uvicorn takes for one.
        if self._is_stopping and multiprocessing.parent_process() is None:
            self.force_exit = True
        if self.started:
            self._application.is_leaving = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        proxy = self._application.proxy
        self._is_stopping = True
        await self._leave(sockets or [])
        if count := len(proxy.open_calls):
            _log.info("stopping: %d calls open, for %g s at most; a second signal ends them now", count, self._drain_s)
        else:
            _log.info("stopping: no call is open")
        await self._wait(self._is_needed, self._drain_s)
        proxy.draining = True
        for call in tuple(proxy.open_calls):
            call.cut(Draining("This gateway is shutting down and cannot finish this call; send it again."))
        await self._wait(lambda: proxy.is_busy, _CUT_GRACE_S)
        await super().shutdown(sockets)
        if self.force_exit:  # then uvicorn leaves this out, and what is kept would be closed by being cancelled
            await self.lifespan.shutdown()

    async def _leave(self, listeners: list[socket.socket]) -> None:
        """Get rid of those who would send more calls, and lose none that is on its way."""
        self._application.is_leaving = self.lifespan.state["is_leaving"] = True
        for connection in self._connections:
            connection.end_after_next()
        await self._wait(lambda: True, self._drain_delay_s)
        await self._stop_listening(listeners)
        await self._wait(lambda: self.server_state.connections, _LAST_REQUESTS_S)
        self._close_idle()

    def _is_needed(self) -> bool:
        """Whether a call is under way, or may be: on its way here from a client that knows of no end."""
        self._close_idle()
        return self._application.proxy.is_busy or any(connection.is_idle for connection in self._connections)

    def _close_idle(self) -> None:
        for connection in self._connections:
            connection.close_if_idle(_LAST_REQUESTS_S)

    async def _stop_listening(self, listeners: list[socket.socket]) -> None:
        """Let in who is waiting for it, whose calls would be lost, and nobody after them."""
        if multiprocessing.parent_process() is None:  # else others still let newcomers in, for a moment
            for listener in listeners:
                ignore_newcomers(listener)
        waiting = accept_waiting(listeners)
        for server in self.servers:
            server.close()
        for listener in listeners:
            listener.close()
        loop = asyncio.get_running_loop()
        for connection in waiting:
            connection.setblocking(False)
            with contextlib.suppress(OSError):  # it has left by now
                await loop.connect_accepted_socket(self._protocol, connection)

    def _protocol(self) -> GatewayProtocol:
        return GatewayProtocol(self.config, self.server_state, self.lifespan.state)

    async def _wait(self, holds: Callable[[], object], limit_s: float) -> None:
        """Wait while it `holds`, until `limit_s` is over, or a second signal came."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                while holds() and not self.force_exit:  # noqa: ASYNC110 - calls and connections do not pay to tell
                    await asyncio.sleep(0.05)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn's, but a stop that was asked for and went well is exit status 0, not death by signal."""
        with super().capture_signals():
            yield
            self._captured_signals.clear()


def server_config(application: object, settings: ServerSettings) -> uvicorn.Config:
    """Uvicorn's configuration for `application`, an ASGI app or the import string of a factory of one."""
    return uvicorn.Config(
        application,  # type: ignore[arg-type]
        factory=isinstance(application, str),
        host=settings.host,
        port=settings.port,
        workers=settings.workers,
        http=GatewayProtocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        timeout_keep_alive=int(settings.keep_alive_s),
        timeout_graceful_shutdown=1,
    )


def _tell_of(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log what went wrong on the loop itself, but for the failed look-up of a name that nobody waits for any more.

    uvloop goes on looking when the connecting was given up, and whoever gave up has said so.
    """
    is_late = isinstance(context.get("exception"), socket.gaierror) and not isinstance(
        context.get("future"), asyncio.Task
    )
    if not is_late:
        loop.default_exception_handler(context)
