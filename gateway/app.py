"""The composition root: the only place where the parts meet.

`GatewayApp` is FastAPI for everything but the mirrored surface, which it hands straight to the proxy.
"""

import contextlib
import ctypes
import gc
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from gateway.access.first_start import first_start
from gateway.access.last_used import LastUsed
from gateway.access.reconcile import reconcile
from gateway.call import Recorded
from gateway.composition import Books, Bounds, Doorkeepers
from gateway.http.metrics import metrics_app, metrics_router
from gateway.http.openapi import add_mirrored_routes
from gateway.http.ops import ops_router
from gateway.http.pages import OwnPages
from gateway.http.proxy import Proxy, target_base
from gateway.http.routes import ROUTE_GROUPS, is_mirrored
from gateway.http.server import DrainingServer, server_config
from gateway.http.side_server import SideServer
from gateway.http.workers import Workers
from gateway.observe import logs
from gateway.observe.board import Board
from gateway.observe.families import Family, Gauged
from gateway.observe.metrics import CallMetrics
from gateway.observe.slots import slots_folder
from gateway.observe.traces.tracing import Tracing, losses, tracing
from gateway.relay.due import Upstream
from gateway.relay.headers import RequestHeaders
from gateway.relay.live import ENDPOINT
from gateway.relay.mask import SecretMask
from gateway.relay.objects import StoredObjects
from gateway.relay.relay import Relay
from gateway.relay.settlement import Observer, Settlement, each
from gateway.settings import Admin, Settings
from gateway.settings.shapes import host_and_port
from gateway.settings.telemetry import Metrics
from gateway.store.engine import Store
from gateway.store.migrate import migrate
from gateway.store.url import database_url
from gateway.upstream.choose import make_transport
from gateway.upstream.origin import Origin
from gateway.upstream.transport import Transport

_BACKLOG = 2048
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""`M_TRIM_THRESHOLD` and `M_MMAP_THRESHOLD`."""


class GatewayApp(OwnPages):
    """FastAPI for operations, administration and docs; `proxy` for all else."""

    proxy: Proxy
    is_leaving = False
    """It has been told to stop, and should get no new calls."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and is_mirrored(scope["raw_path"]):
            await self.proxy(scope, receive, send)
            return
        await super().__call__(scope, receive, send)

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            self.openapi_schema = add_mirrored_routes(super().openapi())
        return self.openapi_schema


async def prepare(settings: Settings) -> str | None:
    """Bring the store to where this gateway needs it; the admin key's secret, if this was the first start.

    Raises `BadDatabaseUrl`, `SchemaError`, `SettingsConflict` or `StoreUnavailable`, whose messages say what to do.
    """
    url = database_url(settings)
    await migrate(url)
    store = Store(url, pool_size=1, timeout_s=settings.database.timeout_s)
    try:
        await reconcile(store, settings.keys, settings.admin.key, route_groups=ROUTE_GROUPS)
        return await first_start(store)
    finally:
        await store.close()


def build_app(
    settings: Settings,
    admin_listener: socket.socket | None = None,
    metrics_listener: socket.socket | None = None,
    metrics_folder: Path | None = None,
) -> GatewayApp:
    """The application for `settings`, which must hold an API key, on a store that `prepare` has been at.

    The listeners are those of `admin.listen` and `metrics.listen`; in `metrics_folder` several workers add up. Raises
    ValueError or OSError if it cannot work.
    """
    upstream = settings.upstream
    if upstream.api_key is None:
        raise ValueError("upstream.api_key is not set")
    api_key = upstream.api_key.get_secret_value().encode()
    transport = make_transport(upstream)
    doorkeepers = Doorkeepers(settings)
    bounds = Bounds(settings, doorkeepers.store)
    books = Books(settings, doorkeepers.store, bounds.allowance.meter)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, Any]]:
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(traces_at_work)
            await stack.enter_async_context(board.at_work())
            stack.push_async_callback(transport.close)
            await stack.enter_async_context(doorkeepers.at_work())
            await stack.enter_async_context(bounds.at_work())
            await stack.enter_async_context(books.at_work(books.asker(bounds, doorkeepers, way)))
            for listener, pages in sides:
                side = SideServer(pages, settings.server, listener)
                stack.push_async_callback(side.close)
                await side.start()
            yield {"limits": settings.server, "endpoint": app.proxy, "repeated_heads": app.proxy.repeated}

    app = GatewayApp(
        title="GMI gateway",
        lifespan=lifespan,
    )
    output_cost = bounds.allowance.meter.output_cost_of
    calls = CallMetrics(settings.models.aliases.values(), (ENDPOINT,), output_cost=output_cost)
    traces = tracing(settings)
    families = (
        *_traffic(app, transport),
        *doorkeepers.readings(),
        *bounds.readings(calls.team_names),
        *books.readings(),
        losses(traces),
    )
    board = Board(calls, families, metrics_folder)
    token = None if settings.metrics.token is None else settings.metrics.token.get_secret_value()
    sides: list[tuple[socket.socket, FastAPI]] = []
    if admin_listener is not None:
        sides.append((admin_listener, doorkeepers.admin_app(bounds.overview, books.desk)))
    if metrics_listener is not None:
        sides.append((metrics_listener, metrics_app(board.collect, token)))
    log_call = logs.call_logger(settings.log)
    way = Upstream(transport, _request_headers(settings, api_key), target_base(urlsplit(upstream.base_url).path))
    app.proxy = Proxy(
        settings,
        doorkeepers.directory,
        Relay(
            transport,
            SecretMask((api_key,)),
            settings.streams,
            settings.models.aliases,
            StoredObjects(doorkeepers.ownership),
            bounds.allowance.meter,
        ),
        way.headers,
        way.base_path,
        bounds.allowance,
    )
    _follow_calls(app.proxy.settlement, calls, doorkeepers.last_used, books, bounds)
    if log_call is not None:
        app.proxy.settlement.add_observer(each(log_call))
    traces_at_work = _trace(app.proxy, traces)
    app.include_router(ops_router(lambda: app.is_leaving))
    if settings.metrics.enabled and settings.metrics.listen is None:
        app.include_router(metrics_router(board.collect, token))
    if settings.admin.enabled and settings.admin.listen is None:
        app.include_router(doorkeepers.admin_routes(bounds.overview, books.desk))
    return app


