"""A PostgreSQL server stops, hangs and comes back: told within the time, and healed without anybody's help."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Iterator

import pytest
from sqlalchemy import text

from gateway.errors import StoreUnavailable
from gateway.store.engine import Store
from gateway.store.url import parse
from tests.support.patience import Stopwatch
from tests.support.stores import PostgresServer
from tests.support.wire import Stall, WireUpstream

TIMEOUT_S = 0.5
SOON_S = TIMEOUT_S + 0.5


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """One of its own, since it is stopped."""
    made = PostgresServer()
    yield made
    made.close()


@pytest.fixture
async def store(server: PostgresServer) -> AsyncIterator[Store]:
    opened = Store(server.url(), pool_size=3, timeout_s=TIMEOUT_S)
    yield opened
    await opened.close()


async def query(store: Store, statement: str = "SELECT 1") -> int:
    async with store.reading() as connection:
        number: int = (await connection.execute(text(statement))).scalar_one()
        return number


async def use_all(store: Store) -> list[int]:
    """As many at once as there are connections; returns the server's process of each."""
    return await asyncio.gather(*(query(store, "SELECT pg_backend_pid() FROM pg_sleep(0.05)") for _ in range(3)))


async def refused(store: Store, statement: str = "SELECT 1") -> StoreUnavailable:
    watch = Stopwatch()
    with pytest.raises(StoreUnavailable) as refusal:
        await query(store, statement)
    assert watch.took().running_s < SOON_S
    assert store.is_away
    return refusal.value


async def test_a_server_that_stops_is_noticed_and_used_again_when_it_is_back(
    server: PostgresServer, store: Store
) -> None:
    await use_all(store)
    await asyncio.to_thread(server.stop)
    for _ in range(4):
        await refused(store)
    await asyncio.to_thread(server.start)
    assert await use_all(store)
    assert not store.is_away


async def test_a_restart_between_two_queries_is_not_noticed_at_all(server: PostgresServer, store: Store) -> None:
    await use_all(store)
    await asyncio.to_thread(server.stop)
    await asyncio.to_thread(server.start)
    assert await use_all(store)
    assert not store.is_away


async def test_a_query_that_is_under_way_when_the_server_stops_fails_at_once(
    server: PostgresServer, store: Store
) -> None:
    running = asyncio.create_task(refused(store, "SELECT pg_sleep(60)"))
    await until_there_is(store, "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(60)%'", more_than=1)
    await asyncio.to_thread(server.stop)
    await running
    await asyncio.to_thread(server.start)
    assert await query(store) == 1


async def until_there_is(store: Store, statement: str, *, more_than: int) -> None:
    while await query(store, statement) <= more_than:
        pass


async def test_a_transaction_that_loses_the_server_is_refused_and_not_committed(
    server: PostgresServer, store: Store
) -> None:
    async with store.writing() as connection:
        await connection.execute(text("CREATE TABLE IF NOT EXISTS marks (n INTEGER)"))
    with pytest.raises(StoreUnavailable):
        await mark_while_the_server_restarts(server, store)
    assert await query(store, "SELECT count(*) FROM marks") == 0


async def mark_while_the_server_restarts(server: PostgresServer, store: Store) -> None:
    async with store.writing() as connection:
        await connection.execute(text("INSERT INTO marks VALUES (1)"))
        await asyncio.to_thread(server.stop)
        await asyncio.to_thread(server.start)


@contextlib.contextmanager
def hanging(pids: list[int]) -> Iterator[None]:
    """The server's processes neither answer nor close."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


async def test_connections_that_hang_are_cut_off_and_replaced(store: Store) -> None:
    pids = await use_all(store)
    with hanging(pids):
        await refused(store)
        # One that hangs makes the others suspect: they are not tried.
        assert not {*await use_all(store)} & {*pids}
    assert not store.is_away


async def hang_in_a_transaction(store: Store, stack: contextlib.ExitStack, error: Exception | None) -> None:
    async with store.writing() as connection:
        pid = (await connection.execute(text("SELECT pg_backend_pid()"))).scalar_one()
        stack.enter_context(hanging([pid]))
        if error is not None:
            raise error


async def test_a_commit_that_hangs_is_refused_in_time(store: Store) -> None:
    with contextlib.ExitStack() as stack:
        async with asyncio.timeout(SOON_S):
            with pytest.raises(StoreUnavailable):
                await hang_in_a_transaction(store, stack, None)
    assert store.is_away


async def test_to_roll_back_where_the_server_hangs_takes_no_longer(store: Store) -> None:
    with contextlib.ExitStack() as stack:
        async with asyncio.timeout(SOON_S):
            with pytest.raises(StoreUnavailable):
                await hang_in_a_transaction(store, stack, LookupError())
    assert store.is_away


async def test_a_server_that_takes_connections_and_never_speaks_is_refused_in_time() -> None:
    async with WireUpstream([Stall()]) as silent:
        store = Store(parse(f"postgresql://u@127.0.0.1:{silent.port}/n"), timeout_s=TIMEOUT_S)
        await refused(store)
        await store.close()


async def test_many_that_ask_while_the_server_hangs_are_all_answered_in_time(store: Store) -> None:
    with hanging(await use_all(store)):
        async with asyncio.timeout(2 * TIMEOUT_S + 0.5):
            results = await asyncio.gather(*(query(store) for _ in range(50)), return_exceptions=True)
    assert {type(result) for result in results} <= {StoreUnavailable, int}
    assert await query(store) == 1
