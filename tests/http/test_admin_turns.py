"""Who asks the ledger, and how much at once: no key keeps others from an answer, and nobody keeps admins from one."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import Request

from gateway.access.administration import Administration
from gateway.access.keys import digest
from gateway.access.records import Actor
from gateway.errors import Overloaded, RateLimited
from gateway.http.admin import PREFIX, LedgerDesk, admin_app
from gateway.http.admin.turns import Turns
from gateway.metering.ledger_queries import LedgerQueries
from gateway.metering.ledger_query import UsagePage, UsageQuery
from gateway.metering.rollups import Days
from gateway.store.engine import Store
from tests.access.rows import add_key, add_team
from tests.http.admin_server import assert_refused
from tests.http.ledger_world import DAY, LedgerWorld
from tests.support.stores import fresh_sqlite_url

ADMIN = Actor("root", "admin", "key_root")
LEADS = Actor("lea", "team_admin", "key_lea")
ADA, EVE = (Actor(name, "member", f"key_{name}") for name in ("ada", "eve"))


async def test_a_key_that_asks_twice_at_once_is_told_to_wait_and_may_ask_again_afterwards() -> None:
    turns = Turns(5.0)
    async with turns.of(ADA):
        with pytest.raises(RateLimited) as refused:
            await turns.of(ADA).__aenter__()
    assert (b"retry-after", b"1") in refused.value.headers
    async with turns.of(ADA):
        pass
    del refused  # whose traceback has the turn in it
    assert not turns._asking, "nothing is remembered of who asks no more"


async def test_what_goes_on_waits_for_the_same_key_s_other_question() -> None:
    turns = Turns(5.0)
    async with AsyncExitStack() as held:
        await held.enter_async_context(turns.of(ADA))
        page = asyncio.create_task(_turn(turns, ADA, goes_on=True))
        await asyncio.sleep(0)
        assert not page.done()
        await held.aclose()
        await page


async def test_an_admin_s_questions_wait_for_one_another() -> None:
    turns = Turns(5.0)
    async with AsyncExitStack() as held:
        await held.enter_async_context(turns.of(ADMIN))
        panel = asyncio.create_task(_turn(turns, ADMIN))
        await asyncio.sleep(0)
        assert not panel.done()
        await held.aclose()
        await panel


@pytest.mark.parametrize("asks", [EVE, LEADS], ids=["a member", "a team admin"])
async def test_one_turn_is_kept_for_admins(asks: Actor) -> None:
    turns = Turns(0.05)
    async with turns.of(ADA):
        async with turns.of(ADMIN):
            pass
        with pytest.raises(Overloaded):
            await _turn(turns, asks)
    await _turn(turns, asks)


async def test_who_gets_no_turn_in_time_is_told_and_keeps_nothing() -> None:
    turns = Turns(0.05)
    other = Actor("boss", "admin", "key_boss")
    async with turns.of(ADMIN), turns.of(other):
        with pytest.raises(Overloaded):
            await _turn(turns, ADA)
    async with turns.of(ADA), turns.of(ADMIN):
        pass


async def _turn(turns: Turns, actor: Actor, **more: bool) -> None:
    async with turns.of(actor, **more):
        pass


class SlowQueries(LedgerQueries):
    """Answers when it is let; `asked` is set meanwhile."""

    def __init__(self, store: Store, days: Days) -> None:
        super().__init__(store, days)
        self.asked, self.may = asyncio.Event(), asyncio.Event()

    async def usage(self, query: UsageQuery) -> UsagePage:
        self.asked.set()
        await self.may.wait()
        return await super().usage(query)


@pytest.mark.parametrize("path", ["me/usage", "me/usage?format=csv", "me/calls"])
async def test_at_the_face_it_is_429_at_once_and_says_when_to_come_again(tmp_path: Path, path: str) -> None:
    store, days = Store(fresh_sqlite_url(tmp_path)), Days()
    queries = SlowQueries(store, days)
    administration = Administration(store, on_change=None, route_groups=frozenset())
    await add_team(store)
    secret = await add_key(store, "key_ada")

    async def authenticate(_: Request) -> Actor:
        return Actor("ada", "member", "key_ada", digest(secret.encode()))

    app: Any = admin_app(administration, authenticate, desk=LedgerDesk(store, days, queries))
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://gateway" + PREFIX) as client:
        first = asyncio.create_task(client.get("/me/usage"))
        await queries.asked.wait()
        second = await client.get(f"/{path}")
        assert (second.status_code, second.headers["retry-after"]) == (429, "1")
        assert second.json()["error"]["code"] == "rate_limit_exceeded"
        queries.may.set()
        assert (await first).status_code == 200
        assert (await client.get(f"/{path}")).status_code == 200
    await store.close()


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"group_by": "tag:a,tag:b"}, "group_by"),
        ({"group_by": "tag:a,tag:b", "format": "csv"}, "group_by"),
        ({"since": "2025-11-01"}, "since"),
    ],
)
def test_a_member_asks_nothing_that_is_dear_and_those_who_lead_may(
    world: LedgerWorld, wrong: dict[str, str], param: str
) -> None:
    assert_refused(world.as_key("ada").get("/me/usage", **{**DAY, **wrong}), 400, None, param)
    for client, path in ((world.as_key("lea"), "/me/usage"), (world.as_key("lea"), "/usage"), (world.admin, "/usage")):
        assert client.get(path, **{**DAY, **wrong}).status_code == 200


def test_a_member_lists_calls_of_a_year_at_most(world: LedgerWorld) -> None:
    ada = world.as_key("ada")
    assert_refused(ada.get("/me/calls", since="2025-11-01", until="2026-11-23"), 400, None, "since")
    assert ada.get("/me/calls", since="2025-11-23", until="2026-11-23").status_code == 200
