"""A second listener within a gateway's process, for an application that must not be where the calls go.

Knows how uvicorn is started and stopped inside of another server, which keeps the signals.
"""

import socket

import uvicorn

from gateway.http.server import server_config
from gateway.settings import Server as ServerSettings


class SideServer:
    """Serves `application`, which has no lifespan of its own, on `listener` from `start` to `close`."""

    def __init__(self, application: object, settings: ServerSettings, listener: socket.socket) -> None:
        config = server_config(application, settings)
        config.lifespan = "off"
        config.load()
        self._server = uvicorn.Server(config)
        self._server.lifespan = config.lifespan_class(config)
        self._server.lifespan.state = {"limits": settings}
        self._listener = listener

    async def start(self) -> None:
        """Accept connections from now on."""
        await self._server.startup([self._listener])

    async def close(self) -> None:
        """Accept no more, and let what is being answered end."""
        await self._server.shutdown([self._listener])
