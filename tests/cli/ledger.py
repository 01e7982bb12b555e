"""A ledger for commands to ask: calls of a team and its keys that are in the store of the folder, put there as a
gateway puts them."""

import asyncio
import time
from collections.abc import Iterable
from typing import Any

from sqlalchemy import URL

from gateway.call import CallRecord, Principal
from gateway.metering.ledger_drain import Drain
from gateway.metering.ledger_line import encode
from gateway.metering.rollups import Days
from gateway.settings import Settings
from gateway.store.engine import Store
from gateway.store.url import database_url
from tests.cli.conftest import Run, answer
from tests.metering.ledger import record


def a_key(run: Run, team: str, name: str) -> Principal:
    """A new key, of a new team unless there is one of that name."""
    run("teams", "create", "--name", team)
    key = answer(run("keys", "create", "--team", team, "--name", name, "--json"))
    return Principal(name, team, key["id"], key["team_id"])


def call_of(principal: Principal, call_id: str, ago_s: float = 0.0, **changed: Any) -> CallRecord:
    """A call that began so long ago."""
    return record(call_id, principal=principal, started_at_s=time.time() - ago_s, **changed)


def put(records: Iterable[CallRecord], url: URL | None = None) -> None:
    """Write these into the store of this folder, or into another."""
    asyncio.run(_put(list(records), url or database_url(Settings())))


async def _put(records: list[CallRecord], url: URL) -> None:
    store = Store(url)
    await Drain(store, Days()).write([encode(each) for each in records])
    await store.close()
