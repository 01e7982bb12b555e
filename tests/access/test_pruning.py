"""What the store need not keep is dropped after a day."""

import asyncio

import pytest
from sqlalchemy import URL, Table, func, insert, select

from gateway.access.pruning import Pruning
from gateway.store.changes import bump, current_revision
from gateway.store.engine import Store
from gateway.store.tables import changes, idempotency
from tests.support.stores import PostgresServer

DAY_S = 86_400
NOW_S = 10 * DAY_S


async def _fill(store: Store) -> None:
    """A change and an Idempotency-Key of each of the last ten days and of this moment."""
    async with store.writing() as connection:
        for number in range(11):
            at = number * DAY_S
            await bump(connection, team_id="team_1", key_id=None, at=at)
            row = {"actor": "here", "idempotency_key": str(number), "request_sha256": b"", "object_id": "x", "at": at}
            await connection.execute(insert(idempotency).values(row))


async def _count(store: Store, table: Table) -> int:
    async with store.reading() as connection:
        return int((await connection.execute(select(func.count()).select_from(table))).scalar_one())


async def test_what_is_older_than_a_day_is_dropped_and_the_count_of_changes_goes_on(store: Store) -> None:
    await _fill(store)
    await Pruning(store, now=lambda: NOW_S).prune()
    assert await _count(store, changes) == 2
    assert await _count(store, idempotency) == 1
    async with store.reading() as connection:
        assert await current_revision(connection) == 11


async def test_it_happens_in_the_background_again_and_again(store: Store) -> None:
    pruning = Pruning(store, first_after_s=0.01, every_s=0.01)
    pruning.start()
    async with asyncio.timeout(5):
        for _ in range(2):
            await _fill(store)
            async with store.writing() as connection:
                await connection.execute(idempotency.delete())
            while await _count(store, changes):  # noqa: ASYNC110 - the database does not tell
                await asyncio.sleep(0.005)
    await pruning.close()


async def test_a_database_that_is_away_is_tried_again_later(
    stoppable_postgres: PostgresServer, stoppable_url: URL, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(stoppable_url, timeout_s=2.0)
    await _fill(store)
    await asyncio.to_thread(stoppable_postgres.stop)
    pruning = Pruning(store, first_after_s=0.0, every_s=0.01)
    pruning.start()
    async with asyncio.timeout(10):
        while not store.is_away:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.005)
        await asyncio.to_thread(stoppable_postgres.start)
        while await _count(store, changes):  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.005)
    await pruning.close()
    await store.close()
    assert caplog.text == ""
