"""An admin API on a ledger with a handful of calls, of two teams, whose sums are easily added up by hand."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import URL

from gateway.call import CallRecord, Principal, Route, Usage
from gateway.metering.ledger_drain import Drain
from gateway.metering.ledger_line import encode
from gateway.metering.rollups import Days
from gateway.store.engine import Store
from tests.http.admin_server import AdminServer, Client, administered, made
from tests.metering.ledger import NOON_S, record

DAY = {"since": "2026-11-22", "until": "2026-11-23"}
MODELS = ("openai/gpt-5.2", "zai/glm-5")
RESPONSES = Route("POST", "responses")


class LedgerWorld:
    """Ada and Lea, who runs it, are of the team engines, Eve of the team others."""

    def __init__(self, server: AdminServer) -> None:
        self.server = server
        self.admin = server.admin
        self.teams = {
            name: str(made(self.admin.post("/teams", {"name": name}))["id"]) for name in ("engines", "others")
        }
        self.keys = {
            name: made(self.admin.post("/keys", {"team": team, "name": name, "role": role}))
            for name, team, role in (
                ("ada", "engines", "member"),
                ("lea", "engines", "team_admin"),
                ("eve", "others", "member"),
            )
        }
        self.put(
            self.call("req_1", "ada", tags={"feature": "search"}),
            self.call("req_2", "ada", started_at_s=NOON_S - 86_400, model=MODELS[1], cost_microusd=None),
            self.call("req_3", "lea", route=RESPONSES, outcome="cut", usage_source="estimated", status=0),
            self.call("req_4", "eve", started_at_s=NOON_S + 3_600, tags={"feature": "=1+1"}),
            self.call("req_5", "eve", usage=None, usage_source="unknown", cost_microusd=None, model=None),
        )

    def call(self, call_id: str, name: str, **changed: Any) -> CallRecord:
        """Costs 12 micro-dollars for 5 and 2 tokens, at noon, unless something else is said."""
        key = self.keys[name]
        principal = Principal(name, key["team"], key["id"], key["team_id"])
        return record(call_id, **{"principal": principal, "usage": Usage(5, 2, 7), **changed})

    def put(self, *records: CallRecord) -> None:
        """Into the ledger."""

        async def write() -> None:
            store = Store(self.server.database)
            await Drain(store, Days()).write([encode(each) for each in records])
            await store.close()

        asyncio.run(write())

    def as_key(self, name: str) -> Client:
        return self.server.client(self.keys[name]["secret"])


@contextmanager
def ledger_world(url: URL) -> Iterator[LedgerWorld]:
    """On the store at `url`, which has the schema."""
    with administered(url) as server:
        yield LedgerWorld(server)
