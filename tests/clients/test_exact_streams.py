"""What upstream streams is what the client gets: the same bytes, wherever the network cuts them."""

import asyncio
import random
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import pytest

from tests.clients.line import ASKED, END, EVENT_STREAM, HEAD, RESPONSES, UNASKED, WAYS, Line, Way, in_two
from tests.clients.streams import LONG, SHORT
from tests.support.wire import Fin, Step, Wait, chunk, chunked, reply

LARGEST_PIECE_BYTES = 60_000


ROUTES = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())


def pieces(stream: bytes, cuts: Iterable[int]) -> list[bytes]:
    """`stream` cut at the offsets `cuts`; none is empty, since an empty chunk would end the reply."""
    edges = sorted({0, len(stream), *cuts})
    return [stream[start:end] for start, end in pairwise(edges)]


def steps(stream: bytes, cuts: Iterable[int]) -> list[Step]:
    return chunked(pieces(stream, cuts), headers=EVENT_STREAM)


def random_cuts(stream: bytes, count: int) -> list[int]:
    return random.Random(count).choices(range(len(stream) + 1), k=count)


async def shell(*command: str, stdin: bytes = b"") -> tuple[int | None, bytes]:
    """Status and output of a command, both of its streams."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=asyncio.subprocess.STDOUT)
    output, _ = await process.communicate(stdin)
    return process.returncode, output


@ROUTES
async def test_cmp_finds_no_difference_between_what_upstream_sent_and_what_curl_got(
    wire: Line, way: Way, tmp_path: Path
) -> None:
    sent, got = tmp_path / "sent", tmp_path / "got"
    headers = [f"-H{name}: {value}" for name, value in way.headers.items()]
    url = wire.gateway.api + way.path
    for name, stream in way.carried().items():
        sent.write_bytes(stream)
        got.unlink(missing_ok=True)
        wire.upstream.scripts = [steps(stream, range(0, len(stream), LARGEST_PIECE_BYTES))]
        curl = ["curl", "-qsSN", "--fail-with-body", *headers, "--data-binary", "@-", "-o", str(got), url]
        assert await shell(*curl, stdin=way.body) == (0, b""), name
        got.touch()  # curl makes no file for an empty body
        assert await shell("cmp", str(sent), str(got)) == (0, b""), name


@ROUTES
async def test_a_stream_that_comes_byte_by_byte_goes_out_as_it_was(wire: Line, way: Way) -> None:
    for name, stream in way.carried(SHORT).items():
        assert await wire.received(way, steps(stream, range(len(stream)))) == stream, name


@ROUTES
async def test_a_long_stream_cut_at_random_goes_out_as_it_was(wire: Line, way: Way) -> None:
    for name, stream in way.carried(LONG).items():
        for count in (1, 17, 400):
            assert await wire.received(way, steps(stream, random_cuts(stream, count))) == stream, (name, count)


@pytest.mark.parametrize("name", SHORT)
async def test_a_stream_cut_in_two_at_every_byte_goes_out_as_it_was(wire: Line, name: str) -> None:
    stream, way = SHORT[name], RESPONSES if name.startswith("responses") else ASKED
    for at in range(1, len(stream)):
        assert await wire.received(way, in_two(wire, stream, at)) == stream, at


@ROUTES
async def test_a_stream_goes_out_as_it_was_whatever_frames_it(wire: Line, way: Way) -> None:
    until_closed = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
    for name, stream in way.carried(SHORT).items():
        assert await wire.received(way, reply(200, EVENT_STREAM, stream)) == stream, name
        assert await wire.received(way, [until_closed + stream, Fin()]) == stream, name


@pytest.mark.parametrize("way", [UNASKED, RESPONSES], ids=["chat", "responses"])
async def test_an_event_is_passed_on_as_soon_as_it_is_whole(wire: Line, way: Way) -> None:
    first, go = b'data: {"choices":[]}\n\n', asyncio.Event()
    wire.upstream.scripts = [[HEAD, chunk(first), Wait(go), chunk(b"data: [DONE]\n\n"), END]]
    url = wire.gateway.api + way.path
    async with wire.http.stream("POST", url, content=way.body, headers=way.headers) as reply:
        received = reply.aiter_raw()
        assert await anext(received) == first
        go.set()
        assert b"".join([piece async for piece in received]) == b"data: [DONE]\n\n"


async def test_usage_that_was_not_asked_for_is_all_that_is_taken_out(wire: Line) -> None:
    stream = SHORT["chat with usage"]
    expected = b'data: {"choices":[{"delta":{"content":"Hi"}}]}\n\ndata: [DONE]\n\n'
    for at in range(1, len(stream)):
        assert await wire.received(UNASKED, in_two(wire, stream, at)) == expected, at


@ROUTES
@pytest.mark.parametrize("size", [0, 1, 1000, 300_000])
async def test_a_body_that_is_no_stream_goes_out_as_it_was(wire: Line, way: Way, size: int) -> None:
    body = random.Random(size).randbytes(size)
    for headers in ([], [(b"Content-Type", b"application/octet-stream")]):
        for script in (reply(200, headers, body), chunked(pieces(body, random_cuts(body, 20)), headers=headers)):
            wire.upstream.scripts = [script]
            got = await wire.http.post(wire.gateway.api + way.path, content=way.body, headers=way.headers)
            assert got.content == body
