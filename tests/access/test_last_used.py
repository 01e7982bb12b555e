"""When keys were last used is written in batches, and nobody waits for it."""

import asyncio

import pytest
from sqlalchemy import URL, select

from gateway.access.last_used import LastUsed
from gateway.store.engine import Store
from gateway.store.tables import keys
from tests.access.queries import queries
from tests.access.rows import add_key, add_team
from tests.support.stores import PostgresServer
from tests.support.yardsticks import times_a_count


async def _last_used(store: Store) -> dict[str, int | None]:
    async with store.reading() as connection:
        rows = await connection.execute(select(keys.c.id, keys.c.last_used_at))
        return {row.id: row.last_used_at for row in rows}


async def test_many_uses_are_written_at_once_and_unused_keys_left_alone(store: Store) -> None:
    for number in range(4):
        await add_key(store, f"key_{number}")
    uses = LastUsed(store)
    for at in (100, 101, 102):
        for number in range(3):
            uses.note(f"key_{number}", at + number)
    with queries(store) as seen:
        await uses.flush()
    assert await _last_used(store) == {"key_0": 102, "key_1": 103, "key_2": 104, "key_3": None}
    assert sum(statement.startswith("UPDATE") for statement in seen) == 1
    with queries(store) as seen:
        await uses.flush()
    assert seen == []


async def test_a_later_time_that_another_node_has_written_stays(store: Store) -> None:
    await add_key(store, last_used_at=200)
    uses = LastUsed(store)
    uses.note("key_1", 199)
    await uses.flush()
    assert await _last_used(store) == {"key_1": 200}


async def test_a_key_that_is_gone_does_not_keep_the_others_from_being_written(store: Store) -> None:
    await add_key(store)
    uses = LastUsed(store)
    uses.note("key_0", 100)
    uses.note("key_1", 100)
    await uses.flush()
    assert await _last_used(store) == {"key_1": 100}
    assert len(uses) == 0


async def test_uses_are_written_in_the_background_and_at_the_end(store: Store) -> None:
    await add_key(store)
    uses = LastUsed(store, every_s=0.01)
    uses.start()
    uses.note("key_1", 100)
    async with asyncio.timeout(5):
        while await _last_used(store) != {"key_1": 100}:  # noqa: ASYNC110 - the database does not tell
            await asyncio.sleep(0.005)
    await uses.close()
    late = LastUsed(store)
    late.start()
    late.note("key_1", 101)
    await late.close()
    assert await _last_used(store) == {"key_1": 101}


async def test_two_nodes_that_write_the_same_keys_at_once_do_not_get_in_each_others_way(store_url: URL) -> None:
    stores = [Store(store_url) for _ in range(3)]
    await add_team(stores[0])
    names = [f"key_{number}" for number in range(50)]
    for name in names:
        await add_key(stores[0], name)
    nodes = [LastUsed(store) for store in stores]
    for turn in range(5):
        for position, node in enumerate(nodes):
            for name in names if position % 2 else reversed(names):
                node.note(name, 100 * turn + position)
        await asyncio.gather(*(node.flush() for node in nodes))
    assert [len(node) for node in nodes] == [0, 0, 0]
    assert set((await _last_used(stores[0])).values()) == {402}
    for store in stores:
        await store.close()


async def test_while_the_database_is_away_uses_are_kept_up_to_a_bound_and_one_line_says_so(
    stoppable_postgres: PostgresServer, stoppable_url: URL, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(stoppable_url, timeout_s=2.0)
    await add_team(store)
    for number in range(5):
        await add_key(store, f"key_{number}")
    uses = LastUsed(store, max_keys=3)
    uses.note("key_3", 100)
    await asyncio.to_thread(stoppable_postgres.stop)
    await uses.flush()
    assert len(uses) == 1
    for number in range(5):
        uses.note(f"key_{number}", 200)
    await uses.flush()
    assert len(uses) == 3
    await asyncio.to_thread(stoppable_postgres.start)
    await uses.flush()
    assert list((await _last_used(store)).values()).count(200) == 3
    assert caplog.text.count("Last uses of keys cannot be written") == 1
    await store.close()


async def test_a_note_costs_no_more_than_a_dictionary_s_store(store: Store) -> None:
    uses = LastUsed(store)
    assert times_a_count(lambda: uses.note("key_1", 100)) < 20
