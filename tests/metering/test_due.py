"""What is due is a row from its call's record to its usage's, and is asked for at growing intervals, by one node."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import URL, select

from gateway.call import Due, Usage
from gateway.metering.due import GIVE_UP_AFTER_S, DueResponses
from gateway.metering.ledger_drain import Drain
from gateway.metering.ledger_line import Line, encode
from gateway.metering.ledger_queries import LedgerQueries
from gateway.metering.ledger_query import UsageQuery
from gateway.metering.ledger_retention import Retention
from gateway.metering.rollups import Days
from gateway.store.engine import Store
from gateway.store.tables import due_responses
from tests.metering.ledger import NOON_S, day_rows, record, rows, tags

RESERVED = {"team_engines/budget/total": 10_023}


@pytest.fixture
async def store(store_url: URL) -> AsyncIterator[Store]:
    made = Store(store_url)
    yield made
    await made.close()


def due(number: int, **changed: Any) -> bytes:
    waits = Due(f"resp_{number}", RESERVED)
    return encode(record(f"req_{number}", usage=None, usage_source="due", cost_microusd=0, due=waits, **changed))


def late(number: int, **changed: Any) -> bytes:
    return encode(record(f"late_resp_{number}", **changed))


async def waiting(store: Store) -> list[str]:
    async with store.reading() as connection:
        return sorted((await connection.execute(select(due_responses.c.response_id))).scalars())


async def test_what_is_due_ends_with_the_record_of_its_usage_which_says_what_was_reserved(store: Store) -> None:
    drain = Drain(store, Days())
    told: list[tuple[list[str], dict[str, Any]]] = []
    drain.written = lambda new, reserved: told.append(([line.id for line in new], dict(reserved)))
    await drain.write([due(1), due(2), encode(record("req_3"))])
    assert await waiting(store) == ["resp_1", "resp_2"]
    await drain.write([late(2), late(3)])
    assert told == [
        (["req_1", "req_2", "req_3"], {}),
        (["late_resp_2", "late_resp_3"], {"late_resp_2": RESERVED}),
    ]
    assert await waiting(store) == ["resp_1"]


@pytest.mark.parametrize("first", [0, 1], ids=["together", "later"])
async def test_usage_is_kept_and_priced_under_the_model_that_was_asked_for(store: Store, first: int) -> None:
    drain = Drain(store, Days(), cost_of=lambda model, usage: usage.total_tokens if model == "m" else None)
    told: list[Line] = []
    drain.written = lambda new, _: told.extend(new)
    of_snapshot = {"model": "m-2026-10-01", "cost_microusd": None}
    lines = [due(1, model="m"), late(1, **of_snapshot), late(2, **of_snapshot), due(3, model=None), late(3, model="n")]
    await drain.write(lines[:first])
    await drain.write(lines)
    kept = {"late_resp_1": ("m", 7), "late_resp_2": ("m-2026-10-01", None), "late_resp_3": ("n", 12)}
    assert {line.id: (line.model, line.cost_microusd) for line in told if line.id in kept} == kept
    found = await rows(store)
    assert {each: (found[each]["model"], found[each]["cost_microusd"]) for each in kept} == kept
    sums = {row["model"]: (row["cost_microusd"], row["unpriced_calls"]) for row in await day_rows(store)}
    assert sums == {"": (0, 0), "m": (7, 0), "m-2026-10-01": (0, 1), "n": (12, 0)}


@pytest.mark.parametrize("first", [0, 2], ids=["together", "later"])
async def test_usage_is_found_under_the_tags_of_the_call_that_made_the_response(store: Store, first: int) -> None:
    drain = Drain(store, Days())
    own = {"feature": "search", "customer": "42"}
    lines = [due(1, tags=own), due(2, model=None), late(1), late(2), late(3)]
    await drain.write(lines[:first])
    assert (await drain.write(lines)).new == 5 - first
    await drain.write(lines)
    assert await tags(store) == {"req_1": own, "late_resp_1": own}
    since_us = int((NOON_S - 60) * 1e6)
    query = UsageQuery(since_us=since_us, until_us=since_us + 120_000_000, group_by=("tag:feature",))
    page = await LedgerQueries(store, Days()).usage(query)
    found = {each.group["tag:feature"]: (each.sums.calls, each.sums.total_tokens) for each in page.groups}
    assert found == {"search": (1, 7), None: (1, 14)}


async def test_one_answer_of_several_counts_the_first_that_knows_what_was_used(store: Store) -> None:
    drain = Drain(store, Days())
    unknown: dict[str, Any] = {"usage": None, "usage_source": "unknown", "cost_microusd": None}
    other: dict[str, Any] = {"usage": Usage(1, 1, 2), "cost_microusd": 1}
    await drain.write([late(1), late(1, **unknown), late(1, **other)])
    await drain.write([late(2, **unknown), late(2), late(2, **other)])
    await drain.write([late(3, **unknown)])
    await drain.write([late(3)])  # too late: the sums have it already
    kept = {each: (row["usage_source"], row["total_tokens"]) for each, row in (await rows(store)).items()}
    counted = "reported", 7
    assert kept == {"late_resp_1": counted, "late_resp_2": counted, "late_resp_3": ("unknown", None)}
    (sums,) = await day_rows(store)
    assert (sums["total_tokens"], sums["unknown_calls"], sums["cost_microusd"]) == (14, 1, 24)


async def test_lines_that_come_again_or_together_leave_nothing_due(store: Store) -> None:
    drain = Drain(store, Days())
    await drain.write([due(1), late(1), due(2)])
    assert await waiting(store) == ["resp_2"]
    await drain.write([due(1), due(2), late(2)])
    assert await waiting(store) == []


async def test_a_record_that_came_before_what_it_is_of_ends_that_when_it_comes_again(store: Store) -> None:
    drain = Drain(store, Days())
    assert (await drain.write([late(1)])).new == 1
    await drain.write([due(1)])
    assert (await drain.write([late(1)])).new == 0
    assert await waiting(store) == []


async def test_nodes_that_hear_the_same_in_another_order_do_not_keep_each_other(store_url: URL) -> None:
    stores = [Store(store_url) for _ in range(4)]
    drains = [Drain(each, Days()) for each in stores]
    numbers = range(50)
    await drains[0].write([due(number) for number in numbers])
    orders = (numbers, numbers[::-1], numbers, numbers[::-1])
    written = await asyncio.gather(
        *(drain.write([late(number) for number in order]) for drain, order in zip(drains, orders, strict=True))
    )
    assert sum(each.new for each in written) == 50
    assert await waiting(stores[0]) == []
    for each in stores:
        await each.close()


async def test_upstream_is_asked_after_a_minute_and_then_after_twice_as_long_up_to_ten(store: Store) -> None:
    now_s = NOON_S
    responses = DueResponses(store, now=lambda: now_s)
    await Drain(store, Days(), due_after_s=60).write([due(1, model="openai/gpt-5.2")])
    asked_after_s = []
    for _ in range(6):
        while not (claimed := await responses.claim()):
            now_s += 10
        asked_after_s.append(now_s - NOON_S)
        assert [(each.response_id, each.key_id, each.model) for each in claimed] == [
            ("resp_1", "key_ada", "openai/gpt-5.2")
        ]
    pauses = [later - sooner for sooner, later in zip([0, *asked_after_s], asked_after_s, strict=False)]
    assert pauses == [60, 120, 240, 480, 600, 600]
    assert responses.waiting == 1


async def test_what_one_node_asks_for_no_other_one_does(store_url: URL) -> None:
    stores = [Store(store_url) for _ in range(3)]
    await Drain(stores[0], Days()).write([due(number) for number in range(25)])
    nodes = [DueResponses(each, now=lambda: NOON_S + 60) for each in stores]
    claimed = [each.response_id for some in await asyncio.gather(*(node.claim() for node in nodes)) for each in some]
    assert len(claimed) == len(set(claimed)) == 25
    for each in stores:
        await each.close()


async def test_it_is_given_up_after_a_day_if_it_was_asked_for_often_enough(store: Store) -> None:
    now_s = NOON_S + GIVE_UP_AFTER_S
    responses = DueResponses(store, now=lambda: now_s)
    await Drain(store, Days()).write([due(1)])
    is_last = []
    for _ in range(9):
        is_last += [each.is_last for each in await responses.claim()]
        now_s += 600
    assert is_last == [False] * 7 + [True] * 2


async def test_upstream_may_not_know_it_for_ten_minutes_nor_when_it_is_asked_for_the_first_time(store: Store) -> None:
    now_s = NOON_S
    responses = DueResponses(store, now=lambda: now_s)
    await Drain(store, Days()).write([due(1), due(2, started_at_s=NOON_S - 3_600)])
    is_new: dict[str, list[bool]] = {"resp_1": [], "resp_2": []}
    for after_s in (60, 180, 420, 600, 1_200):
        now_s = NOON_S + after_s
        for each in await responses.claim():
            is_new[each.response_id].append(each.is_new)
    assert is_new == {"resp_1": [True, True, True, False], "resp_2": [True, False, False, False]}


async def test_what_nobody_ever_asked_for_is_forgotten_at_last(store: Store) -> None:
    await Drain(store, Days()).write([due(1), due(2, started_at_s=NOON_S + 86_400)])
    await Retention(store, Days(), calls_days=0, sums_days=0, now=lambda: NOON_S + 400.5 * 86_400).prune()
    assert await waiting(store) == ["resp_2"]
