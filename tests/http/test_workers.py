"""Several workers: replaced when they die, given up when none can start, gone when the parent is told to stop."""

import asyncio
import os
import re
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.faults.process import ROOT, serving
from tests.limits.servers import shared_server

WITHIN_S = 20.0


@asynccontextmanager
async def program(*arguments: str) -> AsyncIterator[Process]:
    """`workers_program`, in a process group of its own that is killed in the end."""
    command = (sys.executable, "-m", "tests.http.workers_program", *arguments)
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=PIPE, stderr=PIPE, start_new_session=True)
    try:
        async with asyncio.timeout(WITHIN_S):
            yield process
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def line_of(stream: asyncio.StreamReader | None) -> str:
    assert stream is not None
    return (await stream.readline()).decode().rstrip()


async def ended(process: Process) -> tuple[int, str, str]:
    """Exit status, and what is left on stdout and stderr, which end with the last process that has them open."""
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("number", [1, 2, 3])
async def test_a_stop_while_workers_are_being_started_ends_all(number: int, stop: signal.Signals) -> None:
    async with program("stops-parent", str(number), stop.name) as process:
        assert (await ended(process))[::2] == (0, "")


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
async def test_a_stop_is_passed_on_to_every_worker(stop: signal.Signals) -> None:
    async with program("waits") as process:
        for _ in range(3):
            assert (await line_of(process.stdout)).startswith("up ")
        process.send_signal(stop)
        assert await ended(process) == (0, "told to stop\n" * 3, "")


async def test_a_worker_that_died_is_replaced() -> None:
    async with program("waits") as process:
        ups = [await line_of(process.stdout) for _ in range(3)]
        pid = int(ups[0].removeprefix("up "))
        os.kill(pid, signal.SIGKILL)
        assert await line_of(process.stderr) == f"worker {pid} ended with status -9"
        assert (await line_of(process.stdout)) not in ups
        process.terminate()
        assert await ended(process) == (0, "told to stop\n" * 3, "")


async def test_a_stop_in_the_pause_before_a_dead_worker_is_replaced_ends_it() -> None:
    async with program("dies-and-is-not-replaced") as process:
        assert "ended with status 3" in await line_of(process.stderr)
        process.terminate()
        assert (await ended(process))[0] == 0


async def test_workers_that_cannot_start_are_given_up_after_three_restarts_each() -> None:
    async with program("dies") as process:
        status, out, err = await ended(process)
    *ends, last = err.splitlines()
    assert status == 1
    assert out.count("dying\n") >= len(ends) >= 12
    assert all(re.fullmatch(r"worker \d+ ended with status 3", end) for end in ends)
    assert last == "no worker can start: each of 3 ended within 5 s at least 4 times in a row"


async def test_one_worker_that_lives_keeps_the_others_being_restarted() -> None:
    async with program("dies-beside-one") as process:
        said = [await line_of(process.stdout) for _ in range(13)]
        assert sum(line == "dying" for line in said) >= 12
        while not any(line.startswith("up ") for line in said):
            said.append(await line_of(process.stdout))
        process.terminate()
        status, out, _ = await ended(process)
    assert status == 0
    assert "told to stop\n" in out


async def test_a_gateway_that_is_told_to_stop_as_soon_as_it_has_spoken_ends() -> None:
    url = shared_server("valkey").url
    async with serving(arguments=("--workers", "2"), until_ready=False, GATEWAY_REDIS_URL=url) as running:
        running.terminate()
        # By its own hand, or by the signal if it came before the first worker was started.
        assert await running.status() in (0, -signal.SIGTERM)
