"""The simulated upstream as one raw ASGI application.

Reads a request, asks the routes what to answer, and has it delivered. `/_seen`,
beside the mirrored surface, tells tests what arrived:
  GET /_seen                                   {"open", "total", "requests": [...]}
  GET /_seen?open=0&total=3&timeout_s=2        the same, once it is so; 408 if it took longer
  DELETE /_seen                                forget
"""

import asyncio
import base64
import hashlib
import hmac
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs

from gateway.simulator import heads, oddities, refusals
from gateway.simulator.call import Call, Headers, Json, Reply, Request, State, json_reply, refusal_reply
from gateway.simulator.delivery import ClientLeft, Line, Message, Send, deliver
from gateway.simulator.faults import Faults, UnknownFault, parse
from gateway.simulator.refusals import Refusal
from gateway.simulator.routes import Route, match
from gateway.simulator.seen import Exchange, Seen

Receive = Callable[[], Awaitable[Message]]
TRANSPORT = "simulator.transport"
SEEN_PATH = "/_seen"
NO_FAULTS = Faults()


class Simulator:
    """An ASGI application; see `build_simulator`."""

    def __init__(self, seed: int, api_key: str | None) -> None:
        self._state = State(seed)
        self._api_key = api_key
        self.seen = Seen()

    def __repr__(self) -> str:
        return f"<Simulator {self.seen.total} requests, {self.seen.open} open>"

    async def __call__(self, scope: Json, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)

    async def _http(self, scope: Json, receive: Receive, send: Send) -> None:
        line = Line(send, scope.get("state", {}).get(TRANSPORT))
        if scope["path"] == SEEN_PATH:
            await _send_plainly(line, await self._tell_seen(scope))
            return
        exchange = self.seen.begin(scope["method"], _target(scope), _client(scope), scope["headers"])
        ended = "failed"
        try:
            ended = await self._exchange(scope, receive, line, exchange)
        except ClientLeft:
            ended = "client left"
        finally:
            exchange.sent_bytes = line.sent_bytes
            self.seen.end(exchange, ended)

    async def _exchange(self, scope: Json, receive: Receive, line: Line, exchange: Exchange) -> str:
        body = await _read(receive)
        self.seen.body(exchange, body)
        watch = asyncio.create_task(_watch(receive, line.gone))
        try:
            reply, faults = self._answer(_request(scope, body))
            exchange.status = reply.status
            headers = heads.head(self._request_id(exchange), [*oddities.headers(reply, faults), *reply.headers])
            return await deliver(line, reply.status, headers, oddities.pieces(reply, faults), faults)
        finally:
            watch.cancel()

    def _request_id(self, exchange: Exchange) -> str:
        name = f"{self._state.seed} {exchange.number}".encode()
        return f"req_{hashlib.sha256(name).hexdigest()[:32]}"

    def _answer(self, request: Request) -> tuple[Reply, Faults]:
        faults = NO_FAULTS
        try:
            faults = parse(request.header(b"x-simulate"))
            self._authorise(request)
            refusal = _asked_for(request, faults)
            return (refusal or self._handle(request, faults)), faults
        except UnknownFault as error:
            return refusal_reply(refusals.invalid("x-simulate", str(error))), NO_FAULTS
        except Refusal as error:
            return refusal_reply(error), faults

    def _authorise(self, request: Request) -> None:
        if self._api_key is None:
            return
        scheme, _, token = request.header(b"authorization").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise refusals.no_key()
        if not hmac.compare_digest(token.encode(), self._api_key.encode()):
            raise refusals.wrong_key(token)

    def _handle(self, request: Request, faults: Faults) -> Reply:
        route, ids = match(request.method, request.path)
        fingerprint = request.fingerprint(self._state.seed)
        if route.makes_new or faults.fresh or _is_stored(route, request):
            fingerprint = self._state.another(fingerprint)
        return route.handler(Call(request, self._state, faults, ids, fingerprint))

    async def _tell_seen(self, scope: Json) -> Reply:
        if scope["method"] == "DELETE":
            self.seen.clear()
        query = parse_qs(scope["query_string"].decode("latin-1"))
        is_so = await self.seen.until(
            open_calls=int(query["open"][0]) if "open" in query else None,
            total=int(query.get("total", ["0"])[0]),
            timeout_s=float(query.get("timeout_s", ["5"])[0]),
        )
        return json_reply(self.seen.report(), 200 if is_so else 408)


def _is_stored(route: Route, request: Request) -> bool:
    """Whether the answer is kept under its id, so that an equal request must not get the same one."""
    if route.stores is None:
        return False
    said = request.says_store()
    return route.stores if said is None else said


def _asked_for(request: Request, faults: Faults) -> Reply | None:
    """The error that the request asked for, if it did."""
    if faults.status is None and not faults.echo_key:
        return None
    refusal = refusals.of_status(401 if faults.status is None else faults.status)
    headers: Headers = []
    if faults.retry_after_s is not None:
        headers.append((b"retry-after", b"%d" % faults.retry_after_s))
    if faults.retry_after_ms is not None:
        headers.append((b"retry-after-ms", b"%d" % faults.retry_after_ms))
    if faults.echo_key:
        headers += _echo(request, refusal.error)
    return refusal_reply(refusal, headers)


def _echo(request: Request, error: dict[str, Any]) -> Headers:
    """What a careless upstream would do with the key: say it, in four places."""
    given = request.header(b"authorization")
    token = given.partition(" ")[2]
    encoded = base64.b64encode(token.encode()).decode()
    error["message"] = f"Incorrect API key provided: {token} ({encoded})."
    return [(b"x-echo-authorization", given.encode("latin-1")), (b"x-echo-base64", encoded.encode())]


def _request(scope: Json, body: bytes) -> Request:
    path = scope.get("raw_path") or scope["path"].encode()
    query_string = scope["query_string"].decode("latin-1")
    return Request(scope["method"], path.decode("latin-1"), query_string, scope["headers"], body)


def _target(scope: Json) -> str:
    request = _request(scope, b"")
    return request.path + (f"?{request.query_string}" if request.query_string else "")


def _client(scope: Json) -> str:
    host, port = scope.get("client") or ("", 0)
    return f"{host}:{port}"


async def _read(receive: Receive) -> bytes:
    """The whole body; raises ClientLeft if it never came."""
    parts: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientLeft
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


async def _watch(receive: Receive, gone: asyncio.Event) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    gone.set()


async def _send_plainly(line: Line, reply: Reply) -> None:
    await line.start(reply.status, oddities.headers(reply, NO_FAULTS))
    for piece in oddities.pieces(reply, NO_FAULTS):
        await line.write(piece)
    await line.finish()


async def _lifespan(receive: Receive, send: Send) -> None:
    while (await receive())["type"] != "lifespan.shutdown":
        await send({"type": "lifespan.startup.complete"})
    await send({"type": "lifespan.shutdown.complete"})
