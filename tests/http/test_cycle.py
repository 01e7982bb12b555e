"""What becomes of a reply between its end and its being sent."""

import asyncio
import sys
from typing import TYPE_CHECKING, cast

from uvicorn.protocols.http.flow_control import FlowControl

from gateway.http.cycle import GatewayCycle

if TYPE_CHECKING:
    import logging


class Gone(asyncio.Transport):
    """A connection that is closing, though nobody was told of that yet."""

    def is_closing(self) -> bool:
        return True

    def write(self, data: object) -> None:
        raise AssertionError(data)


class There(asyncio.Transport):
    """A connection: what was written to it, and whether it was closed."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.is_closed = self.is_paused = False

    def is_closing(self) -> bool:
        return self.is_closed

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def close(self) -> None:
        self.is_closed = True

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False


def cycle_on(transport: asyncio.Transport) -> GatewayCycle:
    return GatewayCycle(
        {"method": "GET", "http_version": "1.1", "headers": []},
        transport,
        FlowControl(transport),
        cast("logging.Logger", None),
        lambda: None,
        expects_100=False,
        keep_alive=True,
    )


LENGTH = [(b"content-length", b"2")]


async def test_a_reply_to_a_client_that_is_gone_counts_as_complete() -> None:
    cycle = cycle_on(Gone())
    await cycle.send({"type": "http.response.start", "status": 200, "headers": LENGTH})
    await cycle.send({"type": "http.response.body", "body": b"ok"})
    assert cycle.response_complete


def test_a_connection_is_not_closed_behind_a_reply_that_did_not_say_so() -> None:
    transport = There()
    cycle = cycle_on(transport)
    cycle.holds_end = True
    assert cycle.respond_now(200, LENGTH, b"ok", b"2")
    cycle.be_last()
    cycle.let_go()
    assert transport.written.endswith(b"\r\n\r\nok")
    assert (b"connection: close" in transport.written, transport.is_closed) == (False, False)


def test_a_reply_that_is_told_to_be_the_last_in_time_says_so() -> None:
    transport = There()
    cycle = cycle_on(transport)
    cycle.be_last()
    assert cycle.respond_now(200, LENGTH, b"ok", b"2")
    assert (b"connection: close" in transport.written, transport.is_closed) == (True, True)


async def test_what_is_heard_out_is_dropped_and_counted() -> None:
    cycle = cycle_on(There())
    cycle.hold(b"x" * 60_000)
    hearing = asyncio.create_task(cycle.hear_out())
    for size in (4_000, 4_000):
        await asyncio.sleep(0)  # let it hear what there is
        await asyncio.sleep(0)
        assert (cycle._pieces, hearing.done()) == ([], False)
        cycle.hold(b"x" * size)
    await hearing
    assert cycle.more_body


def test_a_client_is_made_to_wait_for_what_its_pieces_take_not_for_their_bytes_alone() -> None:
    transport = There()
    cycle, count = cycle_on(transport), 0
    while not transport.is_paused:
        cycle.hold(b"x")
        count += 1
    assert count * sys.getsizeof(b"x") < 128 * 1024
