"""A store lends connections, commits or rolls back, and tells a database that is away from a bug."""

import asyncio
from pathlib import Path

import pytest
from sqlalchemy import URL, insert, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.errors import NotFound, StoreUnavailable
from gateway.store.changes import current_revision
from gateway.store.engine import Store
from gateway.store.tables import owners, teams
from gateway.store.url import parse
from tests.store.processes import run_at_once
from tests.store.rows import ROWS, contents, fill

SLEEP = {
    "sqlite": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n",
    "postgresql": "SELECT pg_sleep(60)",
}


async def owned(store: Store) -> list[str]:
    async with store.reading() as connection:
        return list((await connection.execute(select(owners.c.object_id))).scalars())


async def own(store: Store, object_id: str = "resp_1") -> None:
    async with store.writing() as connection:
        await connection.execute(insert(owners).values({**ROWS["owners"], "object_id": object_id}))


async def test_what_was_written_is_there_for_all_connections(store: Store) -> None:
    await own(store)
    assert await owned(store) == ["resp_1"]


async def test_all_values_come_back_as_they_were(store: Store) -> None:
    async with store.writing() as connection:
        await fill(connection)
    async with store.reading() as connection:
        found = await contents(connection)
    (key,) = found["keys"]
    assert (key["grants"], key["tags"]) == ({"models": ["openai/*"]}, {"project": "ü"})
    assert found["secrets"][0]["digest"] == bytes(32)
    assert found["audit"][0]["before"] is None


async def test_an_error_undoes_all_of_it_and_comes_through(store: Store) -> None:
    with pytest.raises(NotFound):
        await own_and_raise(store, NotFound("no"))
    with pytest.raises(ConnectionResetError):
        await own_and_raise(store, ConnectionResetError("the caller's own"))
    assert await owned(store) == []
    assert not store.is_away


async def own_and_raise(store: Store, error: Exception) -> None:
    async with store.writing() as connection:
        await connection.execute(insert(owners).values(ROWS["owners"]))
        raise error


async def test_a_row_that_breaks_a_rule_is_an_integrity_error(store: Store) -> None:
    await own(store)
    with pytest.raises(IntegrityError):
        await own(store)
    async with store.writing() as connection:
        with pytest.raises(IntegrityError):
            await connection.execute(text("INSERT INTO secrets (digest, key_id, created_at) VALUES ('a', 'none', 1)"))
    assert not store.is_away


async def test_a_rule_that_is_broken_inside_a_savepoint_leaves_the_rest(store: Store) -> None:
    async with store.writing() as connection:
        await connection.execute(insert(owners).values(ROWS["owners"]))
        with pytest.raises(IntegrityError):
            await own_in_a_savepoint(connection)
    assert await owned(store) == ["resp_1"]


async def own_in_a_savepoint(connection: AsyncConnection) -> None:
    async with connection.begin_nested():
        await connection.execute(insert(owners).values(ROWS["owners"]))


@pytest.mark.parametrize("statement", ["SELECT nothing FROM revision", "SELEKT 1"])
async def test_a_statement_that_makes_no_sense_is_a_bug_and_not_an_outage(store: Store, statement: str) -> None:
    with pytest.raises(DBAPIError):
        await fetch(store, statement)
    assert not store.is_away


async def fetch(store: Store, statement: str) -> None:
    async with store.reading() as connection:
        await connection.execute(text(statement))


async def test_an_error_shows_no_value_of_the_statement(store: Store) -> None:
    await own(store, "resp_canary")
    with pytest.raises(IntegrityError) as error:
        await own(store, "resp_canary")
    assert "parameters hidden" in str(error.value)


async def test_a_change_through_a_reading_connection_is_refused(store: Store) -> None:
    async with store.reading() as connection:
        with pytest.raises(RuntimeError, match="writing"):
            await connection.execute(insert(owners).values(ROWS["owners"]))
    assert await owned(store) == []


async def test_a_reader_neither_waits_for_a_writer_nor_sees_what_it_has_not_committed(store: Store) -> None:
    async with store.writing() as connection:
        await connection.execute(insert(owners).values(ROWS["owners"]))
        assert await owned(store) == []
    assert await owned(store) == ["resp_1"]


