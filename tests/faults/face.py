"""A client at the gateway's face that sees every byte: what was sent, and how it ended.

Knows how to write a request and where a reply ends (RFC 9112, 6.3). Adds no header, follows nothing, retries nothing.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from gateway.upstream.httpx2_transport import Httpx2Transport
from gateway.upstream.native import NativeTransport
from tests.support.gateway import KEY, RunningGateway
from tests.support.wire import reset

TRANSPORTS = ("native", "httpx2")
CHAT = "/v1/chat/completions"
RESPONSES = "/v1/responses"
AUTHORIZATION = ("Authorization", f"Bearer {KEY}")

Fields = Iterable[tuple[str, str]]
End = Literal["complete", "cut"]


@dataclass(frozen=True, slots=True)
class Answer:
    """One reply as it came. `body` has no chunk framing; `cut`: the connection ended before the reply did."""

    status: int
    head: bytes
    headers: list[tuple[str, str]]
    body: bytes
    end: End

    def header(self, name: str) -> str | None:
        """The one value of a header, its name in lower case; None if it did not come."""
        values = [value for key, value in self.headers if key == name]
        assert len(values) < 2, f"{name} came {len(values)} times"
        return values[0] if values else None

    @property
    def error(self) -> dict[str, Any]:
        """The error object of the body, which must be one of OpenAI's shape and nothing more."""
        body = json.loads(self.body)
        assert list(body) == ["error"], body
        assert sorted(body["error"]) == ["code", "message", "param", "type"], body
        assert self.header("content-type") == "application/json"
        return dict(body["error"])


class Client:
    """One connection to a server on 127.0.0.1."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def head(self, *, within_s: float = 5.0) -> tuple[int, bytes]:
        """Status and bytes of the next head; interim replies are left out."""
        async with asyncio.timeout(within_s):
            while True:
                head = await self.reader.readuntil(b"\r\n\r\n")
                status = int(head.split(b" ", 2)[1])
                if status >= 200:
                    return status, head

    async def answer(self, *, within_s: float = 5.0, bodiless: bool = False) -> Answer:
        """The next reply to its end."""
        status, head = await self.head(within_s=within_s)
        headers = parse_head(head)
        framing = dict(headers)
        pieces: list[bytes] = []
        end: End = "complete"
        async with asyncio.timeout(within_s):
            try:
                if not (bodiless or status in (204, 304)):
                    await self._body(framing, pieces)
            except (asyncio.IncompleteReadError, ConnectionError) as error:
                pieces.append(getattr(error, "partial", b""))
                end = "cut"
        return Answer(status, head, headers, b"".join(pieces), end)

    async def _body(self, framing: Mapping[str, str], pieces: list[bytes]) -> None:
        if framing.get("transfer-encoding") == "chunked":
            while piece := await self.chunk():
                pieces.append(piece)
        elif (length := framing.get("content-length")) is not None:
            pieces.append(await self.reader.readexactly(int(length)))
        else:
            pieces.append(await self.reader.read())

    async def chunk(self) -> bytes:
        """The data of the next chunk, b"" for the last one."""
        size = int(await self.reader.readuntil(b"\r\n"), 16)
        return (await self.reader.readexactly(size + 2))[:-2]

    async def ended(self, *, within_s: float = 5.0) -> bytes:
        """What still comes until the server closes."""
        async with asyncio.timeout(within_s):
            try:
                return await self.reader.read()
            except ConnectionError:
                return b""

    def leave(self) -> None:
        """Go away as a killed process does."""
        self.writer.transport.abort()

    def reset(self) -> None:
        """Go away with RST."""
        reset(self.writer)


def parse_head(head: bytes) -> list[tuple[str, str]]:
    """The header fields of a head, names in lower case."""
    lines = head.decode("latin-1")[:-4].split("\r\n")[1:]
    pairs = (line.partition(":") for line in lines)
    return [(name.lower(), value.strip()) for name, _, value in pairs]


@contextlib.asynccontextmanager
async def connected(port: int, *, limit_bytes: int = 2**16) -> AsyncIterator[Client]:
    """A connection, gone at the end of the block."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=limit_bytes)
    try:
        yield Client(reader, writer)
    finally:
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()  # the socket closes with the loop's next turn, not with the call


def request(
    method: str, target: str, body: bytes = b"", headers: Fields = (AUTHORIZATION,), *, length: bool = True
) -> bytes:
    """A request's bytes. Host is added, and Content-Length where there is a body, unless `length` is false."""
    fields = [("Host", "localhost"), *headers]
    if body and length:
        fields.append(("Content-Length", str(len(body))))
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields)
    return f"{method} {target} HTTP/1.1\r\n{lines}\r\n".encode("latin-1") + body


def post(path: str, body: Any, headers: Fields = ()) -> bytes:
    """A POST with the key; `body` is JSON, or its bytes."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return request("POST", path, data, [AUTHORIZATION, ("Content-Type", "application/json"), *headers])


async def ask(port: int, data: bytes, *, within_s: float = 5.0) -> Answer:
    """The answer to one request on a connection of its own."""
    async with connected(port) as client:
        client.send(data)
        return await client.answer(within_s=within_s)


def pool_load(gateway: RunningGateway) -> tuple[int, int]:
    """Connections to upstream in use and idle, as the gateway's transport sees them."""
    transport = gateway.app.proxy._relay.transport

    def load() -> tuple[int, int]:
        if isinstance(transport, NativeTransport):
            return transport.pool.in_use, transport.pool.idle
        assert isinstance(transport, Httpx2Transport)
        return transport.in_use, transport.idle

    return gateway.ask(load)


async def until_pool_is(gateway: RunningGateway, expected: tuple[int, int]) -> None:
    """A call is recorded before its connection is free again; TimeoutError if that does not come."""
    async with asyncio.timeout(5):
        while await asyncio.to_thread(pool_load, gateway) != expected:
            pass  # the gateway has no event for it


async def metric(gateway: RunningGateway, name: str, **labels: str) -> float:
    """One sample of /metrics, 0 if there is none."""
    text = (await ask(gateway.port, request("GET", "/metrics"))).body.decode()
    wanted = [f'{label}="{value}"' for label, value in labels.items()]
    for line in text.splitlines():
        if line.split("{")[0].split(" ")[0] == f"gmi_gateway_{name}" and all(each in line for each in wanted):
            return float(line.rsplit(" ", 1)[1])
    return 0.0
