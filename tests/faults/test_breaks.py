"""Upstream breaks off at every byte: what was delivered is an exact prefix of whole events, then an honest error.

The reply is 50 events; it is sent up to byte n, head and chunk framing included, then the connection ends: with FIN
nothing that was sent is lost, so all whole events must have been delivered; with RST some may be.
"""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from gateway.call import CallRecord
from tests.faults.face import CHAT, RESPONSES, TRANSPORTS, Answer, Client, ask, connected, post, until_pool_is
from tests.support.gateway import RunningGateway, running_gateway
from tests.support.patience import Stopwatch
from tests.support.wire import Reset, Stall, Step, WireRequest, WireUpstream, reset, sse

EVENTS = 50
AT_ONCE = 8


@dataclass(frozen=True)
class Stream:
    """A route, the body that asks for it, its events as they are on the wire, and which of them are the end."""

    path: str
    body: dict[str, Any]
    events: tuple[bytes, ...]

    @property
    def wire(self) -> bytes:
        return b"".join(step for step in sse(self.events) if isinstance(step, bytes))

    def whole_events_before(self, at: int) -> bytes:
        """The events that are complete among the first `at` bytes on the wire."""
        whole, position = b"", self.wire.index(b"\r\n\r\n") + 4
        for event in self.events:
            position += len(b"%x\r\n" % len(event)) + len(event) + 2
            if position - 2 > at:
                break
            whole += event
        return whole


def _responses_event(number: int) -> bytes:
    kind = {0: "response.created", EVENTS - 1: "response.completed"}.get(number, "response.output_text.delta")
    data = json.dumps({"type": kind, "sequence_number": number, "delta": "\u20ac"}, ensure_ascii=False)
    return f"event: {kind}\ndata: {data}\n\n".encode()


CHAT_STREAM = Stream(
    CHAT,
    {"stream": True, "stream_options": {"include_usage": True}},
    (*(f'data: {{"n":{number},"t":"\u20ac"}}\n\n'.encode() for number in range(EVENTS - 1)), b"data: [DONE]\n\n"),
)
RESPONSES_STREAM = Stream(RESPONSES, {"stream": True}, tuple(map(_responses_event, range(EVENTS))))
STREAMS = pytest.mark.parametrize("stream", [CHAT_STREAM, RESPONSES_STREAM], ids=["chat", "responses"])
BOTH = pytest.mark.parametrize("transport", TRANSPORTS)


def breaks_at(stream: Stream, how: str) -> Callable[..., Awaitable[None]]:
    """A script that sends so many bytes as the request's header `x-at` says, then ends the connection."""
    wire = stream.wire

    async def script(_: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: WireRequest) -> None:
        writer.write(wire[: int(seen.header(b"x-at") or b"0")])
        await writer.drain()
        if how == "reset":
            reset(writer)
        else:
            writer.close()

    return script


def assert_honest(stream: Stream, answer: Answer, at: int, how: str) -> None:
    """The verdict on what the client got when upstream broke off after byte `at`."""
    whole = stream.whole_events_before(at)
    if answer.status == 502:
        assert not whole or how == "reset"
        assert answer.error["code"] == "upstream_unreachable"
        return
    assert (answer.status, answer.end) == (200, "complete")
    delivered, error = split_off_error(stream, answer.body)
    assert whole.startswith(delivered)
    assert how == "reset" or delivered == whole
    if error is None:
        assert delivered == b"".join(stream.events), "a cut stream looks complete"
    else:
        assert_in_band(stream, delivered, error)


def split_off_error(stream: Stream, body: bytes) -> tuple[bytes, dict[str, Any] | None]:
    """The body without the in-band error that ends it, and the error's data."""
    start = b"event: error\ndata: " if stream is RESPONSES_STREAM else b'data: {"error":'
    at = body.rfind(start)
    if at < 0:
        return body, None
    assert body.endswith(b"\n\n")
    assert body.count(b"\n\n", at) == 1
    data: dict[str, Any] = json.loads(body[body.index(b"data: ", at) + 6 :])
    return body[:at], data


def assert_in_band(stream: Stream, delivered: bytes, data: dict[str, Any]) -> None:
    nested = data["error"]
    assert sorted(nested) == ["code", "message", "param", "type"]
    assert (nested["type"], nested["param"]) == ("upstream_error", None)
    assert nested["code"] in ("upstream_unreachable", "upstream_protocol_error", "upstream_timeout")
    if stream is CHAT_STREAM:
        assert list(data) == ["error"]
        return
    assert data["type"] == "error"
    assert (data["code"], data["message"], data["param"]) == (nested["code"], nested["message"], None)
    assert data["sequence_number"] == delivered.count(b"\n\n")


@asynccontextmanager
async def broken_stream(
    script: Any, transport: str, **upstream_section: Any
) -> AsyncIterator[tuple[WireUpstream, RunningGateway]]:
    async with WireUpstream(script) as upstream:
        section = {"transport": transport, **upstream_section}
        with running_gateway(f"{upstream.url}/v1", upstream=section) as gateway:
            yield upstream, gateway


async def each(client_of: Client, stream: Stream, offsets: Sequence[int], how: str) -> None:
    for at in offsets:
        client_of.send(post(stream.path, stream.body, [("X-At", str(at))]))
        assert_honest(stream, await client_of.answer(), at, how)


