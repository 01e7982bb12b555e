"""Requests that are not legal HTTP, bad hosts and bad paths: refused or dropped, and upstream's count is exact."""

import asyncio
import itertools
from collections.abc import AsyncIterator

import pytest

from gateway.http.routes import ROUTES
from tests.faults.face import AUTHORIZATION, CHAT, Client, connected, parse_head, post, request
from tests.support.gateway import KEY, RunningGateway, running_gateway
from tests.support.wire import WireUpstream, reply

BODY = b'{"model":"m"}'
SMUGGLED = b"GET /v1/models/smuggled HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + KEY.encode() + b"\r\n\r\n"
CHUNKS = b"d\r\n" + BODY + b"\r\n0\r\n\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
LENGTH = b"Content-Length: 13\r\n"


def raw(fields: bytes, body: bytes = BODY, *, line: bytes = b"POST /v1/chat/completions HTTP/1.1") -> bytes:
    authorization = b"Authorization: Bearer " + KEY.encode() + b"\r\n"
    return line + b"\r\nHost: localhost\r\n" + authorization + fields + b"\r\n" + body


MALFORMED = {
    "length and chunks": raw(LENGTH + CHUNKED, CHUNKS),
    "chunks and length": raw(CHUNKED + LENGTH, CHUNKS),
    "length 0 and chunks": raw(b"Content-Length: 0\r\n" + CHUNKED, CHUNKS),
    "two lengths": raw(LENGTH + b"Content-Length: 0\r\n"),
    "two equal lengths": raw(LENGTH + LENGTH),
    "a list of lengths": raw(b"Content-Length: 13, 13\r\n"),
    "a length with a sign": raw(b"Content-Length: +13\r\n"),
    "a length in hex": raw(b"Content-Length: 0xd\r\n"),
    "a negative length": raw(b"Content-Length: -1\r\n"),
    "a length beyond 64 bits": raw(b"Content-Length: 99999999999999999999999\r\n"),
    "a folded header": raw(LENGTH + b"X-A: b\r\n c\r\n"),
    "a folded coding": raw(b"Transfer-Encoding:\r\n chunked\r\n", CHUNKS),
    "bare line feeds": raw(LENGTH).replace(b"\r\n", b"\n"),
    "one bare line feed": raw(b"X-A: b\nTransfer-Encoding: chunked\r\n" + LENGTH),
    "a bare carriage return": raw(b"X-A: b\rTransfer-Encoding: chunked\r\n" + LENGTH),
    "a blank before the colon": raw(b"Transfer-Encoding : chunked\r\n", CHUNKS),
    "a blank before the name": raw(b" Transfer-Encoding: chunked\r\n", CHUNKS),
    "an empty name": raw(b": x\r\n" + LENGTH),
    "a name with a NUL": raw(b"X\x00: x\r\n" + LENGTH),
    "a value with a NUL": raw(b"X: a\x00b\r\n" + LENGTH),
    "a coding that is not chunked": raw(b"Transfer-Encoding: gzip\r\n", CHUNKS),
    "a coding like chunked": raw(b"Transfer-Encoding: xchunked\r\n", CHUNKS),
    "chunked twice": raw(CHUNKED + CHUNKED, CHUNKS),
    "chunked and then another": raw(b"Transfer-Encoding: chunked, identity\r\n", CHUNKS),
    "a chunk without a size": raw(CHUNKED, b"\r\n" + CHUNKS),
    "a chunk size that is no number": raw(CHUNKED, b"zz\r\n" + CHUNKS),
    "a chunk size with a sign": raw(CHUNKED, b"-1\r\n" + CHUNKS),
    "a chunk size beyond 64 bits": raw(CHUNKED, b"fffffffffffffffff\r\n" + CHUNKS),
    "a chunk that is shorter than its size": raw(CHUNKED, b"c\r\n" + BODY + b"\r\n0\r\n\r\n"),
    "a chunk that ends in a line feed": raw(CHUNKED, b"d\n" + BODY + b"\n0\n\n"),
    "a trailer that is a length": raw(CHUNKED, CHUNKS[:-2] + LENGTH + b"\r\n"),
    "no version": b"GET /v1/models\r\n\r\n",
    "an unknown version": raw(LENGTH, line=b"POST /v1/chat/completions HTTP/1.2"),
    "a target with a blank": raw(LENGTH, line=b"POST /v1/chat/ completions HTTP/1.1"),
    "a target with a NUL": raw(LENGTH, line=b"POST /v1/chat\x00/completions HTTP/1.1"),
    "an unknown method": raw(LENGTH, line=b"POAST /v1/chat/completions HTTP/1.1"),
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "words": b"hello there\r\n\r\n",
}


@pytest.fixture
async def counted() -> AsyncIterator[tuple[WireUpstream, RunningGateway]]:
    async with WireUpstream(reply(200, body=b"{}")) as upstream:
        with running_gateway(f"{upstream.url}/v1") as gateway:
            yield upstream, gateway


async def _statuses(client: Client) -> list[int]:
    """The statuses of all replies until the gateway closes the connection."""
    statuses = []
    while True:
        try:
            statuses.append((await client.answer()).status)
        except (asyncio.IncompleteReadError, ConnectionError):
            return statuses


async def test_a_malformed_request_is_refused_and_nothing_behind_it_is_read(
    counted: tuple[WireUpstream, RunningGateway],
) -> None:
    upstream, gateway = counted
    for name, data in MALFORMED.items():
        async with connected(gateway.port) as client:
            client.send(data + SMUGGLED)
            statuses = await _statuses(client)
        assert len(statuses) <= 1, name
        assert all(400 <= status < 500 for status in statuses), name
        assert not upstream.requests, name
    async with connected(gateway.port) as client:
        client.send(post(CHAT, {}))
        assert (await client.answer()).status == 200
    assert len(upstream.requests) == 1


