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
    "spend": {"subject_id": "key_1", "window_id": "day", "microusd": 1, "resets_at": None, "updated_at": 1},
    "spend_batches": {"writer_id": "a", "number": 1, "at": 1},
    "alerts": {
        "subject_id": "key_1",
        "window_id": "day",
        "percent": 50,
        "event": {"a": 1},
        "attempts": 0,
        "created_at": 1,
    },
    "calls": {
        "id": "req_1",
        "started_at": 1,
        "team_id": "team_1",
        "key_id": "key_1",
        "method": "POST",
        "route": "/v1/chat/completions",
        "status": 200,
        "outcome": "done",
        "streamed": False,
        "usage_source": "none",
        "queue_us": 0,
        "duration_us": 1,
        "sent_bytes": 1,
    },
    "call_tags": {"call_id": "req_1", "name": "project", "value": "ü", "started_at": 1},
    "due_responses": {
        "response_id": "resp_1",
        "call_id": "req_1",
        "team_id": "team_1",
        "key_id": "key_1",
        "started_at": 1,
        "reserved": {"team_1/budget/total": 5},
        "attempts": 0,
        "due_at": 1,
    },
    "usage_days": {
        "day": 1,
        "team_id": "team_1",
        "key_id": "key_1",
        "model": "",
        "route": "/v1/chat/completions",
        "cost_microusd": 0,
        **dict.fromkeys((*tables.COUNTS, *tables.USAGE), 0),
    },
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
