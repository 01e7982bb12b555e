"""Records of calls for tests of the ledger, and a ledger to put them into."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, tzinfo
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
from sqlalchemy import select

from gateway.call import CallRecord, Principal, Route, Usage
from gateway.metering.ledger import Ledger
from gateway.metering.ledger_drain import Drain
from gateway.metering.rollups import Days
from gateway.store.engine import Store
from gateway.store.journal import Journal
from gateway.store.tables import COUNTS, USAGE, call_tags, calls, usage_days

CHAT = Route("POST", "chat/completions")
BERLIN = ZoneInfo("Europe/Berlin")
NOON_S = 1_795_348_800.0
"""12:00 UTC of 2026-11-22."""
RECORD = CallRecord(
    id="req_1",
    upstream_request_id="upstream-1",
    principal=Principal("ada", "engines", "key_ada", "team_engines"),
    route=CHAT,
    method="POST",
    model="openai/gpt-5.2",
    status=200,
    outcome="done",
    streamed=False,
    started_at_s=NOON_S,
    duration_s=0.25,
    first_byte_s=0.125,
    overhead_s=0.0005,
    sent_bytes=345,
    usage=Usage(5, 2, 7, cached_tokens=3),
    error=None,
    upstream_error=None,
    usage_source="reported",
    cost_microusd=12,
    endpoint="upstream",
)


def record(call_id: str, **changed: Any) -> CallRecord:
    """A call like any other, but for what is `changed`."""
    return msgspec.structs.replace(RECORD, id=call_id, **changed)


@asynccontextmanager
async def opened(
    store: Store, folder: Path, *, zone: tzinfo = UTC, now: Callable[[], float] = lambda: NOON_S, **more: Any
) -> AsyncIterator[Ledger]:
    """A ledger at work whose journal is in `folder`, closed at the end."""
    max_bytes = more.pop("max_bytes", 2**20)
    journal = Journal(folder, "usage", max_bytes=max_bytes, now=now)
    ledger = Ledger(journal, Drain(store, Days(zone)), now=now, **more)
    await ledger.start()
    try:
        yield ledger
    finally:
        await ledger.close()


async def rows(store: Store) -> dict[str, dict[str, Any]]:
    """All calls of the ledger, by id."""
    async with store.reading() as connection:
        return {row["id"]: dict(row) for row in (await connection.execute(select(calls))).mappings()}


async def tags(store: Store) -> dict[str, dict[str, str]]:
    """The tags of all calls that have some, by id."""
    found: dict[str, dict[str, str]] = {}
    async with store.reading() as connection:
        for each in (await connection.execute(select(call_tags))).mappings():
            found.setdefault(each["call_id"], {})[each["name"]] = each["value"]
    return found


async def day_rows(store: Store) -> list[dict[str, Any]]:
    """All sums by day."""
    async with store.reading() as connection:
        found = (await connection.execute(select(usage_days).order_by(usage_days.c.day))).mappings()
        return [dict(row) for row in found]


async def counted(store: Store) -> int:
    """The number of calls as the sums have it."""
    return sum(row["calls"] for row in await day_rows(store))


def day_row(day: int, **changed: Any) -> dict[str, Any]:
    """A row of sums of `RECORD`'s key, model and route, all 0 but for what is `changed`."""
    zeros = dict.fromkeys((*COUNTS, *USAGE, "cost_microusd"), 0)
    place = {"team_id": "team_engines", "key_id": "key_ada", "model": "openai/gpt-5.2", "route": CHAT.path}
    return {"day": day, **place, **zeros, **changed}