async def test_a_malformed_request_behind_a_good_one_does_not_harm_it(
    counted: tuple[WireUpstream, RunningGateway],
) -> None:
    upstream, gateway = counted
    for name, data in MALFORMED.items():
        before = len(upstream.requests)
        async with connected(gateway.port) as client:
            client.send(raw(LENGTH))
            assert (await client.answer()).status == 200
            client.send(data + SMUGGLED)
            assert len(await _statuses(client)) <= 1, name
        assert len(upstream.requests) == before + 1, name


async def test_trailers_do_not_become_headers(counted: tuple[WireUpstream, RunningGateway]) -> None:
    upstream, gateway = counted
    trailers = b"Authorization: Bearer other\r\nOpenAI-Beta: x\r\nX-Later: 1\r\nHost: elsewhere\r\n"
    async with connected(gateway.port) as client:
        client.send(raw(CHUNKED, CHUNKS[:-2] + trailers + b"\r\n"))
        assert (await client.answer()).status == 200
    names = {name for name, _ in parse_head(upstream.requests[0].head)}
    assert names == {"host", "authorization", "accept-encoding", "content-length"}
    assert upstream.requests[0].body == BODY


async def test_chunks_reach_upstream_as_one_body_of_known_length(
    counted: tuple[WireUpstream, RunningGateway],
) -> None:
    upstream, gateway = counted
    pieces = b"".join(b"1;ext=%d\r\n%c\r\n" % (number, byte) for number, byte in enumerate(BODY)) + b"000\r\n\r\n"
    async with connected(gateway.port) as client:
        client.send(raw(CHUNKED, pieces))
        assert (await client.answer()).status == 200
    assert upstream.requests[0].raw_body == BODY
    assert upstream.requests[0].header(b"transfer-encoding") is None


async def test_a_request_may_come_byte_by_byte(counted: tuple[WireUpstream, RunningGateway]) -> None:
    upstream, gateway = counted
    async with connected(gateway.port) as client:
        for byte in raw(LENGTH + b"X-A: b\r\n"):
            client.send(bytes([byte]))
            await client.writer.drain()
            await asyncio.sleep(0)
        assert (await client.answer()).status == 200
    assert upstream.requests[0].body == BODY


# Bad hosts and paths, on every route, without a key

HOSTS = [
    "gateway",
    "",
    "x" * 200,
    "evil.example:99999",
    "a b",
    "[::1",
    "127.0.0.1:0",
    "\xff",
    "/v1/models",
    "a,b",
    "@x",
]
INSIDE = [
    "",
    "/",
    "//",
    "/..",
    "/%2e%2e/",
    "/.%2e/x",
    "/%00",
    "\\",
    "/%5c",
    "/%2f",
    "?a=/../",
    ";x",
    "/%",
    "/\xff",
    "#x",
]
ALLOWED = {
    "/healthz": {200, 400, 404, 405},
    "/readyz": {200, 400, 404, 405},
    "/metrics": {200, 400, 404, 405},
}


async def test_no_bad_host_or_path_gets_past_the_door_without_a_key(
    counted: tuple[WireUpstream, RunningGateway],
) -> None:
    upstream, gateway = counted
    routes = [(route.method, route.path.replace("{", "").replace("}", "")) for route in ROUTES]
    own = [(method, path) for method in ("GET", "POST") for path in ALLOWED]
    cases = [
        *((method, path + inside, HOSTS[0]) for (method, path), inside in itertools.product([*routes, *own], INSIDE)),
        *((method, path, host) for (method, path), host in itertools.product([*routes, *own], HOSTS)),
        *((method, inside + path, HOSTS[0]) for (method, path), inside in itertools.product(routes[::9], INSIDE)),
    ]
    async with asyncio.TaskGroup() as group:
        for lane in range(8):
            group.create_task(_knock(gateway.port, cases[lane::8]))
    assert not upstream.requests


async def _knock(port: int, cases: list[tuple[str, str, str]]) -> None:
    knocking = _Reconnecting(port)
    for method, target, host in cases:
        data = f"{method} {target} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode("latin-1")
        status = await knocking.status(data)
        path = next((path for path in ALLOWED if target.startswith(path)), None)
        allowed = {400, 401, 404, 426} if path is None else ALLOWED[path]
        assert status in allowed, (method, target, host, status)
    knocking.drop()


class _Reconnecting:
    """One connection after the other: a refusal of what cannot be parsed closes it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._open: Client | None = None

    async def status(self, data: bytes) -> int:
        if self._open is None:
            self._open = Client(*await asyncio.open_connection("127.0.0.1", self._port))
        self._open.send(data)
        answer = await self._open.answer()
        if answer.header("connection") == "close":
            self.drop()
        return answer.status

    def drop(self) -> None:
        if self._open is not None:
            self._open.leave()
            self._open = None


async def test_a_host_header_decides_nothing_for_one_who_has_a_key(
    counted: tuple[WireUpstream, RunningGateway],
) -> None:
    upstream, gateway = counted
    for host in ("evil.example", "api.gmi-serving.com/v1/organization", "x@y", "localhost:1"):
        async with connected(gateway.port) as client:
            client.send(request("GET", "/v1/models", headers=[AUTHORIZATION]).replace(b"gateway", host.encode(), 1))
            assert (await client.answer()).status == 200
    expected = upstream.url.removeprefix("http://").encode()
    assert {(seen.target, seen.header(b"host")) for seen in upstream.requests} == {(b"/v1/models", expected)}
