"""Changes are numbered without gaps, in the order in which they can be seen."""

import asyncio
import contextlib

from gateway.store.changes import Change, bump, changes_since, current_revision, prune_changes
from gateway.store.engine import Store


async def change(store: Store, team_id: str | None, key_id: str | None, at: int = 1) -> int:
    async with store.writing() as connection:
        return await bump(connection, team_id=team_id, key_id=key_id, at=at)


async def test_nothing_has_changed_in_a_new_database(store: Store) -> None:
    async with store.reading() as connection:
        assert (await current_revision(connection), await changes_since(connection, 0)) == (0, [])


async def test_a_change_raises_the_revision_by_one_and_says_what_changed(store: Store) -> None:
    assert [await change(store, "team_1", "key_1"), await change(store, "team_2", None)] == [1, 2]
    async with store.reading() as connection:
        assert await current_revision(connection) == 2
        assert await changes_since(connection, 0) == [Change(1, "team_1", "key_1"), Change(2, "team_2", None)]
        assert await changes_since(connection, 1) == [Change(2, "team_2", None)]


async def test_a_change_that_is_rolled_back_leaves_no_gap(store: Store) -> None:
    with contextlib.suppress(LookupError):
        async with store.writing() as connection:
            await bump(connection, team_id="team_1", key_id=None, at=1)
            raise LookupError
    assert await change(store, "team_1", None) == 1


async def test_many_at_once_get_each_a_number_of_their_own(store: Store) -> None:
    numbers = await asyncio.gather(*(change(store, "team_1", f"key_{n}") for n in range(20)))
    assert sorted(numbers) == list(range(1, 21))


async def test_pruned_changes_leave_the_count_as_it_is(store: Store) -> None:
    for at in (10, 20, 30):
        await change(store, None, None, at)
    async with store.writing() as connection:
        assert await prune_changes(connection, 30) == 2
    async with store.reading() as connection:
        assert await changes_since(connection, 0) == [Change(3, None, None)]
        assert await current_revision(connection) == 3
    assert await change(store, None, None) == 4