def _trace(proxy: Proxy, traces: Tracing | None) -> contextlib.AbstractAsyncContextManager[None]:
    """Trace the calls of `proxy`, if there are `traces`; they are sent while what is returned is entered."""
    if traces is None:
        return contextlib.nullcontext()
    proxy.begin_trace = traces.begin
    proxy.settlement.add_observer(each(traces.observe))
    return traces.at_work()


def _follow_calls(
    settlement: Settlement, calls: CallMetrics, last_used: LastUsed, books: Books, bounds: Bounds
) -> None:
    settlement.add_observer(each(calls.observe))
    settlement.add_observer(_use_noter(last_used))
    settlement.add_observer(books.ledger.note)
    settlement.note_late = books.late.note
    books.late.follow(calls.observe_late)
    books.late.follow(bounds.allowance.note_late)


def _use_noter(last_used: LastUsed) -> Observer:
    def note(recorded: Sequence[Recorded]) -> None:
        for record, _ in recorded:
            if record.principal is not None:
                last_used.note(record.principal.key_id, int(record.started_at_s))

    return note


def _request_headers(settings: Settings, api_key: bytes) -> RequestHeaders:
    organization_id = settings.upstream.organization_id
    return RequestHeaders(
        host=Origin.from_url(settings.upstream.base_url).authority.encode(),
        api_key=api_key,
        organization_id=None if organization_id is None else organization_id.encode(),
        namespaces_keys=settings.access.namespace_keys,
        shares_within_team=settings.access.share_within_team,
    )


def _traffic(app: GatewayApp, transport: Transport) -> Iterator[Family]:
    """What is under way now."""

    def streams() -> int:
        return sum(call.streamed for call in app.proxy.open_calls)

    def connections() -> dict[tuple[str, ...], float]:
        return {("in_use",): transport.in_use, ("idle",): transport.idle}

    yield Gauged("open_calls", "Calls in flight.", (), lambda: {(): len(app.proxy.open_calls)})
    yield Gauged("open_streams", "Event streams in flight.", (), lambda: {(): streams()})
    yield Gauged("upstream_connections", "Connections to upstream.", ("state",), connections)


class Worker:
    """What one process runs; it is sent to it whole, so that no secret passes through an environment."""

    def __init__(
        self,
        settings: Settings,
        admin_listener: socket.socket | None = None,
        metrics_listener: socket.socket | None = None,
        metrics_folder: Path | None = None,
    ) -> None:
        self._settings = settings
        self._rest = (admin_listener, metrics_listener, metrics_folder)

    def __call__(self, sockets: list[socket.socket] | None = None) -> None:
        logs.configure(self._settings.log)
        config = server_config(build_app(self._settings, *self._rest), self._settings.server)
        _collect_seldom()
        _keep_freed_memory()
        DrainingServer(config, self._settings.server).run(sockets)


def _collect_seldom() -> None:
    """What is there now stays, so collections need not walk over it. Garbage among it is too little to look for."""
    gc.freeze()
    gc.set_threshold(5_000, 20, 20)
    gc.enable()


def _keep_freed_memory() -> None:
    """Up to 64 MiB of it, for the next large body: to get it anew costs the system as much as to carry that body.

    What the C library is asked for is in glibc's `malloc.h`; another one has no such function, or does not heed it.
    """
    with contextlib.suppress(OSError, TypeError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_THRESHOLD, 32 * 1024 * 1024)
        mallopt(_TRIM_THRESHOLD, 64 * 1024 * 1024)


def bind(settings: Settings) -> socket.socket:
    """The listening socket. Raises OSError when the address cannot be had."""
    return _listen(settings.server.host, settings.server.port)


def bind_admin(settings: Settings) -> socket.socket | None:
    """As `bind`, for `admin.listen`; None where the admin API has no address of its own."""
    return _bind_side(settings.admin)


def bind_metrics(settings: Settings) -> socket.socket | None:
    """As `bind`, for `metrics.listen`; None where the page of metrics has no address of its own."""
    return _bind_side(settings.metrics)


def _bind_side(section: Admin | Metrics) -> socket.socket | None:
    listen = section.listen if section.enabled else None
    return None if listen is None else _listen(*host_and_port(listen))


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=_BACKLOG)


def serve(
    settings: Settings,
    listener: socket.socket,
    admin_listener: socket.socket | None = None,
    metrics_listener: socket.socket | None = None,
) -> None:
    """Run the gateway, whose store `prepare` has been at, until it is told to stop."""
    if settings.server.workers == 1:
        Worker(settings, admin_listener, metrics_listener)([listener])
        return
    logs.configure(settings.log)
    _collect_seldom()
    with slots_folder(Path(settings.server.state_dir) / "metrics") as folder:
        Workers(Worker(settings, admin_listener, metrics_listener, folder), listener, settings.server.workers).run()
