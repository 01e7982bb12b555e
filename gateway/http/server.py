"""uvicorn, set up for a gateway: its protocol, its loop, and a shutdown that lets streams finish."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Iterator
from types import FrameType
from typing import Protocol

import uvicorn

from gateway.errors import Draining
from gateway.http.protocol import GatewayProtocol
from gateway.http.proxy import Proxy
from gateway.settings import Server as ServerSettings

_log = logging.getLogger("gateway")
_CUT_GRACE_S = 2.0
"""How long cut streams have to get their in-band error out."""


class _Application(Protocol):
    proxy: Proxy


class DrainingServer(uvicorn.Server):
    """A server that, once told to stop, is not ready at once and stays until its calls are over or `drain_s` is."""

    def __init__(self, config: uvicorn.Config, drain_s: float) -> None:
        super().__init__(config)
        self._drain_s = drain_s

    @property
    def _proxy(self) -> Proxy:
        application: _Application = self.config.loaded_app
        return application.proxy

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        if self.started:
            self._proxy.draining = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._proxy.draining = True
        if count := len(self._proxy.open_calls):
            _log.info("draining: %d open, at most %g s; a second interrupt ends it now", count, self._drain_s)
        await self._drain(self._drain_s)
        for call in tuple(self._proxy.open_calls):
            call.cut(Draining("This gateway is shutting down and cannot finish this call; send it again."))
        await self._drain(_CUT_GRACE_S)
        await super().shutdown(sockets)

    async def _drain(self, limit_s: float) -> None:
        """Wait until no call is open, or `limit_s` is over, or a second signal came."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                while self._proxy.open_calls and not self.force_exit:  # noqa: ASYNC110 - calls do not pay to tell
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
