"""The composition root: the only place where the parts meet.

`GatewayApp` is FastAPI for everything but the mirrored surface, which it hands straight to the proxy.
"""

import contextlib
import gc
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import urlsplit

from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from gateway.access.directory import KeyDirectory
from gateway.http.openapi import add_mirrored_routes
from gateway.http.ops import ops_router
from gateway.http.pages import OwnPages
from gateway.http.proxy import Proxy, target_base
from gateway.http.routes import is_mirrored
from gateway.http.server import DrainingServer, server_config
from gateway.http.workers import Workers
from gateway.observe import logs
from gateway.observe.metrics import CallMetrics
from gateway.relay.headers import RequestHeaders
from gateway.relay.mask import SecretMask
from gateway.relay.relay import Relay
from gateway.settings import Settings
from gateway.upstream.choose import make_transport
from gateway.upstream.origin import Origin

_BACKLOG = 2048


class GatewayApp(OwnPages):
    """FastAPI for operations, administration and docs; `proxy` for all else."""

    proxy: Proxy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and is_mirrored(scope["raw_path"]):
            await self.proxy(scope, receive, send)
            return
        await super().__call__(scope, receive, send)

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            self.openapi_schema = add_mirrored_routes(super().openapi())
        return self.openapi_schema


def build_app(settings: Settings) -> GatewayApp:
    """The application for `settings`, which must hold an API key. Raises ValueError or OSError if it cannot work."""
    upstream = settings.upstream
    if upstream.api_key is None:
        raise ValueError("upstream.api_key is not set")
    api_key = upstream.api_key.get_secret_value().encode()
    transport = make_transport(upstream)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, Any]]:
        gc.collect()
        gc.freeze()  # what is there now stays: collections need not walk over it
        gc.set_threshold(5_000, 20, 20)
        try:
            yield {"limits": settings.server, "endpoint": app.proxy, "repeated_heads": app.proxy.repeated}
        finally:
            await transport.close()

    app = GatewayApp(
        title="GMI gateway",
        lifespan=lifespan,
    )
    metrics = CallMetrics(_gauges(app))
    log_call = logs.call_logger(settings.log)
    app.proxy = Proxy(
        settings,
        KeyDirectory(settings.keys, open_to_all=not settings.keys),
        Relay(transport, SecretMask((api_key,)), settings.streams, settings.models.aliases),
        _request_headers(settings, api_key),
        target_base(urlsplit(upstream.base_url).path),
    )
    app.proxy.add_observer(metrics.observe)
    if log_call is not None:
        app.proxy.add_observer(log_call)
    app.include_router(ops_router(lambda: app.proxy.draining, metrics.render))
    return app


def _request_headers(settings: Settings, api_key: bytes) -> RequestHeaders:
    organization_id = settings.upstream.organization_id
    return RequestHeaders(
        host=Origin.from_url(settings.upstream.base_url).authority.encode(),
        api_key=api_key,
        organization_id=None if organization_id is None else organization_id.encode(),
    )


def _gauges(app: GatewayApp) -> tuple[tuple[str, str, Callable[[], float]], ...]:
    def streams() -> float:
        return sum(call.streamed for call in app.proxy.open_calls)

    return (
        ("open_calls", "Calls in flight.", lambda: len(app.proxy.open_calls)),
        ("open_streams", "Event streams in flight.", streams),
    )


class Worker:
    """What one process runs; it is sent to it whole, so that no secret passes through an environment."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def __call__(self, sockets: list[socket.socket] | None = None) -> None:
        logs.configure(self._settings.log)
        config = server_config(build_app(self._settings), self._settings.server)
        DrainingServer(config, self._settings.server.drain_s).run(sockets)


def bind(settings: Settings) -> socket.socket:
    """The listening socket. Raises OSError when the address cannot be had."""
    host, port = settings.server.host, settings.server.port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=_BACKLOG)


def serve(settings: Settings, listener: socket.socket | None = None) -> None:
    """Run the gateway until it is told to stop. Raises OSError when the address cannot be had."""
    listener = listener or bind(settings)
    worker = Worker(settings)
    if settings.server.workers == 1:
        worker([listener])
        return
    logs.configure(settings.log)
    Workers(worker, listener, settings.server.workers).run()
