"""Processes are killed, disks full, databases away: each call that was answered in full is in the ledger, once."""

import asyncio
import itertools
import os
import random
import re
import resource
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy import URL, text

from gateway.simulator import running_simulator
from gateway.store.engine import Store
from tests.faults.face import CHAT, RESPONSES, Answer, ask, connected, post, request
from tests.faults.nodes import url_text
from tests.faults.process import GatewayProcess, serving
from tests.metering.ledger import counted, rows
from tests.support.stores import PostgresServer, fresh_postgres_url, fresh_sqlite_url

CLIENTS = 12
KILLS, KILLS_LONG = 6, 50
LIVES_S = (0.05, 0.6)
MODEL = "openai/gpt-5.2"
QUESTION = [{"role": "user", "content": "Hello!"}]
CALLS = (
    post(CHAT, {"model": MODEL, "messages": QUESTION}),
    post(CHAT, {"model": MODEL, "messages": QUESTION, "stream": True}),
    post(RESPONSES, {"model": MODEL, "input": "Hello!", "store": False}),
    post(RESPONSES, {"model": MODEL, "input": "Hello!", "store": False, "stream": True}),
    post(CHAT, {"model": MODEL}),
)


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> URL:
    return fresh_sqlite_url(tmp_path / "database") if request.param == "sqlite" else fresh_postgres_url()


@asynccontextmanager
async def node(database: URL, tmp_path: Path, base_url: str) -> AsyncIterator[GatewayProcess]:
    """A process on the shared store and state, in front of the simulator."""
    async with serving(
        directory=tmp_path,
        GMI_BASE_URL=base_url,
        GATEWAY_DATABASE_URL=url_text(database),
        GATEWAY_SERVER_STATE_DIR=str(tmp_path / "state"),
        GATEWAY_LOG_CALLS="off",
    ) as process:
        yield process


class Caller:
    """A client that calls again as soon as it is answered; `complete` are the ids of the calls that it has all of.

    The gateway may be killed between the last byte of the last of them and its record.
    """

    def __init__(self, number: int) -> None:
        self._calls = itertools.islice(itertools.cycle(CALLS), number % len(CALLS), None)
        self.complete: list[str] = []

    async def run(self, port: int) -> None:
        """Until the connection ends."""
        async with connected(port) as client:
            for data in self._calls:
                client.send(data)
                try:
                    answer = await client.answer(within_s=30)
                except (asyncio.IncompleteReadError, ConnectionError):
                    return
                if answer.end == "cut":
                    return
                self.complete.append(id_of(answer))


def id_of(answer: Answer) -> str:
    call_id = answer.header("x-gateway-request-id")
    assert call_id is not None
    return call_id


async def killed_under_load(process: GatewayProcess, lives_s: float) -> list[Caller]:
    """Clients call until the process is killed, and read what was sent before that."""
    callers = [Caller(number) for number in range(CLIENTS)]
    running = [asyncio.create_task(caller.run(process.port)) for caller in callers]
    await asyncio.sleep(lives_s)  # it is to die at any moment
    os.kill(process.pid, 9)
    await process.status()
    await asyncio.gather(*running)
    return callers


async def test_every_call_that_was_answered_in_full_is_in_the_ledger_once(
    database: URL, tmp_path: Path, *, is_long: bool
) -> None:
    of = random.Random(20261122)
    callers: list[Caller] = []
    with running_simulator() as base_url:
        for _ in range(KILLS_LONG if is_long else KILLS):
            async with node(database, tmp_path, base_url) as process:
                callers += await killed_under_load(process, of.uniform(*LIVES_S))
        async with node(database, tmp_path, base_url) as last:
            last.terminate()
            assert await last.status() == 0
    kept = await kept_once(database)
    assert {each for caller in callers for each in caller.complete} - kept == set()
    assert list((tmp_path / "state").glob("usage-*.journal")) == []


async def kept_once(database: URL) -> set[str]:
    """The ids of all calls in the ledger, whose sums must count each of them once."""
    store = Store(database)
    kept = await rows(store)
    count = await counted(store)
    await store.close()
    assert count == len(kept)
    return set(kept)


async def called(process: GatewayProcess, count: int) -> set[str]:
    """The ids of so many calls, one after another, all of which must succeed."""
    async with connected(process.port) as client:
        ids = set()
        for _ in range(count):
            client.send(CALLS[0])
            answer = await client.answer()
            assert answer.status == 200, answer.body
            ids.add(id_of(answer))
    return ids


async def until_measured(process: GatewayProcess, name: str, value: float) -> None:
    """Wait until /metrics says so of a family without labels."""
    async with asyncio.timeout(10):
        while await measured(process, name) != value:  # noqa: ASYNC110 - /metrics is asked for it
            await asyncio.sleep(0.05)


async def measured(process: GatewayProcess, name: str) -> float:
    page = (await ask(process.port, request("GET", "/metrics"))).body.decode()
    (value,) = re.findall(rf"^gmi_gateway_{name} (\S+)$", page, re.MULTILINE)
    return float(value)


@pytest.mark.parametrize("room_bytes", [0, 1_000], ids=["none", "some"])
async def test_a_full_disk_is_an_alarm_and_costs_neither_calls_nor_records(tmp_path: Path, room_bytes: int) -> None:
    """A limit to the size of files stands for the disk: what goes beyond is refused, a part of a line as well."""
    database = fresh_sqlite_url(tmp_path / "database")
    with running_simulator() as base_url:
        async with node(database, tmp_path, base_url) as process:
            ids = await called(process, 5)
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (room_bytes, resource.RLIM_INFINITY))
            ids |= await called(process, 100)
            await until_measured(process, "ledger_journal_up", 0)
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            ids |= await called(process, 5)
            await until_measured(process, "ledger_journal_up", 1)
            process.terminate()
            assert await process.status() == 0
            assert process.output.count(b"wait in memory: ") == 1
    assert await kept_once(database) == ids
    assert await integrity(database) == "ok"


async def integrity(database: URL) -> str:
    store = Store(database)
    async with store.reading() as connection:
        found = str((await connection.execute(text("PRAGMA integrity_check"))).scalar_one())
    await store.close()
    return found


async def test_a_database_that_was_away_has_each_call_once_when_it_is_back(
    stoppable_postgres: PostgresServer, stoppable_url: URL, tmp_path: Path, *, is_long: bool
) -> None:
    with running_simulator() as base_url:
        async with node(stoppable_url, tmp_path, base_url) as process:
            ids = await called(process, 20)
            await asyncio.to_thread(stoppable_postgres.stop)
            ids |= await called(process, 20)
            await asyncio.sleep(60 if is_long else 0)
            ids |= await called(process, 20)
            await asyncio.to_thread(stoppable_postgres.start)
            ids |= await called(process, 20)
            await until_measured(process, "ledger_records_total", len(ids))
    assert await kept_once(stoppable_url) == ids
