"""A webhook is told of each part of a budget that is spent: once a window, signed, and never in a call's way."""

import asyncio
import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL, select

from gateway.limits.alerts import Reached, sign
from gateway.limits.rules import Rule
from gateway.limits.spend import KEPT_S, Spend
from gateway.store.engine import Store
from gateway.store.tables import alerts
from tests.access.rows import add_key, add_team
from tests.limits.receiver import OF_TEAM, RULE, SECRET, Clock, Node, due, percents, told
from tests.support.wire import WireUpstream

ROOT = Path(__file__).parents[2]


async def test_each_part_is_told_when_it_is_spent_and_once(store: Store, clock: Clock) -> None:
    async with WireUpstream() as receiver:
        node = Node(store, receiver.url, clock)
        steps = [(499, []), (1, [50]), (299, [50]), (1, [50, 80]), (199, [50, 80]), (1, [50, 80, 100])]
        for amount, expected in [*steps, (5_000, [50, 80, 100])]:
            await node.spent(RULE, amount)
            assert percents(receiver) == expected
        assert set((await due(store)).values()) == {None}
        await node.alerts.close()


async def test_what_is_told_names_team_and_key_and_says_how_much(store: Store, clock: Clock) -> None:
    await add_team(store)
    await add_key(store)
    async with WireUpstream() as receiver:
        node = Node(store, receiver.url, clock)
        await node.spent(RULE, 612)
        await node.spent(OF_TEAM, 1_000)
        await node.alerts.close()
    key, team = told(receiver)
    assert re.fullmatch("alert_[0-9a-f]{32}", key.pop("id"))
    assert key == {
        "type": "budget.threshold_reached",
        "created_at": clock.now_s,
        "data": {
            "team": {"id": "team_1", "name": "TEAM_1"},
            "key": {"id": "key_1", "name": "KEY_1"},
            "period": "month",
            "window": "month/2026-11",
            "percent": 50,
            "reason": "spent",
            "limit_microusd": 1_000,
            "spent_microusd": 612,
            "resets_at": 1_796_083_200,
            "enforced": True,
        },
    }
    assert team["data"] == {
        "team": {"id": "team_1", "name": "TEAM_1"},
        "key": None,
        "period": "total",
        "window": "total",
        "percent": 50,
        "reason": "spent",
        "limit_microusd": 2_000,
        "spent_microusd": 1_000,
        "resets_at": None,
        "enforced": False,
    }


async def test_names_that_are_gone_are_null(sqlite: Store, clock: Clock) -> None:
    async with WireUpstream() as receiver:
        node = Node(sqlite, receiver.url, clock)
        await node.spent(RULE, 500)
        await node.alerts.close()
    assert told(receiver)[0]["data"]["key"] == {"id": "key_1", "name": None}


async def test_it_is_a_json_post_to_the_settings_url_signed_as_the_page_says(sqlite: Store) -> None:
    async with WireUpstream() as receiver:
        node = Node(sqlite, receiver.url, time.time)
        await node.spent(RULE, 500)
        await node.alerts.close()
    (request,) = receiver.requests
    assert (request.method, request.target) == (b"POST", b"/hook?token=s3cret")
    assert request.header(b"content-type") == b"application/json"
    signature = (request.header(b"x-gateway-signature") or b"").decode()
    assert signature == sign(SECRET, int(signature[2:].partition(",")[0]), request.body)
    shown = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs/prices.md").read_text("utf-8"), re.MULTILINE | re.DOTALL)
    page: dict[str, Any] = {}
    exec(shown[0], page)
    assert page["is_ours"](SECRET, signature, request.body)
    assert not page["is_ours"]("another-secret", signature, request.body)
    assert not page["is_ours"](SECRET, signature, request.body + b" ")
    late = sign(SECRET, int(time.time()) - 301, request.body)
    assert not page["is_ours"](SECRET, late, request.body)


def test_the_page_shows_every_member_of_what_is_told() -> None:
    shown = re.findall(r"^```json\n(.*?)^```", (ROOT / "docs/prices.md").read_text("utf-8"), re.MULTILINE | re.DOTALL)
    event = json.loads(shown[0])
    assert list(event) == ["id", "type", "created_at", "data"]
    assert list(event["data"]) == [
        *("team", "key", "period", "window", "percent", "reason"),
        *("limit_microusd", "spent_microusd", "resets_at", "enforced"),
    ]


async def test_nodes_that_spend_and_send_at_once_tell_each_part_once(store_url: URL, clock: Clock) -> None:
    stores = [Store(store_url) for _ in range(3)]
    rules = [Rule(f"team_1/key_{number}/budget/total", "budget", "key", "total", 1_000) for number in range(10)]
    async with WireUpstream() as receiver:
        nodes = [Node(store, receiver.url, clock) for store in stores]
        for _ in range(4):
            for node in nodes:
                for rule in rules:
                    node.spend.note(rule, 100)
            await asyncio.gather(*(node.spend.flush() for node in nodes))
            while sum(await asyncio.gather(*(node.alerts.send_due() for node in nodes))):
                pass
        for node in nodes:
            await node.alerts.close()
    assert percents(receiver) == [50] * 10 + [80] * 10 + [100] * 10
    assert len({event["id"] for event in told(receiver)}) == 30
    for store in stores:
        await store.close()


async def test_parts_that_are_reached_together_are_all_told(sqlite: Store, clock: Clock) -> None:
    async with WireUpstream() as receiver:
        node = Node(sqlite, receiver.url, clock)
        await node.spent(RULE, 3_000)
        await node.alerts.close()
    assert percents(receiver) == [50, 80, 100]


