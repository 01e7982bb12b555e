"""SIGTERM to gateways that are processes of their own, alone and behind nginx: no call is lost, exit status 0."""

import asyncio
import os
import shutil
import signal
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.faults.face import CHAT, Client, ask, post
from tests.faults.nodes import UPSTREAM_REPLY, calling
from tests.faults.process import ROOT, GatewayProcess, serving
from tests.http.test_drain import READY, ends_when, many, opened, rest_of, until_refused
from tests.limits.servers import shared_server
from tests.support.gateway import KEY
from tests.support.missing import is_missing
from tests.support.patience import Stopwatch
from tests.support.ports import free_port
from tests.support.wire import Handler, Stall, WireRequest, sse

DONE = b"data: [DONE]\n\n"


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_process_that_is_told_to_stop_finishes_its_streams_and_exits_with_0(workers: int) -> None:
    go = asyncio.Event()
    url = shared_server("valkey").url
    async with serving(ends_when(go), arguments=("--workers", str(workers)), GATEWAY_REDIS_URL=url) as running:
        async with opened(running.port, 12) as clients:
            running.terminate()
            await until_refused(running.port)
            go.set()
            assert [await rest_of(client) for client in clients] == [DONE] * 12
        assert await running.status() == 0


async def test_two_hundred_streams_finish_and_readiness_is_503_within_a_second() -> None:
    go = asyncio.Event()
    async with serving(ends_when(go), GATEWAY_SERVER_DRAIN_DELAY_S="1") as running:
        async with opened(running.port, 200) as clients:
            running.terminate()
            watch = Stopwatch()
            async with asyncio.timeout(1):
                while (answer := await ask(running.port, READY)).status == 200:
                    pass
            assert answer.error["code"] == "draining"
            await until_refused(running.port)
            assert watch.took().running_s < 4
            go.set()
            assert [await rest_of(client) for client in clients] == [DONE] * 200
        assert await running.status() == 0


async def test_a_process_cuts_stuck_streams_at_the_deadline_and_exits_with_0() -> None:
    stuck = [*sse([{"n": 1}], end=False), Stall()]
    async with serving(stuck, GATEWAY_SERVER_DRAIN_S="0.5") as running:
        async with opened(running.port, 3) as clients:
            running.terminate()
            for client in clients:
                assert b'"code":"draining"' in await rest_of(client)
        assert await running.status() == 0


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_second_sigterm_cuts_open_streams_at_once(workers: int) -> None:
    stuck = [*sse([{"n": 1}], end=False), Stall()]
    url = shared_server("valkey").url
    async with serving(stuck, arguments=("--workers", str(workers)), GATEWAY_REDIS_URL=url) as running:
        async with opened(running.port, 3) as clients:
            running.terminate()
            await until_refused(running.port)
            running.terminate()
            for client in clients:
                assert b'"code":"draining"' in await rest_of(client)
        assert await running.status() == 0


async def test_a_second_ctrl_c_with_a_stream_open_closes_all_that_runs_and_logs_no_error() -> None:
    stuck = [*sse([{"n": 1}], end=False), Stall()]
    async with serving(stuck) as running:
        async with opened(running.port, 1) as (client,):
            os.kill(running.pid, signal.SIGINT)
            await until_refused(running.port)
            os.kill(running.pid, signal.SIGINT)
            assert b'"code":"draining"' in await rest_of(client)
        assert await running.status() == 0
    assert b"Traceback" not in running.output
    assert b'"level":"error"' not in running.output


async def test_a_sigterm_that_comes_to_workers_from_elsewhere_too_is_no_second_one() -> None:
    go = asyncio.Event()
    url = shared_server("valkey").url
    async with serving(ends_when(go), arguments=("--workers", "2"), GATEWAY_REDIS_URL=url) as running:
        async with opened(running.port, 6) as clients:
            running.terminate()
            await until_refused(running.port)
            for pid in _children(running.pid):
                os.kill(pid, signal.SIGTERM)
            go.set()
            assert [await rest_of(client) for client in clients] == [DONE] * 6
        assert await running.status() == 0


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


# Behind nginx, which tries the next node if a connection is refused, and hands on what a node says


async def test_clients_of_nginx_notice_nothing_of_a_node_that_is_told_to_stop(tmp_path: Path) -> None:
    go = asyncio.Event()
    async with serving(_either(go)) as first, serving(_either(go)) as second, nginx(tmp_path, [first, second]) as port:
        async with many(port, 6) as streams, calling([port] * 8, KEY, processes=2) as callers:
            for stream in streams:
                await _begin(stream)
            first.terminate()
            await until_refused(first.port)
            for _ in range(50):
                for caller in callers:
                    await caller.until(200)
            go.set()
            assert [await rest_of(stream) for stream in streams] == [DONE] * 6
        assert await first.status() == 0
    assert {call.status for caller in callers for call in caller.calls} == {200}


def _either(go: asyncio.Event) -> Handler:
    """A script: streams end when `go` is set, other calls are answered at once."""
    stream = ends_when(go)

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: WireRequest) -> None:
        if b'"stream": true' in seen.body:
            await stream(reader, writer, seen)
        else:
            writer.write(UPSTREAM_REPLY)

    return script


async def _begin(stream: Client) -> None:
    stream.send(post(CHAT, {"stream": True}))
    await stream.head()
    assert await stream.chunk() == b'data: {"n": 1}\n\n'


@asynccontextmanager
async def nginx(folder: Path, gateways: Sequence[GatewayProcess]) -> AsyncIterator[int]:
    """The port of an nginx in front of `gateways`, with the settings that docker-compose.yml uses."""
    port = free_port()
    servers = " ".join(f"server 127.0.0.1:{each.port};" for each in gateways)
    text = (ROOT / "config" / "nginx.conf").read_text()
    for there, here in (
        ("server gateway:8080 resolve;", servers),
        ("include /tmp/resolver.conf;", ""),
        ("listen 8080;", f"listen 127.0.0.1:{port};"),
        ("stderr warn;", "stderr notice;"),
        ("/tmp/", f"{folder}/"),
    ):
        assert there in text
        text = text.replace(there, here)
    (folder / "nginx.conf").write_text(text)
    command = (_binary(), "-c", str(folder / "nginx.conf"), "-g", "daemon off; user root;")
    process = await asyncio.create_subprocess_exec(*command, stderr=PIPE)
    try:
        await _started(process)
        yield port
    finally:
        process.terminate()
        await process.communicate()


async def _started(process: Process) -> None:
    assert process.stderr is not None
    said = b""
    async with asyncio.timeout(5):
        while b"start worker process" not in said:
            line = await process.stderr.readline()
            assert line, said.decode()
            said += line


def _binary() -> str:
    found = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if found is None:
        is_missing("nginx is not installed: apt-get install nginx-light")
    return found
