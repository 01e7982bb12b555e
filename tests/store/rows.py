"""One row for each table, for tests that need data in all of them."""

from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.store import tables
from gateway.terms import Grants

TERMS: dict[str, Any] = {
    "state": "active",
    "source": "api",
    "version": 1,
    "created_at": 1,
    "updated_at": 1,
    "grants": Grants(models=("openai/*",)),
    "limits": {},
    "budgets": {},
    "tags": {"project": "ü"},
}
ROWS: dict[str, dict[str, Any]] = {
    "teams": {"id": "team_1", "name": "one", "model_limits": {}, **TERMS},
    "keys": {"id": "key_1", "team_id": "team_1", "name": "ci", "role": "member", "hint": "abcd", **TERMS},
    "secrets": {"digest": bytes(32), "key_id": "key_1", "created_at": 1},
    "changes": {"revision": 1, "team_id": "team_1", "key_id": None, "at": 1},
    "audit": {"id": 1, "at": 1, "actor": "cli", "action": "team.create", "object_id": "team_1", "after": {"a": 1}},
    "idempotency": {
        "actor": "key_1",
        "idempotency_key": "a",
        "request_sha256": bytes(32),
        "object_id": "key_2",
        "at": 1,
    },
    "owners": {"object_id": "resp_1", "team_id": "team_1", "key_id": "key_1", "created_at": 1},
}


async def fill(connection: AsyncConnection) -> None:
    for name, row in ROWS.items():
        await connection.execute(insert(tables.metadata.tables[name]).values(row))


async def contents(connection: AsyncConnection) -> dict[str, list[dict[str, Any]]]:
    """Everything, by table."""
    found = {}
    for table in tables.metadata.sorted_tables:
        found[table.name] = [dict(row._mapping) for row in await connection.execute(select(table))]
    return found