async def test_a_refusal_for_want_of_room_counts_as_spent_and_is_told_once(store: Store, clock: Clock) -> None:
    async with WireUpstream() as receiver:
        node = Node(store, receiver.url, clock)
        await node.spent(RULE, 990)
        for _ in range(3):
            node.spend.note_refusal(RULE)
            await node.spent(RULE, 0)
        assert percents(receiver) == [50, 80, 100]
        assert [event["data"]["reason"] for event in told(receiver)] == ["spent", "spent", "call_refused"]
        assert told(receiver)[-1]["data"]["spent_microusd"] == 990
        await Node(store, receiver.url, clock).spent(RULE, 20)
        assert len(receiver.requests) == 3
        await node.alerts.close()


async def test_a_call_that_is_larger_than_what_is_left_tells_nothing_while_most_is_there(
    store: Store, clock: Clock
) -> None:
    async with WireUpstream() as receiver:
        node = Node(store, receiver.url, clock)
        node.spend.note_refusal(RULE)
        await node.spent(RULE, 0)
        await node.spent(RULE, 799)
        node.spend.note_refusal(RULE)
        await node.spent(RULE, 0)
        assert percents(receiver) == [50]
        await node.spent(RULE, 1)
        node.spend.note_refusal(RULE)
        await node.spent(RULE, 0)
        assert [(event["data"]["percent"], event["data"]["reason"]) for event in told(receiver)] == [
            *[(50, "spent"), (80, "spent"), (100, "call_refused")],
        ]
        await node.alerts.close()


async def test_refusals_that_tell_nothing_leave_the_true_end_to_be_told(store: Store, clock: Clock) -> None:
    async with WireUpstream() as receiver:
        node = Node(store, receiver.url, clock)
        node.spend.note_refusal(RULE)
        await node.spent(RULE, 0)
        await node.spent(RULE, 1_000)
        assert [event["data"]["reason"] for event in told(receiver)] == ["spent"] * 3
        await node.alerts.close()


async def test_refusals_while_nothing_is_spent_are_written_once(store: Store, clock: Clock) -> None:
    async with WireUpstream() as receiver:
        node = Node(store, receiver.url, clock)
        for _ in range(3):
            node.spend.note_refusal(RULE)
            assert len(node.spend) <= 1
            await node.spent(RULE, 0)
        node.spend.note_refusal(RULE)
        assert len(node.spend) == 0
        await node.alerts.close()


async def test_alerts_that_are_switched_on_in_mid_window_tell_what_is_spent_already(store: Store, clock: Clock) -> None:
    before = Spend(store, now=clock)
    before.note(RULE, 900)
    await before.flush()
    async with WireUpstream() as receiver:
        node = Node(store, receiver.url, clock)
        await node.spent(RULE, 1)
        assert percents(receiver) == [50, 80]
        await node.alerts.close()


async def test_a_limit_that_is_lowered_in_mid_window_is_told_of(store: Store, clock: Clock) -> None:
    wide = Rule(RULE.id, "budget", "key", "month", 10_000)
    async with WireUpstream() as receiver:
        node = Node(store, receiver.url, clock)
        await node.spent(wide, 900)
        assert percents(receiver) == []
        await node.spent(RULE, 1)
        assert percents(receiver) == [50, 80]
        await node.alerts.close()


async def test_after_a_reset_each_part_is_told_again(store: Store, clock: Clock) -> None:
    async with WireUpstream() as receiver:
        node, other = Node(store, receiver.url, clock), Node(store, receiver.url, clock)
        await node.spent(RULE, 900)
        node.spend.note_refusal(RULE)
        await node.spent(RULE, 0)
        await other.spent(RULE, 1)
        await node.spend.reset([RULE])
        assert percents(receiver) == [50, 80, 100]
        await other.spent(RULE, 900)
        node.spend.note_refusal(RULE)
        await node.spent(RULE, 0)
        assert percents(receiver) == [50, 50, 80, 80, 100, 100]
        for each in (node, other):
            await each.alerts.close()


async def test_alerts_of_windows_that_never_end_are_kept_and_others_deleted(sqlite: Store, clock: Clock) -> None:
    async with WireUpstream() as receiver:
        node = Node(sqlite, receiver.url, clock)
        await node.spent(RULE, 1_000)
        await node.spent(OF_TEAM, 1_000)
        clock.now_s = 1_796_083_200 + KEPT_S + 1
        await node.spend.tidy()
        async with sqlite.reading() as connection:
            assert list((await connection.execute(select(alerts.c.subject_id))).scalars()) == ["team_1"]
        await Node(sqlite, receiver.url, clock).spent(OF_TEAM, 1)
        await node.alerts.close()
    assert percents(receiver) == [50, 50, 80, 100]


@pytest.mark.parametrize(
    ("limit", "since", "after", "expected"),
    [
        (1_000, -1, 499, set()),
        (1_000, 0, 500, {50}),
        (1_000, 500, 799, set()),
        (1_000, 499, 800, {50, 80}),
        (1, 0, 1, {50, 80, 100}),
        (3, 1, 2, {50}),
        (3, 2, 3, {80, 100}),
    ],
)
def test_a_part_is_reached_with_its_last_micro_dollar(limit: int, since: int, after: int, expected: set[int]) -> None:
    rule = Rule("team_1/budget/total", "budget", "team", "total", limit)
    assert Reached(rule, since, after).percents(since) == expected
