"""Calls that wait for their turn. Time stands still but for what a test lets pass."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from gateway.errors import StoreUnavailable
from gateway.limits.connection import opened
from gateway.limits.limiter import Limiter
from gateway.limits.memory import MemoryLimiter
from gateway.limits.redis import RedisLimiter
from gateway.limits.redis_options import Timing
from gateway.limits.rules import Decision, Demand
from gateway.limits.waiting import WaitingRoom
from tests.limits.household import MINUTE, SECOND, Household
from tests.limits.line import LOOK_US, AskedLimiter, Queue, names, ran
from tests.limits.memory_bench import MemoryBench
from tests.limits.servers import KINDS, shared_server

# Whether to wait


async def test_a_call_that_fits_does_not_wait(queue: Queue, house: Household) -> None:
    task = await queue.come("a", {house.rate(60): 1})
    decision, waited_s = task.result()
    assert (decision.admitted, waited_s) == (True, 0.0)


async def test_a_call_that_may_not_wait_is_refused_at_once(queue: Queue, house: Household) -> None:
    rule = house.rate(60, burst=1)
    await queue.come("a0", {rule: 1})
    decision, waited_s = (await queue.come("a1", {rule: 1}, max_wait_s=0)).result()
    assert (decision.admitted, decision.retry_after_us, waited_s) == (False, SECOND, 0.0)


async def test_a_slot_that_another_node_gave_back_just_now_is_had_at_once(bench: MemoryBench) -> None:
    queue = Queue(AskedLimiter(bench.limiter), bench)
    slots = queue.house.slots(1)
    elsewhere = await queue.house.admit({slots: 1})
    first, second = [await queue.come(name, {slots: 1}) for name in ("a1", "a2")]
    bench.limiter.settle(elsewhere, {})
    await queue.advance(10_000)
    assert (first.result()[0].admitted, second.done()) == (True, False)
    await queue.leave("a2")


@pytest.mark.parametrize("dimension", ["requests", "tokens"])
async def test_a_call_waits_until_its_rate_has_gained_enough(queue: Queue, house: Household, dimension: str) -> None:
    rule = house.rate(60, burst=1) if dimension == "requests" else house.rate(600, "tokens", burst=10)
    amount = rule.burst
    await queue.come("a0", {rule: amount})
    task = await queue.come("a1", {rule: amount})
    await queue.advance(SECOND - 1)
    assert not task.done()
    assert queue.room.waiting == 1
    await queue.advance(1)
    decision, waited_s = task.result()
    assert (decision.admitted, waited_s) == (True, 1.0)


async def test_a_call_that_fits_as_its_patience_ends_is_admitted(queue: Queue, house: Household) -> None:
    rule = house.rate(60, burst=1)
    await queue.come("a0", {rule: 1})
    task = await queue.come("a1", {rule: 1}, max_wait_s=1)
    await queue.advance(SECOND)
    assert task.result()[0].admitted


async def test_a_call_that_would_wait_in_vain_is_refused_at_once_and_told_when(queue: Queue, house: Household) -> None:
    rule = house.rate(60, burst=1)
    await queue.come("a0", {rule: 1})
    decision, waited_s = (await queue.come("a1", {rule: 1}, max_wait_s=0.999)).result()
    assert (decision.admitted, decision.binding, waited_s) == (False, rule, 0.0)
    await queue.bench.advance(decision.retry_after_us)
    assert (await queue.come("a2", {rule: 1}, max_wait_s=0)).result()[0].admitted


async def test_nobody_waits_for_money(queue: Queue, house: Household) -> None:
    budget, slots = house.budget(100, resets_in_s=30), house.slots(1)
    await queue.come("a0", {budget: 100, slots: 1})
    decision, waited_s = (await queue.come("a1", {budget: 1, slots: 1})).result()
    assert (decision.binding, decision.admitted, waited_s) == (budget, False, 0.0)


async def test_who_stands_behind_others_is_refused_at_once_if_it_would_not_fit_even_alone(
    queue: Queue, house: Household
) -> None:
    rule = house.rate(600, "tokens")
    await queue.come("a0", {rule: 600})
    await queue.come("a1", {rule: 10})
    decision, waited_s = (await queue.come("a2", {rule: 350}, max_wait_s=30)).result()
    assert (decision.admitted, decision.binding, decision.retry_after_us) == (False, rule, 35 * SECOND)
    assert waited_s == 0
    assert not (await queue.come("a3", {rule: 290}, max_wait_s=30)).done()


async def test_a_call_is_refused_as_soon_as_it_has_become_hopeless(queue: Queue, house: Household) -> None:
    rule = house.rate(600, "tokens")
    await queue.come("a0", {rule: 600})
    task = await queue.come("a1", {rule: 100}, max_wait_s=20)
    await queue.advance(SECOND)
    assert not task.done()
    await queue.settle("a0", {rule.id: 900})
    decision, waited_s = task.result()
    assert (decision.admitted, decision.retry_after_us, waited_s) == (False, 39 * SECOND, 1.0)


async def test_nobody_waits_longer_than_it_may(queue: Queue, house: Household) -> None:
    slots = house.slots(1)
    await queue.come("a0", {slots: 1})
    tasks = [await queue.come(name, {slots: 1}, max_wait_s=10) for name in ("a1", "a2", "b1")]
    await queue.advance(10 * SECOND - 1)
    assert not any(task.done() for task in tasks)
    await queue.advance(1)
    for task in tasks:
        decision, waited_s = task.result()
        assert (decision.admitted, decision.binding, decision.retry_after_us) == (False, slots, SECOND)
        assert waited_s == 10
    assert queue.room.waiting == 0


async def test_who_waited_behind_others_for_nothing_is_told_of_no_limit_of_theirs(
    queue: Queue, house: Household
) -> None:
    own, shared = house.slots(1), house.rate(600, "tokens", whose="team")
    await queue.come("a0", {own: 1, shared: 600})
    await queue.come("a1", {own: 1, shared: 600})
    task = await queue.come("b0", {shared: 10}, max_wait_s=30)
    await queue.advance(30 * SECOND)
    decision = task.result()[0]
    assert (decision.admitted, decision.binding) == (False, shared)
    assert [standing.rule for standing in decision.standings] == [shared]
    assert decision.retry_after_us > 0


# What cannot be


async def test_no_more_wait_than_there_is_room_for(bench: MemoryBench) -> None:
    queue = Queue(bench.limiter, bench, most_waiters=3)
    rule, other = queue.house.rate(60, burst=1), queue.house.slots(1)
    await queue.come("c0", {other: 1})
    await queue.come_all(names("a", 4), {rule: 1})
    for name, charges in (("a9", {rule: 1}), ("b9", {rule: 1}), ("c9", {other: 1})):
        decision, waited_s = (await queue.come(name, charges)).result()
        assert (decision.admitted, decision.binding, waited_s) == (False, next(iter(charges)), 0.0)
        assert decision.retry_after_us == SECOND
    assert queue.room.waiting == 3
    await queue.advance(SECOND)
    assert not (await queue.come("a8", {rule: 1})).done()
    await queue.advance(MINUTE - 1)
    assert queue.admitted == ["c0", *names("a", 4)][: len(queue.admitted)]
    for _, task in queue.calls.values():
        task.cancel()
    await ran()


async def test_one_key_takes_no_more_than_its_share_of_the_places(bench: MemoryBench) -> None:
    queue = Queue(bench.limiter, bench)
    queue.room = WaitingRoom(bench.limiter, clock=bench.now_us, most_waiters=4, most_of_a_key=2)
    rule, shared = queue.house.rate(60, burst=1), queue.house.slots(1, whose="team")
    await queue.come("z0", {shared: 1})
    await queue.come_all(names("a", 3), {rule: 1})
    for charges in ({rule: 1}, {shared: 1}):
        decision, waited_s = (await queue.come("a9", charges)).result()
        assert (decision.admitted, decision.binding, waited_s) == (False, next(iter(charges)), 0.0)
    await queue.come_all(names("b", 2), {shared: 1})
    assert queue.room.waiting == 4
    await queue.leave("b1")
    assert (await queue.come("b2", {rule: 1}, max_wait_s=0)).done()
    assert not (await queue.come("c0", {shared: 1})).done()
    for _, task in queue.calls.values():
        task.cancel()
    await ran()


async def test_while_anybody_waits_somebody_may_look_four_times_a_second(queue: Queue, house: Household) -> None:
    looks, slots = [], house.slots(1)
    queue.room.on_look = lambda: looks.append(queue.room.waiting)
    await queue.come_all(["a0", "a1", "b0"], {slots: 1})
    assert looks == []
    for _ in range(3):
        await queue.advance(LOOK_US // 2)
        await queue.advance(LOOK_US - LOOK_US // 2)
    assert looks == [2, 2, 2]


async def test_whoever_looks_may_send_calls_away(queue: Queue, house: Household) -> None:
    slots = house.slots(1)
    await queue.come_all(["a0", "a1", "b0"], {slots: 1})
    leaving = queue.calls["a1"][1]

    def send_away() -> None:
        leaving.cancel()

    queue.room.on_look = send_away
    await queue.advance(LOOK_US)
    assert queue.room.waiting == 1
    await queue.settle("a0")
    assert queue.admitted == ["a0", "b0"]


async def test_a_limiter_that_goes_away_fails_those_that_it_is_asked_for_and_loses_nobody(bench: MemoryBench) -> None:
    limiter = AskedLimiter(bench.limiter)
    queue = Queue(limiter, bench)
    slots = queue.house.slots(1)
    await queue.come_all(["a0", "a1", "a2", "b0"], {slots: 1})
    limiter.is_away = True
    await queue.advance(LOOK_US)
    for name in ("a1", "a2", "b0"):
        assert isinstance(queue.calls[name][1].exception(), StoreUnavailable)
    assert queue.room.waiting == 0


async def test_a_limiter_that_fails_fails_one_call_and_none_of_the_others(bench: MemoryBench) -> None:
    queue = Queue(bench.limiter, bench)
    slots = queue.house.slots(1)
    await queue.come_all(["a0", "a1", "b0"], {slots: 1})
    admit_now = bench.limiter.admit_now
    broken = queue.calls["a1"][0].call_id

    def breaking(demand: Demand) -> Decision | None:
        if demand.call_id == broken:
            raise ZeroDivisionError
        return admit_now(demand)

    bench.limiter.admit_now = breaking  # type: ignore[method-assign]
    await queue.settle("a0")
    assert isinstance(queue.calls["a1"][1].exception(), ZeroDivisionError)
    assert queue.admitted == ["a0", "b0"]


# With time that passes by itself


@pytest.fixture(params=["memory", *KINDS])
async def nodes(request: pytest.FixtureRequest) -> AsyncIterator[list[Limiter]]:
    """Limiters that share their counters, one a process; the memory one has its own."""
    if request.param == "memory":
        yield [MemoryLimiter()]
        return
    # A test machine may be busy for longer than a call should wait.
    shared = [RedisLimiter(opened(shared_server(request.param).url), timing=Timing(budget_s=5)) for _ in range(2)]
    yield list(shared)
    for each in shared:
        await each.close()


async def test_calls_at_once_are_never_more_than_slots_and_all_have_their_turn(nodes: list[Limiter]) -> None:
    house = Household(MemoryBench())
    slots, at_once, most, done = house.slots(3, whose="team"), 0, 0, Counter[str]()

    async def call(limiter: Limiter, room: WaitingRoom, key: str) -> None:
        nonlocal at_once, most
        demand = house.call({slots: 1})
        decision, _ = await room.admit(demand, whose=key, max_wait_s=60)
        assert decision.admitted
        at_once += 1
        most = max(most, at_once)
        await asyncio.to_thread(int)
        at_once -= 1
        done[key] += 1
        limiter.settle(demand, {})
        room.released(demand)

    rooms = [(limiter, WaitingRoom(limiter)) for limiter in nodes]
    await asyncio.gather(*(call(*room, key) for key in "abc" for room in rooms for _ in range(60)))
    assert most == 3
    assert done == dict.fromkeys("abc", 60 * len(rooms))
    assert [room.waiting for _, room in rooms] == [0] * len(rooms)


async def test_the_timer_admits_by_itself_when_the_time_has_come_and_not_earlier() -> None:
    limiter = MemoryLimiter()
    room = WaitingRoom(limiter)
    house = Household(MemoryBench())
    rule = house.rate(60 * 100, burst=1)
    told = await asyncio.gather(
        *(room.admit(house.call({rule: 1}), whose=key, max_wait_s=5) for key in "ab" for _ in range(6))
    )
    waits_s = sorted(waited_s for decision, waited_s in told if decision.admitted)
    assert len(waits_s) == 12
    assert all(waited_s >= 0.01 * number for number, waited_s in enumerate(waits_s))
    assert waits_s[-1] < 1
