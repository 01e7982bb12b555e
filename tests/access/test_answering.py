"""The simulator takes over from the models only if somebody said so, and both know what is in the sums."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import URL, insert

from gateway.access.answering import KeyMissing, turn_to
from gateway.store.engine import Store
from gateway.store.tables import COUNTS, USAGE, usage_days
from tests.access.desk import ROOT, Desk, opened


@pytest.fixture
async def desk(store_url: URL) -> AsyncIterator[Desk]:
    async with opened(store_url) as desk:
        yield desk


async def _count_a_call(store: Store) -> None:
    names = {"day": 1, "team_id": "team_a", "key_id": "key_a", "model": "m", "route": "chat"}
    async with store.writing() as connection:
        sums = dict.fromkeys((*COUNTS, *USAGE, "cost_microusd"), 1)
        await connection.execute(insert(usage_days).values({**names, **sums}))


async def test_where_the_models_answered_the_simulator_does_not_unless_somebody_says_so(desk: Desk) -> None:
    await turn_to(desk.store, "simulator", is_asked=False)
    await turn_to(desk.store, "models", is_asked=False)
    with pytest.raises(KeyMissing):
        await turn_to(desk.store, "simulator", is_asked=False)
    await turn_to(desk.store, "simulator", is_asked=True)
    with pytest.raises(KeyMissing):
        await turn_to(desk.store, "simulator", is_asked=False)


async def test_the_models_that_follow_the_simulator_are_told_of_its_calls_once(desk: Desk) -> None:
    assert not await turn_to(desk.store, "simulator", is_asked=False)
    assert not await turn_to(desk.store, "simulator", is_asked=False)
    await _count_a_call(desk.store)
    assert await turn_to(desk.store, "models", is_asked=False)
    assert not await turn_to(desk.store, "models", is_asked=False)


async def test_a_simulator_that_answered_nothing_is_not_worth_a_word(desk: Desk) -> None:
    await turn_to(desk.store, "simulator", is_asked=False)
    assert not await turn_to(desk.store, "models", is_asked=False)


async def test_each_turn_is_in_the_audit_log_once_however_many_start(store_url: URL, desk: Desk) -> None:
    stores = [Store(store_url) for _ in range(3)]
    await asyncio.gather(*(turn_to(store, "models", is_asked=False) for store in stores))
    await turn_to(desk.store, "simulator", is_asked=True)
    entries = (await desk.do.audit(ROOT)).items
    assert [(entry.action, entry.before, entry.after) for entry in entries] == [
        ("upstream.simulator", {"answered_by": "models"}, {"answered_by": "simulator"}),
        ("upstream.models", None, {"answered_by": "models"}),
    ]
    for store in stores:
        await store.close()
