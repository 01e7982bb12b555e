"""Requests that were made to harm: other people's calls, the account, the process."""

import asyncio
import contextlib
import gzip
import json
import logging
from typing import Any

import pytest

from tests.faults.face import AUTHORIZATION, CHAT, TRANSPORTS, ask, connected, post, request
from tests.support.gateway import UPSTREAM_KEY, running_gateway
from tests.support.wire import Reset, Stall, WireRequest, WireUpstream, chunk, reply, sse

OK = reply(200, [(b"Content-Type", b"application/json")], b'{"ok": true}')
STREAM = (b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n", b"data: 1\n\n")
STALLED = [*sse([{"n": 1}], end=False), Stall()]


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_a_length_that_was_stated_for_an_encoded_body_is_not_stated_upstream(method: str, transport: str) -> None:
    nothing = gzip.compress(b"")
    async with WireUpstream(OK) as upstream:
        with running_gateway(f"{upstream.url}/v1", upstream={"transport": transport}) as gateway:
            gateway.own("resp_1")
            async with connected(gateway.port) as client:
                for _ in range(2):
                    fields = [AUTHORIZATION, ("Content-Encoding", "gzip")]
                    client.send(request(method, "/v1/responses/resp_1", nothing, fields))
                    assert (await client.answer()).status == 200
    assert [seen.header(b"content-length") for seen in upstream.requests] == [None, None]


async def test_pipelined_requests_are_answered_in_their_order() -> None:
    async with WireUpstream(OK) as upstream:
        with running_gateway(f"{upstream.url}/v1") as gateway:
            async with connected(gateway.port) as client:
                client.send(b"".join(request("GET", f"/v1/models/m{n}") for n in range(100)))
                answers = [await client.answer() for _ in range(100)]
    assert {answer.status for answer in answers} == {200}
    assert [seen.target for seen in upstream.requests] == [b"/v1/models/m%d" % n for n in range(100)]


async def test_a_flood_of_pipelined_requests_queues_no_more_than_one_piece_can_hold() -> None:
    flood = request("GET", "/healthz") * 2000
    with running_gateway("http://127.0.0.1:9/v1") as gateway:
        async with connected(gateway.port) as client:
            for _ in range(20):
                client.send(flood)
            with contextlib.suppress(ConnectionError):
                async with asyncio.timeout(10):
                    await client.reader.read()
        assert (await ask(gateway.port, request("GET", "/healthz"))).status == 200


async def test_a_second_request_that_goes_wrong_never_writes_into_the_reply_of_the_first() -> None:
    chunked = [AUTHORIZATION, ("Transfer-Encoding", "chunked")]
    async with WireUpstream(STALLED) as upstream:
        with running_gateway(f"{upstream.url}/v1", server={"drain_s": 0.1}) as gateway:
            async with connected(gateway.port) as client:
                client.send(post(CHAT, {"stream": True}))
                await client.head()
                await client.chunk()
                client.send(request("POST", CHAT, b"zz\r\n", chunked, length=False))
                assert b"HTTP/1.1" not in await client.ended()
            record = (await gateway.recorded(1))[0]
    assert (record.status, record.outcome) == (200, "client_left")


async def test_a_client_that_leaves_with_requests_waiting_causes_no_error(caplog: pytest.LogCaptureFixture) -> None:
    async with WireUpstream([Stall()]) as upstream:
        with running_gateway(f"{upstream.url}/v1") as gateway:
            async with connected(gateway.port) as client:
                client.send(post(CHAT, {}) + post(CHAT, {}))
                await upstream.received(1)
                client.leave()
                await upstream.closed(1)
            assert (await gateway.recorded(1))[0].outcome == "client_left"
    assert [entry for entry in caplog.records if entry.levelno >= logging.ERROR] == []


async def test_trailers_are_bounded() -> None:
    head = request("POST", CHAT, b"2\r\n{}\r\n0\r\n", [AUTHORIZATION, ("Transfer-Encoding", "chunked")], length=False)
    with running_gateway("http://127.0.0.1:9/v1") as gateway:
        async with connected(gateway.port) as client:
            client.send(head + b"X-Trailer: " + b"a" * 4_000_000)
            assert (await client.answer()).status == 431


async def test_an_object_of_very_many_members_is_refused_before_it_costs_much() -> None:
    body = b'{"model":"m",' + b",".join(b'"k%d":0' % n for n in range(300_000)) + b"}"
    with running_gateway("http://127.0.0.1:9/v1") as gateway:
        answer = await ask(gateway.port, post(CHAT, body))
    assert answer.status == 400
    assert "members" in answer.error["message"]


@pytest.mark.parametrize("host", ["gateway.example", "evil.example:8080", "127.0.0.1.evil.example", "[::1]:1"])
@pytest.mark.parametrize(("key", "status"), [(AUTHORIZATION, 200), (("Authorization", "Bearer x"), 401)])
async def test_a_key_decides_whatever_name_a_call_was_sent_to(key: tuple[str, str], status: int, host: str) -> None:
    async with WireUpstream(OK) as upstream:
        with running_gateway(f"{upstream.url}/v1") as gateway:
            data = request("GET", "/v1/models", headers=[key]).replace(b"Host: localhost", f"Host: {host}".encode())
            assert (await ask(gateway.port, data)).status == status


async def test_the_cap_on_heads_holds_for_every_request_of_a_connection() -> None:
    large = request("GET", "/v1/models", headers=[AUTHORIZATION, ("X-Large", "a" * 100_000)])
    async with WireUpstream(OK) as upstream:
        with running_gateway(f"{upstream.url}/v1") as gateway:
            async with connected(gateway.port) as client:
                client.send(request("GET", "/v1/models"))
                assert (await client.answer()).status == 200
                client.send(large)
                assert (await client.answer()).status == 431
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_status_that_does_not_exist_is_a_protocol_error(transport: str) -> None:
    async with WireUpstream(b"HTTP/1.1 799 Odd\r\nContent-Length: 2\r\n\r\nok") as upstream:
        with running_gateway(f"{upstream.url}/v1", upstream={"transport": transport}) as gateway:
            answer = await ask(gateway.port, post(CHAT, {}))
    assert (answer.status, answer.error["code"]) == (502, "upstream_protocol_error")


async def test_the_key_is_masked_in_an_event_that_is_passed_on_in_parts() -> None:
    key = UPSTREAM_KEY.encode()
    pieces = [b"data: " + b"x" * 3000 + key[:10], key[10:] + b"y" * 3000, b"\n\n", b"data: 2\n\n"]
    script = [STREAM[0], *(chunk(piece) for piece in pieces), b"0\r\n\r\n"]
    async with WireUpstream(script) as upstream:
        with running_gateway(f"{upstream.url}/v1", streams={"max_event_bytes": 1000}) as gateway:
            answer = await ask(gateway.port, post(CHAT, {"stream": True}))
    assert answer.body == b"".join(pieces).replace(key, b"*" * len(key))


@pytest.mark.parametrize(
    ("media_type", "status"),
    [
        ("application/json", 200),
        ("Application/JSON; charset=UTF-8", 200),
        ("application/vnd.api+json", 200),
        ("application/x-www-form-urlencoded", 415),
        ("multipart/form-data; boundary=x", 415),
        ("application/json; charset=utf-7", 415),
        ("text/plain", 415),
        ("", 415),
    ],
)
async def test_a_json_route_takes_nothing_that_could_be_read_as_something_else(media_type: str, status: int) -> None:
    async with WireUpstream(OK) as upstream:
        with running_gateway(f"{upstream.url}/v1") as gateway:
            body = json.dumps({"model": "ok", "x": "&model=bad&"}).encode()
            answer = await ask(gateway.port, request("POST", CHAT, body, [AUTHORIZATION, ("Content-Type", media_type)]))
    assert answer.status == status


async def test_a_declined_upgrade_keeps_what_connection_says_besides() -> None:
    fields = [AUTHORIZATION, ("Connection", "Upgrade, X-Secret, close"), ("Upgrade", "h2c"), ("X-Secret", "1")]
    async with WireUpstream(OK) as upstream:
        with running_gateway(f"{upstream.url}/v1") as gateway:
            answer = await ask(gateway.port, request("GET", "/v1/models", headers=fields))
    assert (answer.status, answer.header("connection")) == (200, "close")
    assert upstream.requests[0].header(b"x-secret") is None


async def test_a_cut_reply_does_not_look_complete_to_an_http_1_0_client() -> None:
    script: list[Any] = [STREAM[0].replace(b"text/event-stream", b"audio/mpeg"), chunk(b"half of it"), Reset()]
    async with WireUpstream(script) as upstream:
        with running_gateway(f"{upstream.url}/v1") as gateway:
            async with connected(gateway.port) as client:
                client.send(post("/v1/audio/speech", {}).replace(b"HTTP/1.1", b"HTTP/1.0"))
                with pytest.raises(ConnectionResetError):
                    await client.reader.read()


async def test_nor_does_one_whose_client_has_said_all_that_it_had_to_say() -> None:
    script: list[Any] = [STREAM[0].replace(b"text/event-stream", b"audio/mpeg"), chunk(b"half of it"), Stall()]
    async with WireUpstream(script) as upstream:
        with running_gateway(f"{upstream.url}/v1") as gateway:
            async with connected(gateway.port) as client:
                client.send(post("/v1/audio/speech", {}).replace(b"HTTP/1.1", b"HTTP/1.0"))
                await client.head()
                client.writer.write_eof()
                with pytest.raises(ConnectionResetError):
                    await client.reader.read()
            await upstream.closed(1, within_s=1)


async def test_a_body_that_was_announced_and_refused_cannot_be_taken_for_the_next_request() -> None:
    fields = [("Expect", "100-continue"), ("Content-Length", "10"), ("Content-Type", "application/json")]
    with running_gateway("http://127.0.0.1:9/v1") as gateway:
        answer = await ask(gateway.port, request("POST", CHAT, headers=fields))
    assert (answer.status, answer.header("connection")) == (401, "close")


@pytest.mark.parametrize(
    ("head", "body", "rest"),
    [
        ([("Content-Length", "1000000")], b"a" * 70_000, b""),
        ([AUTHORIZATION, ("Transfer-Encoding", "chunked")], b"20000\r\n" + b"a" * 0x20000 + b"\r\n", b"zz\r\n"),
    ],
    ids=["stalls after 401", "a bad chunk after 413"],
)
async def test_a_request_that_was_answered_is_not_answered_again(
    head: list[tuple[str, str]], body: bytes, rest: bytes
) -> None:
    limits = {"request_timeout_s": 0.3, "max_body_bytes": 100}
    with running_gateway("http://127.0.0.1:9/v1", server=limits) as gateway:
        async with connected(gateway.port) as client:
            client.send(request("POST", CHAT, body, head, length=False))
            assert (await client.answer()).status in (401, 413)
            client.send(rest)
            assert await client.ended() == b""


async def test_a_stream_goes_on_while_its_client_is_slow_to_send_the_rest_of_an_upload() -> None:
    go = asyncio.Event()

    async def early(_: asyncio.StreamReader, writer: asyncio.StreamWriter, __: WireRequest) -> None:
        writer.write(STREAM[0] + chunk(b"data: 1\n\n"))
        await go.wait()
        writer.write(chunk(b"data: 2\n\n") + b"0\r\n\r\n")

    path = "/v1/audio/transcriptions"
    fields = [AUTHORIZATION, ("Content-Length", "1000000"), ("Content-Type", "multipart/form-data; boundary=x")]
    async with WireUpstream(early, body_first=False) as upstream:
        with running_gateway(f"{upstream.url}/v1", server={"request_timeout_s": 0.2}) as gateway:
            async with connected(gateway.port) as client:
                client.send(request("POST", path, b"a" * 300_000, fields, length=False))
                await client.head()
                assert await client.chunk() == b"data: 1\n\n"
                asyncio.get_running_loop().call_later(0.6, go.set)
                assert await client.chunk() == b"data: 2\n\n"


async def test_a_client_that_leaves_an_upload_whose_reply_has_begun_is_noticed() -> None:
    async def early(_: asyncio.StreamReader, writer: asyncio.StreamWriter, __: WireRequest) -> None:
        writer.write(STREAM[0] + chunk(b"data: 1\n\n"))
        await asyncio.Event().wait()

    fields = [AUTHORIZATION, ("Content-Length", "1000000"), ("Content-Type", "multipart/form-data; boundary=x")]
    async with WireUpstream(early, body_first=False) as upstream:
        with running_gateway(f"{upstream.url}/v1") as gateway:
            async with connected(gateway.port) as client:
                client.send(request("POST", "/v1/audio/transcriptions", b"a" * 300_000, fields, length=False))
                await client.head()
                client.send(b"a" * 300_000)
                client.leave()
            assert (await gateway.recorded(1, within_s=1))[0].outcome == "client_left"


async def test_a_client_that_takes_nothing_is_dropped_with_a_reset() -> None:
    async def endless(_: asyncio.StreamReader, writer: asyncio.StreamWriter, __: WireRequest) -> None:
        writer.write(STREAM[0])
        while True:
            writer.write(chunk(b"data: " + b"x" * 65_000 + b"\n\n"))
            await writer.drain()

    async with WireUpstream(endless) as upstream:
        with running_gateway(f"{upstream.url}/v1", server={"send_timeout_s": 0.5}) as gateway:
            async with connected(gateway.port) as client:
                client.send(post(CHAT, {"stream": True}))
                await client.head()
                await upstream.closed(1, within_s=5)
                with pytest.raises(ConnectionResetError):
                    await client.reader.read()
            assert (await gateway.recorded(1))[0].outcome == "client_left"
