"""A request whose head came before is read as the parser would read it, or left to the parser."""

import asyncio
import json
from typing import Any

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.call import Body
from gateway.http.repeated import Repeated, RepeatedHeads
from gateway.http.requests import Head
from gateway.http.routes import ROUTES, Match
from tests.faults.face import CHAT, Client, connected, post
from tests.support.gateway import running_gateway
from tests.support.wire import WireUpstream, reply

ROUTE = next(route for route in ROUTES if route.body is Body.JSON)

LINES = (
    b"Content-Length: 5",
    b"content-length: 5",
    b"Content-Length: 12",
    b"Content-Length:5",
    b"Content-Length: 5 ",
    b"Content-Length: +5",
    b"Content-L",
    b"X-L: 1",
    b"X-Strength: 5",
    b"X-Length: 12",
    b" folded",
    b"Host: x",
    b"X: \r",
    b"X: a\nContent-Length: 5",
    b"Transfer-Encoding: chunked",
)
BODIES = (b"", b"hello", b"hello\r\n\r\nthere", b"hello world!", b"\r\nContent-Length: 5\r\n\r\nhello")


class Oracle:
    """One request as httptools reads it; `is_whole` if nothing is missing and nothing follows."""

    def __init__(self, data: bytes) -> None:
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = b""
        self.ends = self.begins = 0
        try:
            httptools.HttpRequestParser(self).feed_data(data)
        except httptools.HttpParserError:
            self.ends = -1

    @property
    def is_whole(self) -> bool:
        return self.ends == self.begins == 1

    def on_message_begin(self) -> None:
        self.begins += 1

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.ends += 1

    def others(self) -> list[tuple[bytes, bytes]]:
        return [field for field in self.headers if field[0].lower() != b"content-length"]


def known(headers: list[tuple[bytes, bytes]]) -> Repeated:
    head = Head([(b"host", b"x")], "1.1")
    return Repeated({}, Match(ROUTE, b"", {}), head, b"/", headers, b"")


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    lines = draw(st.lists(st.sampled_from(LINES), max_size=4))
    return b"\r\n".join([b"POST / HTTP/1.1", *lines, b"", draw(st.sampled_from(BODIES))])


@given(first=requests(), second=requests(), cut=st.one_of(st.none(), st.integers(1, 80)))
def test_what_is_found_is_what_the_parser_reads(first: bytes, second: bytes, cut: int | None) -> None:
    heads = RepeatedHeads()
    was = Oracle(first)
    if was.is_whole:
        heads.remember(first, known(was.others()))
    second = second if cut is None else second[:-cut]
    found = heads.find(second)
    if found is not None:
        now = Oracle(second)
        assert now.is_whole
        assert (found[0].headers, found[1]) == (now.others(), now.body)


def test_only_the_length_may_differ() -> None:
    heads = RepeatedHeads()
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\nX: y\r\n\r\n%b"
    heads.remember(head % (5, b"hello"), known([(b"host", b"x")]))
    found = heads.find(head % (12, b"hello world!"))
    assert found is not None
    assert found[1] == b"hello world!"
    for other in (head % (5, b"hell"), head % (5, b"hello!"), (head % (5, b"hello")).replace(b"y", b"z")):
        assert heads.find(other) is None


def test_a_request_that_is_not_whole_is_never_found_wherever_it_is_cut() -> None:
    whole = b"POST / HTTP/1.1\r\nHost: x\r\nX: y\r\nContent-Length: %d\r\n\r\n"
    heads = RepeatedHeads()
    heads.remember(whole % 5 + b"hello", known([(b"host", b"x")]))
    for length in range(200):
        data = whole % length + b"h" * length
        for end in range(len(data)):
            assert heads.find(data[:end]) is None, data[:end]


def test_what_is_kept_is_bounded() -> None:
    heads = RepeatedHeads()
    requests = [b"POST / HTTP/1.1\r\nX: %d\r\nContent-Length: 1\r\n\r\na" % number for number in range(1000)]
    for request in requests:
        heads.remember(request, known([]))
    assert sum(heads.find(request) is not None for request in requests) <= 256
    huge = b"POST / HTTP/1.1\r\nX: %b\r\nContent-Length: 1\r\n\r\na" % (b"x" * 10_000)
    heads.remember(huge, known([]))
    assert heads.find(huge) is None


def chat(text: str, *headers: tuple[str, str], path: str = CHAT) -> bytes:
    return post(path, {"model": "m", "messages": [{"role": "user", "content": text}]}, headers)


async def shown(upstream: WireUpstream, client: Client, *requests: bytes) -> list[Any]:
    """What upstream saw of `requests`, sent one after the other."""
    for request in requests:
        client.send(request)
        assert (await client.answer()).status == 200
    return [
        (seen.target, [field for field in seen.headers if field[0] != b"content-length"], seen.body)
        for seen in upstream.requests[-len(requests) :]
    ]


