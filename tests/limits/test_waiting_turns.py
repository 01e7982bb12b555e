"""Calls that wait for their turn: whose it is, when others give back what they had, and when somebody leaves."""

import asyncio
from collections import Counter

import pytest

from gateway.limits.rules import Decision, Demand
from tests.limits.household import MINUTE, SECOND, Household
from tests.limits.line import LOOK_US, AskedLimiter, Queue, names, ran
from tests.limits.memory_bench import MemoryBench

# Whose turn it is


async def test_calls_of_one_key_are_admitted_in_the_order_in_which_they_came(queue: Queue, house: Household) -> None:
    rule = house.rate(600, "tokens", burst=10)
    await queue.come("a0", {rule: 10})
    for number, amount in enumerate((10, 1, 5, 2, 10), start=1):
        await queue.come(f"a{number}", {rule: amount})
    for _ in range(40):
        await queue.advance(SECOND // 10)
    assert queue.admitted == names("a", 6)


async def test_a_newcomer_stands_behind_the_waiters_of_its_key_even_if_it_would_fit(
    queue: Queue, house: Household
) -> None:
    rule = house.rate(600, "tokens")
    await queue.come("a0", {rule: 550})
    await queue.come("a1", {rule: 100})
    task = await queue.come("a2", {rule: 10})
    assert not task.done()
    await queue.advance(5 * SECOND)
    await queue.advance(SECOND)
    assert queue.admitted == ["a0", "a1", "a2"]


async def test_a_batch_of_one_key_does_not_starve_another(queue: Queue, house: Household) -> None:
    shared = house.rate(60, burst=1, whose="endpoint")
    await queue.come_all(names("a", 101), {shared: 1})
    await queue.come("b0", {shared: 1})
    for _ in range(3):
        await queue.advance(SECOND)
    assert queue.admitted == ["a0", "a1", "b0", "a2"]


async def test_keys_are_served_in_turn(queue: Queue, house: Household) -> None:
    shared = house.rate(60, burst=1, whose="team")
    await queue.come_all([*names("a", 5), *names("b", 4), *names("c", 2)], {shared: 1})
    for _ in range(10):
        await queue.advance(SECOND)
    assert queue.admitted == ["a0", "a1", "b0", "c0", "a2", "b1", "c1", "a3", "b2", "a4", "b3"]


async def test_small_calls_cannot_keep_a_large_one_of_another_key_waiting(queue: Queue, house: Household) -> None:
    shared = house.rate(600, "tokens", whose="team")
    await queue.come("a0", {shared: 600})
    large = await queue.come("a1", {shared: 300})
    for second in range(30):
        assert not large.done()
        await queue.come(f"b{second}", {shared: 10})
        await queue.advance(SECOND)
    assert large.result()[0].admitted
    assert queue.admitted[:2] == ["a0", "a1"]
    await queue.advance(30 * SECOND)
    assert queue.admitted == ["a0", "a1", *names("b", 30)]


@pytest.mark.parametrize("waiting", ["a", "ab"])
async def test_a_key_whose_calls_may_not_wait_has_its_turn_and_no_more(
    queue: Queue, house: Household, waiting: str
) -> None:
    shared = house.rate(60, burst=1, whose="endpoint")
    await queue.come_all([name for key in waiting for name in names(key, 20)], {shared: 1})
    for number in range(12):
        await queue.bench.advance(SECOND)
        for each in range(3):  # its calls come before those that wait can be tried
            await queue.come(f"h{number}-{each}", {shared: 1}, max_wait_s=0)
        await queue.advance(0)
    turns = [name[0] for name in queue.admitted[1:13]]
    assert Counter(turns) == dict.fromkeys(waiting + "h", 12 // (len(waiting) + 1))
    refused = queue.calls["h0-1"][1].result()[0]
    assert (refused.admitted, refused.binding) == (False, shared)
    assert refused.retry_after_us > 0


async def test_a_key_over_its_own_limit_holds_nobody_up(queue: Queue, house: Household) -> None:
    own, shared = house.rate(60, burst=1), house.rate(600, whose="team")
    await queue.come_all(names("a", 5), {own: 1, shared: 1})
    tasks = [await queue.come(f"b{number}", {shared: 1}) for number in range(100)]
    assert all(task.result()[1] == 0 for task in tasks)


async def test_a_call_that_asks_for_nothing_stands_in_no_line(queue: Queue, house: Household) -> None:
    rule = house.rate(60, burst=1)
    await queue.come_all(names("a", 5), {rule: 1})
    assert (await queue.come("a9", {})).result()[0].admitted


async def test_shadow_rules_hold_nobody_up(queue: Queue, house: Household) -> None:
    rule, shadow = house.rate(60, burst=1), house.rate(60, burst=1, whose="team", shadow=True)
    await queue.come_all(names("a", 5), {rule: 1, shadow: 1})
    decision, waited_s = (await queue.come("b0", {shadow: 1})).result()
    assert (decision.exceeded, waited_s) == ((shadow,), 0.0)


# What others give back


async def test_a_slot_that_comes_free_goes_to_the_next_at_once(queue: Queue, house: Household) -> None:
    slots = house.slots(2, whose="team")
    await queue.come_all([*names("a", 4), *names("b", 2)], {slots: 1})
    assert queue.admitted == ["a0", "a1"]
    await queue.settle("a1")
    await queue.settle("a0")
    await queue.settle("b0")
    assert queue.admitted == ["a0", "a1", "a2", "b0", "a3"]
    assert queue.room.waiting == 1


async def test_tokens_that_are_given_back_are_used_at_once(queue: Queue, house: Household) -> None:
    rule = house.rate(600, "tokens")
    await queue.come("a0", {rule: 600})
    task = await queue.come("a1", {rule: 500})
    await queue.settle("a0", {rule.id: 100})
    assert task.result() == (task.result()[0], 0.0)
    assert task.result()[0].admitted


async def test_room_of_which_nobody_told_is_found_by_looking(queue: Queue, house: Household) -> None:
    slots = house.slots(1)
    await queue.come("a0", {slots: 1})
    task = await queue.come("a1", {slots: 1})
    queue.limiter.settle(queue.calls["a0"][0], {})
    await queue.advance(LOOK_US)
    assert task.result()[0].admitted


async def test_what_comes_free_while_a_call_asks_is_not_missed(bench: MemoryBench) -> None:
    limiter = AskedLimiter(bench.limiter)
    queue = Queue(limiter, bench)
    slots = queue.house.slots(1)
    await queue.come_all(["a0", "a1"], {slots: 1})
    limiter.answering.clear()
    await queue.advance(LOOK_US)
    await queue.settle("a0")
    assert queue.admitted == ["a0"]
    limiter.answering.set()
    await ran()
    assert queue.admitted == ["a0", "a1"]


async def test_when_the_first_has_waited_long_enough_the_next_is_tried_at_once(queue: Queue, house: Household) -> None:
    rule = house.rate(600, "tokens")
    slots = house.slots(1)
    await queue.come("a0", {slots: 1})
    await queue.come("a1", {slots: 1}, max_wait_s=1.1)
    await queue.come_all(["a2", "a3"], {rule: 1})
    await queue.advance(SECOND)
    await queue.advance(SECOND // 10)
    assert queue.admitted == ["a0", "a2", "a3"]


async def test_a_release_may_name_no_call(queue: Queue, house: Household) -> None:
    slots = house.slots(1)
    await queue.come_all(["a0", "a1"], {slots: 1})
    queue.limiter.settle(queue.calls["a0"][0], {})
    queue.room.released()
    await ran()
    assert queue.admitted == ["a0", "a1"]


async def test_looking_asks_for_nothing_before_its_time(bench: MemoryBench) -> None:
    queue, asked = Queue(bench.limiter, bench), 0
    admit_now = bench.limiter.admit_now

    def counted(demand: Demand) -> Decision | None:
        nonlocal asked
        asked += 1
        return admit_now(demand)

    bench.limiter.admit_now = counted  # type: ignore[method-assign]
    rules = queue.house.rate(6, burst=1), queue.house.slots(1)
    await queue.come_all([*names("a", 50), *names("b", 50)], dict.fromkeys(rules, 1))
    assert asked == 2
    for _ in range(100):
        queue.room.look()
        queue.room.released(queue.house.call({queue.house.rate(1): 1}))
    assert asked == 2
    for _, task in queue.calls.values():
        task.cancel()
    await ran()


# Who leaves


async def test_a_call_whose_client_leaves_is_out_of_the_line_and_charged_nothing(
    queue: Queue, house: Household
) -> None:
    rule = house.rate(60, burst=1)
    await queue.come_all(names("a", 4), {rule: 1})
    await queue.leave("a1")
    await queue.leave("a2")
    assert queue.room.waiting == 1
    await queue.advance(SECOND)
    assert queue.admitted == ["a0", "a3"]


async def test_when_the_first_leaves_those_it_held_up_are_tried_at_once(queue: Queue, house: Household) -> None:
    shared = house.rate(600, "tokens", whose="team")
    await queue.come("a0", {shared: 500})
    await queue.come("a1", {shared: 600})
    await queue.come_all(["a2", "b0"], {shared: 50})
    await queue.leave("a1")
    assert sorted(queue.admitted) == ["a0", "a2", "b0"]


@pytest.mark.parametrize("rounds", range(6))
async def test_a_call_that_leaves_in_the_moment_of_its_admission_gives_it_back(
    queue: Queue, house: Household, rounds: int
) -> None:
    slots = house.slots(1)
    await queue.come_all(["a0", "a1", "b0"], {slots: 1})
    demand, leaving = queue.calls["a1"][0], queue.calls["a1"][1]
    queue.limiter.settle(queue.calls["a0"][0], {})
    queue.room.released(queue.calls["a0"][0])
    for _ in range(rounds):
        await asyncio.sleep(0)
    if not leaving.done():
        leaving.cancel()
    await ran()
    if "a1" in queue.admitted:
        queue.limiter.settle(demand, {})
        queue.room.released(demand)
        await ran()
    assert queue.admitted[-1] == "b0"
    await queue.settle("b0")
    assert await house.left(slots) == [1]


async def test_a_call_that_has_just_left_is_not_tried_any_more(queue: Queue, house: Household) -> None:
    slots = house.slots(1)
    await queue.come_all(["a0", "a1", "b0"], {slots: 1})
    queue.calls["a1"][1].cancel()
    await queue.settle("a0")
    assert queue.admitted == ["a0", "b0"]


async def test_a_call_that_leaves_before_it_has_begun_to_wait_stays_in_no_line(queue: Queue, house: Household) -> None:
    rule = house.rate(60, burst=1)
    await queue.come_all(["a0", "a1"], {rule: 1})
    for rounds in range(4):
        task = asyncio.create_task(queue.room.admit(house.call({rule: 1}), whose="a", max_wait_s=30))
        for _ in range(rounds):
            await asyncio.sleep(0)
        task.cancel()
        await ran()
        assert task.cancelled()
        assert queue.room.waiting == 1
    await queue.advance(MINUTE)
    assert await house.left(rule) == [0]
    assert queue.admitted == ["a0", "a1"]
