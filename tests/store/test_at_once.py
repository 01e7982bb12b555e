"""Work that SQLite's own thread does in one step: a transaction like any other."""

import asyncio
import os
import sqlite3
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.errors import StoreUnavailable
from gateway.store.engine import Store
from gateway.store.migrate import migrate
from gateway.store.url import parse

COUNT = "SELECT value FROM revision"
GROW = "UPDATE revision SET value = value + 1"


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    url = parse(f"sqlite:///{tmp_path}/gateway.db")
    await migrate(url)
    store = Store(url, timeout_s=0.5)
    yield store
    await store.close()


def value(connection: sqlite3.Connection) -> int:
    found: int = connection.execute(COUNT).fetchone()[0]
    return found


async def stand_still() -> None:
    threading.Event().wait(1.2)  # the whole event loop does
    for _ in range(3):
        await asyncio.sleep(0)  # what is due by now comes first


async def test_what_it_changes_is_there_once_it_is_answered(store: Store) -> None:
    before = await store.at_once(value)
    await store.at_once(lambda connection: connection.execute(GROW))
    other = Store(store.engine.url)
    assert await other.at_once(value) == before + 1
    await other.close()


async def test_an_error_undoes_all_of_it_and_comes_through(store: Store) -> None:
    def fail(connection: sqlite3.Connection) -> None:
        connection.execute(GROW)
        raise LookupError("ours")

    before = await store.at_once(value)
    with pytest.raises(LookupError, match="ours"):
        await store.at_once(fail)
    with pytest.raises(sqlite3.OperationalError, match="no_such_column"):
        await store.at_once(lambda connection: connection.execute("UPDATE revision SET no_such_column = 1"))
    assert await store.at_once(value) == before
    assert not store.is_away


async def test_what_does_not_end_is_broken_off_in_time_and_the_store_goes_on(store: Store) -> None:
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    with pytest.raises(StoreUnavailable, match="cannot be reached"):
        await store.at_once(lambda connection: connection.execute(endless).fetchall())
    assert store.is_away
    await store.at_once(value)
    assert not store.is_away


async def test_a_process_that_stood_still_for_longer_than_the_time_does_not_blame_the_database(store: Store) -> None:
    under_way, go = threading.Event(), threading.Event()

    def hold() -> int:
        under_way.set()
        return int(go.wait(10))

    def ask(connection: sqlite3.Connection) -> object:
        connection.create_function("hold", 0, hold)
        return connection.execute("SELECT hold()").fetchone()

    asked = asyncio.ensure_future(store.at_once(ask))
    await asyncio.to_thread(under_way.wait, 10)
    await stand_still()
    go.set()
    assert await asked == (1,)
    assert not store.is_away


async def test_nor_does_who_waits_for_another_to_be_done_blame_it(store: Store) -> None:
    async with store.writing():
        asked = asyncio.ensure_future(store.at_once(value))
        await asyncio.sleep(0)
        await stand_still()
    assert await asked >= 0
    assert not store.is_away


async def test_nor_who_waits_for_a_connection(store: Store) -> None:
    narrow = Store(store.engine.url, pool_size=1, timeout_s=0.5)
    async with narrow.reading():
        asked = asyncio.ensure_future(narrow.at_once(value))
        await asyncio.sleep(0)
        await stand_still()
    assert await asked >= 0
    assert not narrow.is_away
    await narrow.close()


async def test_another_process_that_writes_all_the_time_is_an_outage(store: Store, tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "gateway.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable) as refusal:
        await store.at_once(value)
    other.close()
    assert refusal.value.detail
    assert await store.at_once(value) >= 0


async def test_it_is_done_to_its_end_where_nobody_waits_for_it_any_more(store: Store) -> None:
    begun, go_on, done = threading.Event(), threading.Event(), threading.Event()

    def grow(connection: sqlite3.Connection) -> None:
        begun.set()
        go_on.wait(0.4)
        connection.execute(GROW)
        done.set()

    before = await store.at_once(value)
    task = asyncio.create_task(store.at_once(grow))
    await asyncio.to_thread(begun.wait)
    task.cancel()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.to_thread(done.wait)
    assert await store.at_once(value) == before + 1


async def test_while_it_gives_way_its_thread_interrupts_no_other_where_the_system_can_do_that(store: Store) -> None:
    policy = getattr(os, "sched_getscheduler", lambda _: None)  # Linux has it
    ordinary = await store.at_once(lambda _: policy(0))
    assert await store.at_once(lambda _: policy(0), gives_way=True) == getattr(os, "SCHED_BATCH", None)
    with pytest.raises(ZeroDivisionError):
        await store.at_once(lambda _: 1 // 0, gives_way=True)
    assert await store.at_once(lambda _: policy(0)) == ordinary == policy(0)


async def test_a_policy_that_somebody_chose_for_its_thread_stays(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    changed: list[tuple[object, ...]] = []
    monkeypatch.setattr(os, "sched_getscheduler", lambda _: -1, raising=False)
    monkeypatch.setattr(os, "sched_setscheduler", lambda *to: changed.append(to), raising=False)
    await store.at_once(value, gives_way=True)
    assert not changed