OK = reply(200, [(b"content-type", b"application/json")], b'{"id":"x"}')


@pytest.mark.parametrize("transport", ["native", "httpx2"])
async def test_upstream_sees_the_same_head_again_and_the_new_body(transport: str) -> None:
    async with WireUpstream(OK) as upstream:
        with running_gateway(f"{upstream.url}/v1", upstream={"transport": transport}) as gateway:
            async with connected(gateway.port) as one, connected(gateway.port) as two:
                texts = ["a", "bc", "bc", "d" * 5000]
                seen = await shown(upstream, one, *map(chat, texts)) + await shown(upstream, two, chat("e"))
    assert [json.loads(body)["messages"][0]["content"] for _, _, body in seen] == [*texts, "e"]
    assert all((target, headers) == seen[0][:2] for target, headers, _ in seen)


async def test_each_length_is_stated_truly() -> None:
    async with WireUpstream(OK) as upstream:
        with running_gateway(f"{upstream.url}/v1") as gateway:
            async with connected(gateway.port) as client:
                await shown(upstream, client, *(chat("x" * length) for length in (1, 2, 30)))
    assert all(int(seen.header(b"content-length") or -1) == len(seen.body) for seen in upstream.requests)


async def test_heads_that_differ_are_not_taken_for_each_other() -> None:
    async with WireUpstream(OK) as upstream:
        with running_gateway(f"{upstream.url}/v1") as gateway:
            async with connected(gateway.port) as client:
                variants = [chat("a", ("X-Which", which)) for which in "1212"] + [chat("a", path="/v1/responses")] * 2
                seen = await shown(upstream, client, *variants)
    assert [dict(headers).get(b"x-which") for _, headers, _ in seen] == [b"1", b"2", b"1", b"2", None, None]
    assert [target for target, _, _ in seen[-2:]] == [b"/v1/responses"] * 2


async def test_an_alias_and_a_stream_are_seen_to_each_time() -> None:
    async with WireUpstream(OK) as upstream:
        with running_gateway(f"{upstream.url}/v1", models={"aliases": {"m": "real/m"}}) as gateway:
            async with connected(gateway.port) as client:
                seen = await shown(upstream, client, chat("a"), chat("b"), chat("c"))
    assert [json.loads(body)["model"] for _, _, body in seen] == ["real/m"] * 3


async def test_an_idempotency_key_is_namespaced_each_time() -> None:
    async with WireUpstream(OK) as upstream:
        with running_gateway(f"{upstream.url}/v1") as gateway:
            async with connected(gateway.port) as client:
                seen = await shown(upstream, client, *[chat("a", ("Idempotency-Key", "k"))] * 3)
    values = {dict(headers)[b"idempotency-key"] for _, headers, _ in seen}
    assert len(values) == 1
    assert values != {b"k"}


async def test_a_repetition_is_refused_as_the_first_one_was() -> None:
    async with WireUpstream(OK) as upstream:
        with running_gateway(f"{upstream.url}/v1", server={"max_body_bytes": 200}) as gateway:
            async with connected(gateway.port) as client:
                assert len(await shown(upstream, client, chat("a"), chat("b"))) == 2
                client.send(post(CHAT, b'{"model": "m", "Model": "n"}'))
                assert (await client.answer()).status == 400
                assert len(await shown(upstream, client, chat("c"))) == 1
                client.send(chat("d" * 200))
                assert (await client.answer()).status == 413
    assert len(upstream.requests) == 3


async def test_repetitions_may_be_pipelined_and_cut_anywhere() -> None:
    async with WireUpstream(OK) as upstream:
        with running_gateway(f"{upstream.url}/v1") as gateway:
            async with connected(gateway.port) as client:
                await shown(upstream, client, chat("a"))
                client.send(chat("b") + chat("c") + chat("d"))
                assert [(await client.answer()).status for _ in range(3)] == [200] * 3
                whole = chat("e")
                cuts = range(1, len(whole))
                for at in cuts:
                    client.send(whole[:at])
                    await asyncio.to_thread(gateway.ask, lambda: None)
                    client.send(whole[at:])
                    assert (await client.answer()).status == 200
    texts = [json.loads(seen.body)["messages"][0]["content"] for seen in upstream.requests]
    assert texts == [*"abcd", *"e" * len(cuts)]


async def test_a_connection_that_is_to_close_takes_no_repetition() -> None:
    async with WireUpstream(OK) as upstream:
        with running_gateway(f"{upstream.url}/v1") as gateway:
            async with connected(gateway.port) as client:
                await shown(upstream, client, chat("a"), chat("b", ("Connection", "close")))
                client.send(chat("a"))
                assert await client.ended() == b""
    assert len(upstream.requests) == 2
