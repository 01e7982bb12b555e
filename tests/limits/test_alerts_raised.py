"""A budget that is raised in mid-window: what is no longer spent is told again when it is, by whichever node, once."""

import asyncio

from sqlalchemy import URL

from gateway.limits.rules import Rule
from gateway.store.engine import Store
from tests.limits.receiver import RULE, Clock, Node, due, percents, told
from tests.support.wire import Stall, WireUpstream, reply


def raised(limit: int) -> Rule:
    """`RULE` with another limit."""
    return Rule(RULE.id, "budget", "key", "month", limit, resets_at_s=RULE.resets_at_s)


def limit_4000(receiver: WireUpstream) -> list[int]:
    """The parts that were told of a limit of 4,000."""
    return [event["data"]["percent"] for event in told(receiver) if event["data"]["limit_microusd"] == 4_000]


async def test_after_a_raise_what_is_no_longer_spent_is_told_again_and_the_rest_is_not(
    store: Store, clock: Clock
) -> None:
    async with WireUpstream() as receiver:
        node = Node(store, receiver.url, clock)
        await node.spent(RULE, 990)
        node.spend.note_refusal(RULE)
        await node.spent(RULE, 0)
        assert percents(receiver) == [50, 80, 100]
        await node.spent(raised(1_200), 10)
        assert percents(receiver) == [50, 80, 100]
        await node.spent(raised(1_200), 200)
        assert percents(receiver) == [50, 80, 100, 100]
        steps = [(799, []), (1, [50]), (1_199, [50]), (1, [50, 80]), (800, [50, 80, 100]), (5_000, [50, 80, 100])]
        for amount, expected in steps:
            await node.spent(raised(4_000), amount)
            assert sorted(limit_4000(receiver)) == expected
        assert told(receiver)[-1]["data"]["spent_microusd"] == 4_000
        await node.alerts.close()


async def test_a_call_that_began_under_another_limit_tells_nothing_again(store: Store, clock: Clock) -> None:
    async with WireUpstream() as receiver:
        node, other = Node(store, receiver.url, clock), Node(store, receiver.url, clock)
        await node.spent(RULE, 1_000)
        for _ in range(3):
            await node.spent(raised(4_000), 10)
            await node.spent(RULE, 10)
            await other.spent(RULE, 10)
            await other.spent(raised(4_000), 10)
        assert percents(receiver) == [50, 80, 100]
        await other.spent(raised(4_000), 1_000)
        for each in (node, other):
            await each.spent(RULE, 10)
            await each.spent(raised(4_000), 10)
        assert percents(receiver) == [50, 50, 80, 100]
        for each in (node, other):
            await each.alerts.close()


async def test_a_limit_that_is_lowered_and_raised_again_tells_what_is_reached_anew(store: Store, clock: Clock) -> None:
    async with WireUpstream() as receiver:
        node = Node(store, receiver.url, clock)
        await node.spent(raised(4_000), 2_100)
        assert percents(receiver) == [50]
        await node.spent(RULE, 10)
        assert percents(receiver) == [50, 80, 100]
        await node.spent(raised(4_000), 2_000)
        assert percents(receiver) == [50, 80, 80, 100, 100]
        await node.alerts.close()


async def test_an_alert_of_a_limit_that_was_raised_since_and_could_not_be_sent_is_told_as_it_is_now(
    store: Store, clock: Clock
) -> None:
    async with WireUpstream([Stall()], [Stall()], [Stall()], reply()) as receiver:
        node = Node(store, receiver.url, clock, timeout_s=0.1)
        await node.spent(RULE, 1_000)
        assert len(receiver.requests) == 3
        clock.now_s += 1
        await node.spent(raised(4_000), 1_000)
        assert told(receiver)[-1]["data"]["limit_microusd"] == 4_000
        assert (await due(store))[50] is None
        assert len(receiver.requests) == 4
        await node.alerts.close()


async def test_nodes_that_spend_at_once_after_a_raise_tell_each_part_once_more(store_url: URL, clock: Clock) -> None:
    stores = [Store(store_url) for _ in range(3)]
    rules = [Rule(f"team_1/key_{number}/budget/total", "budget", "key", "total", 1_000) for number in range(10)]
    wide = [Rule(rule.id, "budget", "key", "total", 4_000) for rule in rules]
    async with WireUpstream() as receiver:
        nodes = [Node(store, receiver.url, clock) for store in stores]
        for some, amount, rounds in ((rules, 100, 4), (wide, 500, 3)):
            for _ in range(rounds):
                for node in nodes:
                    for rule in some:
                        node.spend.note(rule, amount)
                await asyncio.gather(*(node.spend.flush() for node in nodes))
                while sum(await asyncio.gather(*(node.alerts.send_due() for node in nodes))):
                    pass
        for node in nodes:
            await node.alerts.close()
    assert percents(receiver) == [50] * 20 + [80] * 20 + [100] * 20
    assert sorted(limit_4000(receiver)) == [50] * 10 + [80] * 10 + [100] * 10
    for store in stores:
        await store.close()
