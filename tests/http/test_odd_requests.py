"""Requests and replies that are odd, yet sent by real clients and upstreams; and some that are refused."""

import asyncio
import contextlib

import pytest

from tests.faults.face import AUTHORIZATION, CHAT, RESPONSES, TRANSPORTS, ask, connected, post, request
from tests.support.gateway import running_gateway
from tests.support.wire import Fin, Stall, WireUpstream, reply, sse

OK = reply(200, [(b"Content-Type", b"application/json")], b'{"ok": true}')
H2C = [AUTHORIZATION, ("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", "h2c"), ("HTTP2-Settings", "AAMAAABk")]


async def test_an_upgrade_that_is_not_offered_is_ignored_and_the_body_is_read() -> None:
    async with WireUpstream(OK) as upstream:
        with running_gateway(f"{upstream.url}/v1") as gateway:
            async with connected(gateway.port) as client:
                client.send(request("POST", CHAT, b'{"model": "m"}', H2C))
                assert (await client.answer()).status == 200
                client.send(post(CHAT, {}))
                assert (await client.answer()).status == 200


async def test_after_a_refused_websocket_the_connection_answers_or_closes() -> None:
    upgrade = [AUTHORIZATION, ("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13")]
    async with WireUpstream(OK) as upstream:
        with running_gateway(f"{upstream.url}/v1") as gateway:
            async with connected(gateway.port) as client:
                client.send(request("GET", RESPONSES, headers=upgrade))
                answer = await client.answer()
                assert answer.status == 426
                if answer.header("connection") != "close":
                    client.send(request("GET", "/v1/models"))
                    assert (await client.answer(within_s=1)).status == 200


async def test_every_reply_of_the_gateways_own_pages_has_both_request_ids() -> None:
    with running_gateway("http://127.0.0.1:9/v1") as gateway:
        for path in ("/healthz", "/readyz", "/metrics", "/openapi.json", "/docs"):
            answer = await ask(gateway.port, request("GET", path))
            assert answer.status == 200
            assert answer.header("x-request-id") is not None, path
            assert answer.header("x-gateway-request-id") is not None, path


MALFORMED = {
    "no host": request("GET", "/v1/models").replace(b"Host: localhost\r\n", b""),
    "two hosts on a page of our own": request("GET", "/healthz", headers=[("Host", "other")]),
    "another coding before chunked": request(
        "POST", CHAT, b"2\r\n{}\r\n0\r\n\r\n", [AUTHORIZATION, ("Transfer-Encoding", "gzip, chunked")], length=False
    ),
    "chunks in HTTP/1.0": request(
        "POST", CHAT, b"2\r\n{}\r\n0\r\n\r\n", [AUTHORIZATION, ("Transfer-Encoding", "chunked")], length=False
    ).replace(b"HTTP/1.1", b"HTTP/1.0"),
    "HTTP/2.0 in the request line": post(CHAT, {}).replace(b"HTTP/1.1", b"HTTP/2.0"),
}


@pytest.mark.parametrize("name", MALFORMED)
async def test_what_http_1_1_does_not_allow_is_refused(name: str) -> None:
    async with WireUpstream(OK) as upstream:
        with running_gateway(f"{upstream.url}/v1") as gateway:
            assert 400 <= (await ask(gateway.port, MALFORMED[name])).status <= 505
    assert not upstream.requests


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_blanks_behind_a_header_value_are_not_part_of_it(transport: str) -> None:
    async with WireUpstream(OK) as upstream:
        with running_gateway(f"{upstream.url}/v1", upstream={"transport": transport}) as gateway:
            assert (await ask(gateway.port, post(CHAT, {}, [("X-Odd", "value \t")]))).status == 200
    assert b"x-odd: value\r\n" in upstream.requests[0].head.lower()


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("status", [204, 304])
async def test_a_reply_without_a_body_may_state_a_length(transport: str, status: int) -> None:
    script = [b"HTTP/1.1 %d X\r\nContent-Length: 6\r\nETag: x\r\n\r\n" % status]
    async with WireUpstream(script) as upstream:
        with running_gateway(f"{upstream.url}/v1", upstream={"transport": transport}) as gateway:
            answer = await ask(gateway.port, request("GET", "/v1/models"))
            assert (await gateway.recorded(1))[0].outcome == "done"
    assert (answer.status, answer.header("etag")) == (status, "x")


async def test_the_time_starts_anew_with_each_request_on_a_connection() -> None:
    half = request("POST", CHAT, b"{", [AUTHORIZATION, ("Content-Length", "100")], length=False)
    async with WireUpstream(OK) as upstream:
        with running_gateway(f"{upstream.url}/v1", server={"request_timeout_s": 0.5}) as gateway:
            async with connected(gateway.port) as client:
                for _ in range(3):
                    client.send(post(CHAT, {}))
                    assert (await client.answer()).status == 200
                client.send(half)
                assert (await client.answer()).status == 408


async def test_a_request_that_timed_out_is_recorded_as_refused() -> None:
    half = request("POST", CHAT, b"{", [AUTHORIZATION, ("Content-Length", "100")], length=False)
    with running_gateway("http://127.0.0.1:9/v1", server={"request_timeout_s": 0.3}) as gateway:
        assert (await ask(gateway.port, half)).status == 408
        record = (await gateway.recorded(1))[0]
    assert (record.status, record.outcome, record.error) == (408, "refused", "request_timeout")


async def test_a_client_with_a_second_request_waiting_is_seen_to_leave() -> None:
    async with WireUpstream([*sse([{"n": 1}], end=False), Stall()]) as upstream:
        with running_gateway(f"{upstream.url}/v1", server={"drain_s": 0.2}) as gateway:
            async with connected(gateway.port) as client:
                client.send(post(CHAT, {"stream": True}))
                await client.head()
                await client.chunk()
                client.send(post(CHAT, {"stream": True}))
                async with asyncio.timeout(5):
                    while not await asyncio.to_thread(gateway.ask, gateway.has_pipelined):
                        pass
                client.leave()
                await upstream.closed(1, within_s=1)


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("kind", ["completed", "incomplete", "failed"])
async def test_a_break_after_the_last_event_of_a_response_is_no_error(transport: str, kind: str) -> None:
    event = f'event: response.{kind}\ndata: {{"type":"response.{kind}","sequence_number":0}}\n\n'.encode()
    async with WireUpstream([*sse([event], end=False), Fin()]) as upstream:
        with running_gateway(f"{upstream.url}/v1", upstream={"transport": transport}) as gateway:
            answer = await ask(gateway.port, post(RESPONSES, {"stream": True}))
    assert answer.body == event


async def test_a_flood_of_upgrades_in_one_piece_loses_its_connection_and_does_no_other_harm() -> None:
    one = request("GET", "/healthz", headers=[("Connection", "upgrade"), ("Upgrade", "h2c")])
    with running_gateway("http://127.0.0.1:9/v1") as gateway:
        async with connected(gateway.port) as client:
            client.send(one * 3000)
            async with asyncio.timeout(5):
                with contextlib.suppress(ConnectionError):
                    await client.reader.read()
        assert (await ask(gateway.port, request("GET", "/healthz"))).status == 200
        assert not gateway.ask(lambda: gateway.app.proxy.open_calls)


async def test_connect_is_refused() -> None:
    with running_gateway("http://127.0.0.1:9/v1") as gateway:
        for target in ("example.com:443", "/v1/models"):
            assert (await ask(gateway.port, request("CONNECT", target))).status == 400
