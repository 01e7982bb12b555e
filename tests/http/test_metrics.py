"""The page of metrics: who may read it and where, and that the workers of one gateway are one there."""

import asyncio
import os
import re
import signal
import socket
from pathlib import Path

import httpx2

from tests.faults.face import CHAT, ask, post, request
from tests.faults.process import GatewayProcess, serving
from tests.http.test_limited import OK
from tests.limits.servers import shared_server
from tests.support.gateway import running_gateway
from tests.support.ports import free_port
from tests.support.stores import fresh_sqlite_url

TOKEN = "a-token-of-metrics-0123456789"
NOWHERE = "http://127.0.0.1:9/v1"


def get(url: str, token: str | None = None) -> httpx2.Response:
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    return httpx2.get(url, headers=headers, trust_env=False)


def test_metrics_are_open_where_the_calls_go_by_default() -> None:
    with running_gateway(NOWHERE) as gateway:
        reply = get(f"{gateway.url}/metrics")
    assert reply.status_code == 200
    assert reply.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"


def test_with_a_token_metrics_are_for_whoever_sends_it() -> None:
    with running_gateway(NOWHERE, metrics={"token": TOKEN}) as gateway:
        url = f"{gateway.url}/metrics"
        refusals = [get(url), get(url, "wrong"), get(url, TOKEN + "x"), get(url, gateway.admin_secret or "")]
        assert get(url, TOKEN).status_code == 200
    for reply in refusals:
        assert reply.status_code == 401
        assert set(reply.json()["error"]) == {"message", "type", "param", "code"}
        assert "metrics.token" in reply.json()["error"]["message"]
        assert TOKEN not in reply.text


def test_a_token_that_is_no_latin_is_refused_like_any_other() -> None:
    with running_gateway(NOWHERE, metrics={"token": TOKEN}) as gateway:
        client = socket.create_connection(("127.0.0.1", gateway.port))
        with client:
            client.sendall(b"GET /metrics HTTP/1.1\r\nhost: x\r\nauthorization: Bearer \xff\xfe\r\n\r\n")
            assert client.recv(64).startswith(b"HTTP/1.1 401")


def test_metrics_can_have_an_address_of_their_own_and_nothing_else_is_there() -> None:
    port = free_port()
    with running_gateway(NOWHERE, metrics={"listen": f"127.0.0.1:{port}", "token": TOKEN}) as gateway:
        side = f"http://127.0.0.1:{port}"
        assert get(f"{gateway.url}/metrics", TOKEN).status_code == 404
        assert get(f"{side}/metrics").status_code == 401
        assert b"gmi_gateway_open_calls 0" in get(f"{side}/metrics", TOKEN).content
        for path in ("/v1/models", "/admin/v1/keys", "/docs", "/openapi.json", "/healthz"):
            assert get(side + path, TOKEN).status_code == 404, path


def test_metrics_can_be_switched_off() -> None:
    with running_gateway(NOWHERE, metrics={"enabled": False}) as gateway:
        assert get(f"{gateway.url}/metrics").status_code == 404


async def page(port: int) -> str:
    """Of whichever worker takes the connection."""
    return (await ask(port, request("GET", "/metrics"))).body.decode()


async def page_of(port: int, workers: int) -> str:
    """The page, once so many workers are there."""
    async with asyncio.timeout(60):
        while f"\ngmi_gateway_workers {workers}.0\n" not in (text := await page(port)):  # noqa: ASYNC110 - it is asked
            await asyncio.sleep(0.05)
    return text


def calls_in(text: str) -> int:
    counts = re.findall(r"^gmi_gateway_requests_total\{.*\} (\d+)$", text, re.MULTILINE)
    return sum(map(int, counts))


def workers_of(gateway: GatewayProcess) -> list[int]:
    """The ids of its workers' processes; another child of it watches over what they share."""
    children = Path(f"/proc/{gateway.pid}/task/{gateway.pid}/children").read_text().split()
    return [int(pid) for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


async def call_many(gateway: GatewayProcess, count: int) -> None:
    data = post(CHAT, {"model": "openai/gpt-5.2", "messages": []})
    answers = await asyncio.gather(*(ask(gateway.port, data) for _ in range(count)))
    assert {answer.status for answer in answers} == {200}


async def counted(gateway: GatewayProcess, calls: int) -> list[int]:
    """What pages say until one says `calls`: what a worker counts, another one knows within a second."""
    said = [calls_in(await page(gateway.port))]
    async with asyncio.timeout(20):
        while said[-1] != calls:
            await asyncio.sleep(0.05)
            said.append(calls_in(await page(gateway.port)))
    return said


async def test_any_worker_tells_what_all_have_counted_and_one_that_is_killed_takes_nothing_back() -> None:
    url = shared_server("valkey").url
    async with serving(OK, arguments=("--workers", "2"), GATEWAY_REDIS_URL=url) as gateway:
        await page_of(gateway.port, workers=2)
        await call_many(gateway, 40)
        said = await counted(gateway, 40)
        assert said == sorted(said), "a counter went down"
        assert [calls_in(await page(gateway.port)) for _ in range(10)] == [40] * 10
        os.kill(workers_of(gateway)[0], signal.SIGKILL)
        assert calls_in(await page_of(gateway.port, workers=1)) == 40
        assert calls_in(await page_of(gateway.port, workers=2)) == 40
        await call_many(gateway, 10)
        await counted(gateway, 50)


async def test_workers_leave_nothing_in_the_state_folder(tmp_path: Path) -> None:
    fresh_sqlite_url(tmp_path)
    environment = {"GATEWAY_REDIS_URL": shared_server("valkey").url, "GATEWAY_SERVER_STATE_DIR": str(tmp_path)}
    async with serving(OK, arguments=("--workers", "2"), **environment) as gateway:  # type: ignore[arg-type]
        await page_of(gateway.port, workers=2)
        gateway.terminate()
        assert await gateway.status() == 0
    assert not list((tmp_path / "metrics").iterdir())
