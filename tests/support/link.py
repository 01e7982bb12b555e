"""A faulty network between a client and a server: one small TCP proxy.

Knows bytes and nothing of HTTP. What goes wrong is data (`Faults`), one for
each direction, counted in bytes of one connection from its first.

    async with FaultyLink("127.0.0.1", port, down=Faults(reset_after=120)) as link:
        ...  # connect to link.host, link.port or call link.url
"""

import asyncio
import contextlib
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal, Self

from tests.support.wire import reset

PIECE_BYTES = 16 * 1024

Ending = Literal["pass", "stall", "reset", "fin", "truncate"]


@dataclass(frozen=True, slots=True)
class Faults:
    """What happens to the bytes of one direction; `..._after` is a count of bytes, and 0 is before the first.

    `stall_after`: hold the rest back, connection open. `reset_after`: RST. `fin_after`: close.
    `truncate_after`: swallow the rest, pass on the close when it comes. `delay_s`: hold each piece so long.
    `bytes_per_s`: throttle; 0 is no limit.
    """

    delay_s: float = 0.0
    bytes_per_s: float = 0.0
    stall_after: int | None = None
    reset_after: int | None = None
    fin_after: int | None = None
    truncate_after: int | None = None

    def ending(self) -> tuple[int | None, Ending]:
        """At which byte it ends and how."""
        ends: list[tuple[int | None, Ending]] = [
            (self.stall_after, "stall"),
            (self.reset_after, "reset"),
            (self.fin_after, "fin"),
            (self.truncate_after, "truncate"),
        ]
        return min(((at, how) for at, how in ends if at is not None), default=(None, "pass"))


@dataclass(slots=True, eq=False)
class LinkConnection:
    """One connection through the link; `ended` is set when both sides are closed."""

    up_bytes: int = 0
    down_bytes: int = 0
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class FaultyLink:
    """Listens on a free port of 127.0.0.1 and passes bytes to `host:port`; `down` is towards the client.

    `up` and `down` may be set anew at any time; connections made after that obey them.
    """

    host = "127.0.0.1"

    def __init__(self, host: str, port: int, *, up: Faults | None = None, down: Faults | None = None) -> None:
        self._target = (host, port)
        self.up = up or Faults()
        self.down = down or Faults()
        self.port = 0
        self.connections: list[LinkConnection] = []
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """The link as a base URL, without a slash at the end."""
        return f"http://{self.host}:{self.port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, self.host, 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._carry(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _carry(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        connection = LinkConnection()
        self.connections.append(connection)
        try:
            server, to_server = await asyncio.open_connection(*self._target)
        except OSError:
            reset(to_client)
            return
        up = _Pump(client, to_server, to_client, self.up)
        down = _Pump(server, to_client, to_server, self.down)
        try:
            await asyncio.gather(up.run(), down.run())
        finally:
            connection.up_bytes, connection.down_bytes = up.passed_bytes, down.passed_bytes
            to_client.close()
            to_server.close()
            connection.ended.set()


class _Pump:
    """One direction of one connection; `back` is the writer to the side that is read from."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        back: asyncio.StreamWriter,
        faults: Faults,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._back = back
        self._faults = faults
        self.passed_bytes = 0
        writer.transport.set_write_buffer_limits(high=1, low=0)

    async def run(self) -> None:
        end, how = self._faults.ending()
        with contextlib.suppress(OSError):
            if await self._pass_until(end):
                await self._end(how)
            else:
                self._writer.write_eof()
            return
        reset(self._writer)
        reset(self._back)

    async def _pass_until(self, end: int | None) -> bool:
        """Pass bytes on; true when byte `end` is reached, false when the source has closed."""
        while end is None or self.passed_bytes < end:
            wanted = PIECE_BYTES if end is None else min(PIECE_BYTES, end - self.passed_bytes)
            if self._faults.bytes_per_s:
                wanted = min(wanted, max(1, int(self._faults.bytes_per_s / 20)))
            piece = await self._reader.read(wanted)
            if not piece:
                return False
            await self._hold(len(piece))
            self._writer.write(piece)
            await self._writer.drain()
            self.passed_bytes += len(piece)
        return True

    async def _hold(self, size: int) -> None:
        throttle_s = size / self._faults.bytes_per_s if self._faults.bytes_per_s else 0.0
        if self._faults.delay_s or throttle_s:
            await asyncio.sleep(self._faults.delay_s + throttle_s)

    async def _end(self, how: Ending) -> None:
        match how:
            case "reset":
                reset(self._writer)
                reset(self._back)
            case "fin":
                self._writer.close()
                self._back.close()
            case "truncate":
                while await self._reader.read(PIECE_BYTES):
                    pass
                self._writer.write_eof()
            case "stall" | "pass":
                return  # the other direction ends the connection when its source closes