@BOTH
@STREAMS
@pytest.mark.parametrize("how", ["fin", "reset"])
async def test_a_stream_cut_at_any_byte_is_an_exact_prefix_and_then_an_error(
    stream: Stream, transport: str, how: str, is_long: bool
) -> None:
    size = len(stream.wire)
    first = len(stream.wire) - len(b"".join(stream.events[-3:])) - 40
    stride = 1 if is_long else 7 if transport == "native" else 41
    offsets = sorted({*range(0, size, stride), *range(90, 130), *range(first, size, 1 if stride < 9 else 7)})
    async with broken_stream(breaks_at(stream, how), transport) as (upstream, gateway):
        async with asyncio.TaskGroup() as group:
            for lane in range(AT_ONCE):
                group.create_task(_lane(gateway, stream, list(itertools.islice(offsets, lane, None, AT_ONCE)), how))
        records = await gateway.recorded(len(offsets))
        await until_pool_is(gateway, (0, 0))
    assert len(upstream.requests) == len(offsets)
    assert {record.outcome for record in records} <= {"done", "cut", "failed"}
    assert sum(record.outcome == "done" for record in records) <= 8


async def _lane(gateway: RunningGateway, stream: Stream, offsets: Sequence[int], how: str) -> None:
    async with connected(gateway.port) as client:
        await each(client, stream, offsets, how)


# Other ends


def cut_after(stream: Stream, count: int, *ending: Step) -> list[Step]:
    return [*sse(stream.events[:count], end=False), *ending]


async def _broken(
    stream: Stream, script: list[Step], transport: str, **section: Any
) -> tuple[bytes, dict[str, Any], CallRecord]:
    async with (
        broken_stream(script, transport, **section) as (upstream, gateway),
        connected(gateway.port) as client,
    ):
        client.send(post(stream.path, stream.body))
        answer = await client.answer()
        record = (await gateway.recorded(1))[0]
        await upstream.closed(1)
        await until_pool_is(gateway, (0, 0))
    delivered, error = split_off_error(stream, answer.body)
    assert answer.status == 200
    assert error is not None
    return delivered, error, record


@BOTH
@STREAMS
async def test_nonsense_in_the_middle_of_a_stream_is_told_in_band(stream: Stream, transport: str) -> None:
    delivered, error, record = await _broken(stream, cut_after(stream, 3, b"zz\r\n", Stall()), transport)
    assert delivered == b"".join(stream.events[:3])
    assert error["error"]["code"] == "upstream_protocol_error"
    assert (record.status, record.outcome, record.upstream_error) == (200, "cut", "protocol")


@BOTH
@STREAMS
async def test_a_stall_in_the_middle_of_a_stream_is_told_in_band_in_time(stream: Stream, transport: str) -> None:
    script = cut_after(stream, 3, b"4\r\ndata", Stall())
    watch = Stopwatch()
    delivered, error, record = await _broken(stream, script, transport, idle_timeout_s=0.3)
    assert delivered == b"".join(stream.events[:3])
    assert error["error"]["code"] == "upstream_timeout"
    assert (record.outcome, record.upstream_error) == ("cut", "timeout_stream")
    assert 0.3 <= record.duration_s <= 0.8 + watch.took().stood_still_s


@BOTH
@STREAMS
async def test_a_stream_over_its_total_time_is_cut_in_band(stream: Stream, transport: str) -> None:
    script = cut_after(stream, 3, Stall())
    watch = Stopwatch()
    delivered, error, record = await _broken(stream, script, transport, total_timeout_s=0.3)
    assert delivered == b"".join(stream.events[:3])
    assert (error["error"]["code"], record.upstream_error) == ("upstream_timeout", "timeout_total")
    assert 0.3 <= record.duration_s <= 0.8 + watch.took().stood_still_s


@BOTH
async def test_a_stream_that_ends_well_without_done_is_not_given_one(transport: str) -> None:
    script = sse(CHAT_STREAM.events[:3])
    async with broken_stream(script, transport) as (_, gateway), connected(gateway.port) as client:
        client.send(post(CHAT, CHAT_STREAM.body))
        answer = await client.answer()
    assert answer.end == "complete"
    assert answer.body == b"".join(CHAT_STREAM.events[:3])


@BOTH
async def test_half_an_event_at_a_clean_end_is_passed_on_as_it_is(transport: str) -> None:
    async with broken_stream(sse([b"data: 1\n\n", b"data: 2"]), transport) as (_, gateway):
        answer = await ask(gateway.port, post(CHAT, CHAT_STREAM.body))
    assert answer.body == b"data: 1\n\ndata: 2"


@BOTH
async def test_a_plain_reply_that_breaks_off_is_never_a_complete_one(transport: str) -> None:
    heads = [b"Content-Length: 100", b"Transfer-Encoding: chunked"]
    starts: list[bytes] = [b"x" * 50, b"32\r\n" + b"x" * 50 + b"\r\n"]
    for head, start in zip(heads, starts, strict=True):
        script = [b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n" + start, Reset()]
        async with broken_stream(script, transport) as (_, gateway), connected(gateway.port) as client:
            client.send(post(CHAT, {}))
            answer = await client.answer()
            record = (await gateway.recorded(1))[0]
        assert (answer.status, answer.end) in ((200, "cut"), (502, "complete"))
        assert record.outcome in ("cut", "failed")
