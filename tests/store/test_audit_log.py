"""What the audit log holds can be neither changed nor taken out, by whatever statement."""

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from gateway.store.engine import Store
from tests.store.rows import ROWS, contents, fill

INSERT = "INSERT INTO audit (id, at, actor, action, object_id) VALUES (1, 1, 'nobody', 'none', 'none')"
EVERYWHERE = [
    "UPDATE audit SET actor = 'nobody'",
    "DELETE FROM audit",
    "DELETE FROM audit WHERE id = 1",
    f"{INSERT} ON CONFLICT (id) DO UPDATE SET actor = 'nobody'",
]
ONE_KIND_ALONE = {"sqlite": INSERT.replace("INSERT", "INSERT OR REPLACE"), "postgresql": "TRUNCATE audit"}


async def test_entries_can_only_be_added(store: Store) -> None:
    async with store.writing() as connection:
        await fill(connection)
    for statement in [*EVERYWHERE, ONE_KIND_ALONE[store.dialect]]:
        with pytest.raises(DBAPIError, match="append-only"):
            await execute(store, statement)
    async with store.reading() as connection:
        (entry,) = (await contents(connection))["audit"]
    assert entry.items() >= ROWS["audit"].items()
    await execute(store, "INSERT INTO audit (id, at, actor, action, object_id) VALUES (2, 1, 'a', 'b', 'c')")


async def test_an_entry_gets_a_number_by_itself(store: Store) -> None:
    await execute(store, "INSERT INTO audit (at, actor, action, object_id) VALUES (1, 'a', 'b', 'c')")
    await execute(store, "INSERT INTO audit (at, actor, action, object_id) VALUES (1, 'a', 'b', 'c')")
    async with store.reading() as connection:
        assert [entry["id"] for entry in (await contents(connection))["audit"]] == [1, 2]


async def execute(store: Store, statement: str) -> None:
    async with store.writing() as connection:
        await connection.execute(text(statement))