async def test_a_reader_sees_what_is_newest_at_each_statement(store: Store) -> None:
    async with store.reading() as connection:
        assert (await connection.execute(select(owners.c.object_id))).all() == []
        await own(store)
        assert (await connection.execute(select(owners.c.object_id))).all() == [("resp_1",)]


async def test_a_statement_that_takes_too_long_is_given_up_and_the_store_goes_on(store_url: URL) -> None:
    store = Store(store_url, timeout_s=0.2)
    async with asyncio.timeout(2):
        with pytest.raises(StoreUnavailable):
            await fetch(store, SLEEP[store.dialect])
    assert repr(store).endswith("away)")
    assert await owned(store) == []
    assert repr(store).endswith("there)")
    await store.close()


async def test_no_free_connection_is_an_outage_after_the_time(store_url: URL) -> None:
    store = Store(store_url, pool_size=1, timeout_s=0.2)
    async with store.reading():
        with pytest.raises(StoreUnavailable):
            await owned(store)
    assert await owned(store) == []
    await store.close()


async def test_a_writer_that_waits_too_long_for_another_gives_up(store_url: URL) -> None:
    one, other = Store(store_url), Store(store_url, timeout_s=0.2)
    async with one.writing() as connection:
        await connection.execute(insert(teams).values(ROWS["teams"]))
        with pytest.raises(StoreUnavailable):
            await insert_team(other)
        assert other.is_away
    with pytest.raises(IntegrityError):
        await insert_team(other)
    await one.close()
    await other.close()


async def insert_team(store: Store) -> None:
    async with store.writing() as connection:
        await connection.execute(insert(teams).values(ROWS["teams"]))


async def test_tasks_that_are_cancelled_anywhere_leave_no_connection_behind(store_url: URL) -> None:
    store = Store(store_url, pool_size=3)
    for steps in range(30):
        tasks = [asyncio.create_task(own(store, f"resp_{steps}_{n}")) for n in range(5)]
        for _ in range(steps):
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    await own(store, "resp_last")
    assert "resp_last" in await owned(store)
    assert "Current Checked out connections: 0" in repr(store)
    assert store._watches == {}
    await store.close()


async def test_a_writer_that_is_cancelled_anywhere_holds_nobody_up_while_its_task_is_kept(store_url: URL) -> None:
    async def count() -> None:
        async with store.writing() as connection:
            await connection.execute(text("UPDATE revision SET value = value + 1 RETURNING value"))

    store, kept = Store(store_url, timeout_s=0.5), []
    for steps in range(160):
        task = asyncio.create_task(count())
        kept.append(task)
        for _ in range(steps % 40):
            await asyncio.to_thread(int)  # about as long as a step of SQLite's thread
        task.cancel()
        await asyncio.wait([task])
        await count()
    await store.close()


async def test_many_writers_and_readers_share_few_connections(store_url: URL) -> None:
    store = Store(store_url, pool_size=2)
    await asyncio.gather(*(own(store, f"resp_{n}") for n in range(30)), *(owned(store) for _ in range(30)))
    assert len(await owned(store)) == 30
    await store.close()


async def test_four_processes_write_to_one_database_and_lose_nothing(store: Store, store_url: URL) -> None:
    assert run_at_once(4, store_url, "bump", "25") == [(0, "")] * 4
    async with store.reading() as connection:
        assert await current_revision(connection) == 100
        assert [row["revision"] for row in (await contents(connection))["changes"]] == list(range(1, 101))


async def test_a_repr_shows_no_password() -> None:
    store = Store(parse("postgresql://u:canary@127.0.0.1:1/n?sslpassword=canary"))
    assert repr(store).startswith("Store(postgresql://u:***@127.0.0.1:1/n, Pool size: 5")
    assert "canary" not in repr(store) + repr(store.engine)


async def test_nothing_is_opened_before_it_is_used(tmp_path: Path) -> None:
    await Store(parse(f"sqlite:///{tmp_path}/data/gateway.db")).close()
    assert list(tmp_path.iterdir()) == []  # noqa: ASYNC240 - nothing else runs on this loop
