"""Bounds on what a client may send and how slowly: 431, 414, 408, and valid calls go on meanwhile."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.http.protocol import MIN_RATE_BYTES_S
from tests.faults.face import AUTHORIZATION, CHAT, Answer, Client, ask, connected, post, request
from tests.faults.process import GatewayProcess, serving
from tests.support.gateway import RunningGateway, running_gateway
from tests.support.patience import Stopwatch, Took
from tests.support.wire import Wait, WireUpstream, reply

OK = reply(200, [(b"Content-Type", b"application/json")], b'{"ok": true}')
LIMIT_S = 0.5


@asynccontextmanager
async def one_gateway(**server: Any) -> AsyncIterator[tuple[WireUpstream, RunningGateway]]:
    async with WireUpstream(OK) as upstream:
        with running_gateway(f"{upstream.url}/v1", server=server) as gateway:
            yield upstream, gateway


async def pushed(port: int, data: bytes) -> Answer:
    """The answer to more bytes than the gateway is willing to read."""
    async with connected(port) as client:
        client.send(data)
        return await client.answer()


# Heads

TOO_LARGE = {
    "one header of 1 MiB": request("GET", "/v1/models", headers=[AUTHORIZATION, ("X", "a" * (1 << 20))]),
    "a name of 1 MiB": request("GET", "/v1/models", headers=[AUTHORIZATION, ("X" * (1 << 20), "a")]),
    "10,000 headers": request("GET", "/v1/models", headers=[AUTHORIZATION, *((f"X-{n}", "") for n in range(10_000))]),
    "101 headers": request("GET", "/v1/models", headers=[AUTHORIZATION, *((f"X-{n}", "") for n in range(99))]),
    "a head that never ends": request("GET", "/v1/models")[:-2] + b"X: a\r\n" * 100_000,
    "a header that never ends": request("GET", "/v1/models")[:-2] + b"X: " + b"a" * (1 << 20),
}


async def test_a_head_over_the_cap_is_431_and_upstream_is_not_called() -> None:
    async with one_gateway() as (upstream, gateway):
        for name, data in TOO_LARGE.items():
            answer = await pushed(gateway.port, data)
            assert (answer.status, answer.error["code"]) == (431, "headers_too_large"), name
            assert answer.header("connection") == "close"
            assert answer.header("x-request-id") == answer.header("x-gateway-request-id") is not None
        assert (await ask(gateway.port, post(CHAT, {}))).status == 200
    assert len(upstream.requests) == 1


async def test_a_url_over_the_cap_is_414() -> None:
    async with one_gateway() as (upstream, gateway):
        for target in ("/v1/models/" + "a" * 8192, "/v1/models?" + "a" * 8192, "/" + "a" * (1 << 20), "/x" * 8192):
            answer = await pushed(gateway.port, request("GET", target))
            assert (answer.status, answer.error["code"]) == (414, "url_too_long"), target[:20]
        longest = "/v1/models?" + "a" * (8192 - len("/v1/models?"))
        assert (await ask(gateway.port, request("GET", longest))).status == 200
    assert len(upstream.requests) == 1


async def test_the_caps_are_the_ones_in_the_settings() -> None:
    async with one_gateway(max_head_bytes=2048, max_headers=10, max_url_bytes=300) as (_, gateway):
        assert (await pushed(gateway.port, request("GET", "/v1/models", headers=[("X", "a" * 2048)]))).status == 431
        many = [(f"X-{n}", "") for n in range(10)]
        assert (await pushed(gateway.port, request("GET", "/v1/models", headers=many))).status == 431
        assert (await pushed(gateway.port, request("GET", "/v1/" + "m" * 300))).status == 414
        fits = [AUTHORIZATION, ("X", "a" * 1500)]
        assert (await pushed(gateway.port, request("GET", "/v1/models", headers=fits))).status == 200


async def test_a_large_body_is_not_counted_as_head() -> None:
    async with one_gateway(max_head_bytes=2048) as (_, gateway):
        data = post(CHAT, {"a": "x" * 200_000})
        assert (await pushed(gateway.port, data)).status == 200
        async with connected(gateway.port) as client:
            client.send(data + data)
            assert [(await client.answer()).status for _ in range(2)] == [200, 200]


async def test_refused_heads_leave_no_memory_behind() -> None:
    async with serving(OK) as gateway:
        first = grown = await _peak_kib_after(TOO_LARGE["10,000 headers"], gateway)
        for _ in range(20):
            for data in TOO_LARGE.values():
                grown = await _peak_kib_after(data, gateway) - first
    assert grown < 10 * 1024


async def _peak_kib_after(data: bytes, gateway: GatewayProcess) -> int:
    """The most memory that the process has held by the time that it has refused `data`."""
    await pushed(gateway.port, data)
    status = await asyncio.to_thread(Path(f"/proc/{gateway.pid}/status").read_text, encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0])


# Slow clients

HALF_REQUESTS = {
    "a head without an end": request("POST", CHAT)[:-2],
    "a request line alone": b"POST /v1/chat",
    "half a body": request("POST", CHAT, b"{", [AUTHORIZATION, ("Content-Length", "100")], length=False),
    "half a chunk": request("POST", CHAT, b"5\r\n{", [AUTHORIZATION, ("Transfer-Encoding", "chunked")], length=False),
    "half an upload": request(
        "POST",
        "/v1/files",
        b"x",
        [AUTHORIZATION, ("Content-Type", "multipart/form-data; boundary=b"), ("Content-Length", "100")],
        length=False,
    ),
}


async def _drip(client: Client, data: bytes, stop: asyncio.Event) -> None:
    """Send a byte now and then, so that the connection never looks idle."""
    for byte in data:
        client.send(bytes([byte]))
        try:
            await asyncio.wait_for(stop.wait(), 0.05)
        except TimeoutError:
            continue
        return


async def _cut_after(client: Client, data: bytes, more: bytes) -> tuple[Answer, Took]:
    watch, stop = Stopwatch(), asyncio.Event()
    client.send(data)
    drip = asyncio.create_task(_drip(client, more, stop))
    answer = await client.answer()
    stop.set()
    await drip
    return answer, watch.took()


@pytest.mark.parametrize("is_dripping", [False, True])
async def test_a_request_that_is_not_complete_in_time_is_408(is_dripping: bool) -> None:
    more = b"X" * 100 if is_dripping else b""
    async with one_gateway(request_timeout_s=LIMIT_S) as (upstream, gateway):
        for name, data in HALF_REQUESTS.items():
            async with connected(gateway.port) as client:
                answer, took = await _cut_after(client, data, more if "chunk" not in name else b"")
                assert (answer.status, answer.error["code"]) == (408, "request_timeout"), name
                assert took.is_between(LIMIT_S * 0.9, LIMIT_S + 1), name
                await client.ended(within_s=1)
        assert not [seen for seen in upstream.requests if seen.target != b"/v1/files"]


async def test_a_connection_that_sends_nothing_is_closed_in_time() -> None:
    async with one_gateway(request_timeout_s=LIMIT_S) as (_, gateway), connected(gateway.port) as client:
        assert await client.ended(within_s=LIMIT_S + 1) == b""


async def test_a_slow_answer_is_not_the_clients_fault() -> None:
    go = asyncio.Event()
    async with WireUpstream([Wait(go), OK], OK) as upstream:
        with running_gateway(f"{upstream.url}/v1", server={"request_timeout_s": 0.2}) as gateway:
            async with connected(gateway.port) as client:
                client.send(post(CHAT, {}))
                await upstream.received(1)
                asyncio.get_running_loop().call_later(0.5, go.set)
                assert (await client.answer()).status == 200


SLOW_TO_COME = {
    "half a head": post(CHAT, {})[:20],
    "half a body": post(CHAT, {"n": 1})[:-3],
    "a body that is to be asked for": request(
        "POST", CHAT, b"", [AUTHORIZATION, ("Expect", "100-continue"), ("Content-Length", "10")], length=False
    ),
}


@pytest.mark.parametrize("behind", SLOW_TO_COME.values(), ids=SLOW_TO_COME)
async def test_a_request_that_is_slow_to_come_behind_another_takes_no_reply_from_that(behind: bytes) -> None:
    go = asyncio.Event()
    async with WireUpstream([Wait(go), OK], OK) as upstream:
        with running_gateway(f"{upstream.url}/v1", server={"request_timeout_s": 0.2}) as gateway:
            async with connected(gateway.port) as client:
                client.send(post(CHAT, {}) + behind)
                await upstream.received(1)
                asyncio.get_running_loop().call_later(0.5, go.set)
                assert (await client.answer()).status == 200
                assert (await client.answer()).status == 408


@asynccontextmanager
async def stood_still(gateway: GatewayProcess, for_s: float) -> AsyncIterator[None]:
    """What happens inside happens while the gateway stands still; all that came before it has read by then."""
    async with connected(gateway.port) as other:
        other.send(request("GET", "/healthz"))
        assert (await other.answer()).status == 200
        gateway.stand_still(for_s)
        yield
        other.send(request("GET", "/healthz"))
        assert (await other.answer()).status == 200


@pytest.mark.parametrize("for_s", [0.6, 1.5])
async def test_a_gateway_that_stood_still_reads_what_came_before_it_looks_at_the_clock(for_s: float) -> None:
    async with serving(OK, GATEWAY_SERVER_REQUEST_TIMEOUT_S="0.5") as gateway, connected(gateway.port) as client:
        client.send(post(CHAT, {}))
        assert (await client.answer()).status == 200
        client.send(b"POST")
        async with stood_still(gateway, for_s):
            client.send(post(CHAT, {}).removeprefix(b"POST"))
        assert (await client.answer()).status == 200


@pytest.mark.parametrize("for_s", [1.2, 2.0])
async def test_a_request_that_came_while_the_gateway_stood_still_finds_its_connection_open(for_s: float) -> None:
    async with serving(OK, GATEWAY_SERVER_KEEP_ALIVE_S="1") as gateway, connected(gateway.port) as client:
        client.send(post(CHAT, {}))
        assert (await client.answer()).status == 200
        async with stood_still(gateway, for_s):
            client.send(post(CHAT, {}))
        assert (await client.answer()).status == 200
        assert await client.ended(within_s=3) == b""


async def test_the_time_for_which_a_gateway_stood_still_past_its_next_look_is_the_clients_to_send_in() -> None:
    body = b'{"x": "%b"}' % (b"a" * MIN_RATE_BYTES_S)
    head = post(CHAT, body).removesuffix(body)
    async with (
        serving(OK, GATEWAY_SERVER_REQUEST_TIMEOUT_S="0.5") as gateway,  # with what is sent of the body 1.5 s
        connected(gateway.port) as client,
        connected(gateway.port) as slow,
    ):
        client.send(head + body[:-1])
        slow.send(head + body[:-1])
        async with stood_still(gateway, 2.0):
            pass
        await asyncio.sleep(0.3)  # the client's own time: no gateway needs that long to read what came meanwhile
        client.send(body[-1:])
        assert (await client.answer()).status == 200
        assert (await slow.answer()).status == 408


async def test_valid_calls_go_on_while_many_clients_are_slow(is_long: bool) -> None:
    count = 1_000 if is_long else 100
    async with one_gateway(request_timeout_s=3) as (upstream, gateway):
        async with asyncio.TaskGroup() as group:
            slow = [
                group.create_task(pushed(gateway.port, data))
                for _ in range(count // len(HALF_REQUESTS))
                for data in HALF_REQUESTS.values()
            ]
            valid = [group.create_task(ask(gateway.port, post(CHAT, {"n": number}))) for number in range(200)]
        assert {task.result().status for task in valid} == {200}
        assert {task.result().status for task in slow} == {408}
        async with asyncio.timeout(5):
            while await asyncio.to_thread(gateway.ask, lambda: len(gateway.app.proxy.open_calls)):
                pass  # a client may see the end of its connection before the gateway does
    assert sum(seen.target == b"/v1/chat/completions" for seen in upstream.requests) == 200
