"""The table of errors at the face: what upstream does wrong, and what the gateway does."""

from typing import Any

import pytest

from tests.faults.face import (
    CHAT,
    TRANSPORTS,
    ask,
    connected,
    post,
)
from tests.http.refusals import NONSENSE, OK, OVERLOADED, TOO_SLOW, UNREACHABLE, Row, assert_refused, one_gateway
from tests.support.gateway import UPSTREAM_KEY
from tests.support.wire import Fin, Reset, Script, Stall, Step, chunked, sse

RAW_NONSENSE: dict[str, Script] = {
    "status line": b"HTTP/9.9 banana\r\n\r\n",
    "no http": b"SSH-2.0-OpenSSH\r\n\r\n",
    "both lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "bad chunk size": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
    "huge head": b"HTTP/1.1 200 OK\r\nX: " + b"a" * (1 << 20) + b"\r\nContent-Length: 0\r\n\r\n",
    "switch": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n",
    "control character": b"HTTP/1.1 200 OK\r\nX: a\x01b\r\nContent-Length: 0\r\n\r\n",
}


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_nonsense_from_upstream_is_502_and_its_connection_is_dropped(transport: str) -> None:
    scripts = list(RAW_NONSENSE.values())
    async with one_gateway(*scripts, upstream={"transport": transport}) as (upstream, gateway):
        for name in RAW_NONSENSE:
            answer = await ask(gateway.port, post(CHAT, {"stream": True}))
            assert answer.status == 502, name
            assert_refused(answer, NONSENSE)
        await upstream.closed(len(scripts))
        records = await gateway.recorded(len(scripts))
    assert {record.upstream_error for record in records} == {"protocol"}
    assert len(upstream.connections) == len(scripts)


BREAKS: dict[str, list[Step]] = {
    "fin before the head": [Fin()],
    "reset before the head": [Reset()],
    "reset in the head": [b"HTTP/1.1 200 OK\r\nContent-Le", Reset()],
    "reset after the head": [b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", Reset()],
    "fin after a stream's head": [*sse([], end=False), Fin()],
    "reset inside the first event": [*sse([b'data: {"n"'], end=False), Reset()],
}


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_upstream_that_breaks_off_before_the_first_byte_is_502(transport: str) -> None:
    async with one_gateway(*BREAKS.values(), upstream={"transport": transport}) as (upstream, gateway):
        for name in BREAKS:
            answer = await ask(gateway.port, post(CHAT, {"stream": True}))
            assert answer.status == 502, name
            assert_refused(answer, UNREACHABLE)
        records = await gateway.recorded(len(BREAKS))
        assert len(upstream.requests) == len(BREAKS)
    assert {record.upstream_error for record in records} == {"broken"}


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_upstream_that_refuses_the_connection_is_502(transport: str) -> None:
    async with one_gateway(upstream={"transport": transport}) as (upstream, gateway):
        upstream.stop_listening()
        answer = await ask(gateway.port, post(CHAT, {}))
        assert "safe to try again" in assert_refused(answer, UNREACHABLE)
        assert (await gateway.recorded(1))[0].upstream_error == "connect"


STALLS: dict[str, list[Step]] = {
    "headers": [Stall()],
    "first_byte": [b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n", b"\r\n", Stall()],
}


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_upstream_that_is_too_slow_before_its_first_byte_is_504(transport: str) -> None:
    limits = {"transport": transport, "first_byte_timeout_s": 0.2}
    async with one_gateway(*STALLS.values(), upstream=limits) as (_, gateway):
        for phase in STALLS:
            answer = await ask(gateway.port, post(CHAT, {"stream": True}))
            assert answer.status == 504, phase
            assert_refused(answer, TOO_SLOW)


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_call_beyond_the_last_connection_is_503_and_the_first_goes_on(transport: str) -> None:
    limits = {"transport": transport, "max_connections": 1}
    begun = chunked([b"a", b"b"], headers=[(b"Content-Type", b"audio/mpeg")], end=False)
    async with one_gateway(begun, OK, upstream=limits) as (upstream, gateway):
        async with connected(gateway.port) as client:
            client.send(post("/v1/audio/speech", {}))
            await client.head()
            assert_refused(await ask(gateway.port, post(CHAT, {})), OVERLOADED)
            upstream.drop_all()
        assert (await ask(gateway.port, post(CHAT, {}))).status == 200
    assert len(upstream.requests) == 2


async def test_a_bug_is_500_without_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    async with one_gateway() as (_, gateway):

        def fails(*_: Any) -> None:
            raise RuntimeError(f"holds {UPSTREAM_KEY}")

        monkeypatch.setattr(gateway.app.proxy, "_match", fails)
        answer = await ask(gateway.port, post(CHAT, {}))
        assert_refused(answer, Row(500, "server_error", "internal_error", {}))
        assert (await gateway.recorded(1))[0].outcome == "failed"
