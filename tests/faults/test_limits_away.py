"""Redis stops, dies, forgets or answers nobody: calls go on by the chosen mode, and limits are exact again after it."""

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager

import pytest

from gateway.errors import StoreUnavailable
from gateway.limits.connection import opened
from gateway.limits.nodes import Nodes
from gateway.limits.redis import RedisLimiter
from gateway.limits.redis_options import OnFailure, Timing
from gateway.limits.rules import Charge, Decision, Demand, Rule
from gateway.limits.server import script
from tests.limits.household import new_id
from tests.limits.servers import Server
from tests.support.link import Faults, FaultyLink
from tests.support.patience import Stopwatch

LATE_S = 0.15
BACK_S = 2.0

REQUESTS = Rule("team_1/requests/day", "requests", "team", "day", 100)
TOKENS = Rule("team_1/tokens/day", "tokens", "team", "day", 20_000)
"""A unit of these comes back in minutes or seconds: no test lasts so long."""
SLOTS = Rule("team_1/parallel", "parallel", "team", None, 40)
MANY_SLOTS = Rule("team_1/model/parallel", "parallel", "model", None, 10_000)
BUDGET = Rule("team_1/budget/total", "budget", "team", "total", 1_000_000)


def call(amounts: Mapping[Rule, int], call_id: str = "") -> Demand:
    return Demand(call_id or new_id(), "team_1", tuple(Charge(rule, amount) for rule, amount in amounts.items()))


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    server.start()
    yield server
    server.close()


@asynccontextmanager
async def limiting(
    url: str,
    on_failure: OnFailure = "local",
    timing: Timing | None = None,
    load_spent: Callable[[Sequence[Rule]], "asyncio.Future[Mapping[str, int]]"] | None = None,
    nodes: Nodes | None = None,
) -> AsyncIterator[RedisLimiter]:
    """A limiter that is connected."""
    limiter = RedisLimiter(
        opened(url), on_failure=on_failure, timing=timing or Timing(), load_spent=load_spent, nodes=nodes
    )
    try:
        limiter.start()
        await until(lambda: _connected(limiter))
        yield limiter
    finally:
        await limiter.close()


async def _connected(limiter: RedisLimiter) -> bool:
    await limiter.standings([REQUESTS])
    return limiter.figures.round_trips > 0


async def until(holds: Callable[[], "asyncio.Future[bool] | object"], within_s: float = BACK_S) -> float:
    """Look again and again until it holds; how long that took."""
    watch = Stopwatch()
    while True:
        found = holds()
        if asyncio.iscoroutine(found):
            found = await found
        if found:
            return watch.took().passed_s
        assert watch.took().running_s < within_s, "it did not come to pass in time"
        await asyncio.sleep(0.005)


async def timed(limiter: RedisLimiter, demand: Demand) -> tuple[Decision, float]:
    began_s = time.monotonic()
    decision = limiter.admit_now(demand) or await limiter.admit(demand)
    return decision, time.monotonic() - began_s


async def left(limiter: RedisLimiter, *rules: Rule) -> list[int]:
    return [standing.remaining for standing in await limiter.standings(rules)]


# A reply that is lost


@pytest.fixture
async def link(server: Server) -> AsyncIterator[FaultyLink]:
    """A way to a server that knows the script already."""
    server.command("SCRIPT", "LOAD", script("calls.lua").text)
    async with FaultyLink("127.0.0.1", server.port) as link:
        yield link


async def test_an_admission_whose_reply_was_lost_is_charged_once_when_asked_again(
    server: Server, link: FaultyLink
) -> None:
    link.down = Faults(stall_after=await _greeting_bytes(link) + 3)
    async with using(link, "closed") as limiter:
        demand = call({REQUESTS: 1, TOKENS: 500, SLOTS: 1, BUDGET: 500})
        with pytest.raises(StoreUnavailable):
            await limiter.admit(demand)
        assert server.command("ZCARD", f"gateway:limits:{{team_1}}:leases:{SLOTS.id}") == 1
        link.down = Faults()
        assert (await limiter.admit(demand)).admitted
        assert await left(limiter, REQUESTS, TOKENS, SLOTS, BUDGET) == [99, 19_500, 39, 999_500]
        limiter.settle(demand, {TOKENS.id: 100, BUDGET.id: 100})
        await limiter.flush()
        assert await left(limiter, REQUESTS, TOKENS, SLOTS, BUDGET) == [99, 19_900, 40, 999_900]


async def test_an_admission_that_nobody_heard_of_is_taken_back(server: Server, link: FaultyLink) -> None:
    link.down = Faults(stall_after=await _greeting_bytes(link) + 3)
    async with using(link, "open") as limiter:
        assert (await limiter.admit(call({REQUESTS: 1, SLOTS: 1, BUDGET: 9}))).admitted
        assert server.command("ZCARD", f"gateway:limits:{{team_1}}:leases:{SLOTS.id}") == 1
        link.down = Faults()
        await limiter.flush()
        assert await left(limiter, REQUESTS, SLOTS, BUDGET) == [100, 40, 1_000_000]


async def test_wherever_connections_break_what_was_done_by_then_is_not_done_again(link: FaultyLink) -> None:
    greeting_bytes = await _greeting_bytes(link)
    async with using(link, "local") as limiter:
        demands = [call({REQUESTS: 1, TOKENS: 500, SLOTS: 1, BUDGET: 500}) for _ in range(40)]
        for number, demand in enumerate(demands):
            link.down = Faults(reset_after=greeting_bytes + 7 * number)
            await limiter.admit(demand)
            limiter.settle(demand, {TOKENS.id: 100, BUDGET.id: 100})
            await limiter.flush()
        link.down = Faults()
        await until(lambda: not limiter.is_away)
        await limiter.flush()
        assert await left(limiter, REQUESTS, TOKENS, SLOTS, BUDGET) == [60, 16_000, 40, 996_000]


@asynccontextmanager
async def using(link: FaultyLink, on_failure: OnFailure) -> AsyncIterator[RedisLimiter]:
    """A limiter that connects when it is first asked."""
    timing = Timing(probe_s=0.02)
    limiter = RedisLimiter(opened(f"redis://127.0.0.1:{link.port}/0"), on_failure=on_failure, timing=timing)
    try:
        yield limiter
    finally:
        await limiter.close()


async def _greeting_bytes(link: FaultyLink) -> int:
    """How many bytes a server says before the first answer."""
    server = opened(f"redis://127.0.0.1:{link.port}/0")
    await server._connected()  # type: ignore[attr-defined]
    await server.close()
    connection = link.connections[-1]
    await asyncio.wait_for(connection.ended.wait(), BACK_S)
    return connection.down_bytes


# Memory that is lost


async def test_calls_go_on_while_scripts_and_data_are_flushed_again_and_again(server: Server) -> None:
    wide = Rule("team_1/requests/hour", "requests", "team", "hour", 1_000_000)
    async with limiting(server.url) as limiter:
        for flush in ("SCRIPT FLUSH", "FLUSHALL", "SCRIPT FLUSH"):
            demands = [call({wide: 1, SLOTS: 1}) for _ in range(30)]
            decisions = [await limiter.admit(demand) for demand in demands[:15]]
            server.command(*flush.split())
            decisions += [await limiter.admit(demand) for demand in demands[15:]]
            assert all(decision.admitted for decision in decisions)
            for demand in demands:
                limiter.settle(demand, {})
        await limiter.flush()
        assert limiter.figures.failures == 0
        assert await left(limiter, SLOTS) == [40]


async def test_after_a_flush_one_renewal_rebuilds_leases_and_what_calls_had_reserved(server: Server) -> None:
    async with limiting(server.url, timing=Timing(renew_s=0.2)) as limiter:
        demands = [call({REQUESTS: 1, SLOTS: 1, BUDGET: 1_000}) for _ in range(10)]
        for demand in demands:
            assert (await limiter.admit(demand)).admitted
        server.command("FLUSHALL")

        async def is_rebuilt() -> bool:
            return await left(limiter, REQUESTS, SLOTS, BUDGET) == [90, 30, 990_000]

        assert await until(is_rebuilt) < 1
        for demand in demands:
            limiter.settle(demand, {BUDGET.id: 10})
        await limiter.flush()
        assert await left(limiter, SLOTS, BUDGET) == [40, 999_900]


async def test_what_was_spent_survives_a_flush(server: Server) -> None:
    kept = {BUDGET.id: 999_000}

    async def load(rules: Sequence[Rule]) -> Mapping[str, int]:
        return {rule.id: kept[rule.id] for rule in rules}

    async with limiting(server.url, load_spent=load) as limiter:  # type: ignore[arg-type]
        demand = call({BUDGET: 600})
        assert (await limiter.admit(demand)).admitted
        assert not (await limiter.admit(call({BUDGET: 600}))).admitted
        server.command("FLUSHALL")
        limiter.settle(demand, {BUDGET.id: 100})
        kept[BUDGET.id] += 100
        assert (await limiter.admit(call({BUDGET: 600}))).admitted
        assert await left(limiter, BUDGET) == [300]


@pytest.mark.parametrize("count", [10, 5_000])
@pytest.mark.parametrize("is_renewed", [False, True])
async def test_after_a_flush_no_call_is_admitted_to_what_calls_under_way_have_reserved(
    server: Server, count: int, is_renewed: bool
) -> None:
    own = [Rule(f"team_1/key_{number}/budget/total", "budget", "key", "total", 1_000_000) for number in range(count)]
    each = BUDGET.limit // count - 1
    told = (BUDGET, MANY_SLOTS, own[0])

    async def load(rules: Sequence[Rule]) -> Mapping[str, int]:
        await asyncio.sleep(0.001)
        return dict.fromkeys([rule.id for rule in rules], 0)

    async with limiting(server.url, load_spent=load, timing=Timing(budget_s=5)) as limiter:  # type: ignore[arg-type]
        under_way = [call({rule: each, BUDGET: each, MANY_SLOTS: 1}) for rule in own]
        decisions = await asyncio.gather(*(limiter.admit(demand) for demand in under_way))
        assert all(decision.admitted for decision in decisions)
        server.command("FLUSHALL")
        late = [asyncio.create_task(limiter.admit(call({rule: 1, BUDGET: count + 1}))) for rule in own[:100]]
        if is_renewed:
            await limiter.renew()
        assert not any(decision.admitted for decision in await asyncio.gather(*late))
        standing = [count, MANY_SLOTS.limit - count, 1_000_000 - each]
        assert await left(limiter, *told) == standing
        await limiter.renew()
        assert await left(limiter, *told) == standing
        for demand, rule in zip(under_way, own, strict=True):
            limiter.settle(demand, {rule.id: 1, BUDGET.id: 1})
        await limiter.flush()
        assert await left(limiter, *told) == [1_000_000 - count, MANY_SLOTS.limit, 999_999]


async def test_what_other_gateways_had_yet_to_write_as_redis_forgot_it_is_counted_once_it_is_written(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.limits.spending._LOOK_AGAIN_S", (0.01, 0.01, 0.01))
    written = iter([0, 0, 700, 990_000])

    async def load(rules: Sequence[Rule]) -> Mapping[str, int]:
        return dict.fromkeys([rule.id for rule in rules], next(written))

    async with limiting(server.url, load_spent=load) as limiter:  # type: ignore[arg-type]
        assert (await limiter.admit(call({BUDGET: 600}))).admitted

        async def is_counted() -> bool:
            return await left(limiter, BUDGET) == [10_000]

        await until(is_counted)


async def test_what_redis_has_forgotten_and_is_given_back_all_the_same_is_counted_again(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def load(rules: Sequence[Rule]) -> Mapping[str, int]:
        return dict.fromkeys([rule.id for rule in rules], 990_000)

    monkeypatch.setattr("gateway.limits.spending._LOOK_AGAIN_S", ())
    async with limiting(server.url, load_spent=load) as limiter:  # type: ignore[arg-type]
        assert (await limiter.admit(call({BUDGET: 600}))).admitted
        monkeypatch.setattr("gateway.limits.spending._LOOK_AGAIN_S", (0.01,))
        limiter.charge(call({BUDGET: -50_000}))  # it was reserved in a counter that is gone

        async def is_counted() -> bool:
            return await left(limiter, BUDGET) == [10_000]

        await until(is_counted)


async def test_what_is_read_in_the_moment_of_a_reset_does_not_undo_it(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.limits.spending._LOOK_AGAIN_S", (0.0,))
    is_reading, is_reset, has_read = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def load(rules: Sequence[Rule]) -> Mapping[str, int]:
        if is_reading.is_set():
            await is_reset.wait()
            has_read.set()
        is_reading.set()
        return dict.fromkeys([rule.id for rule in rules], 990_000)

    async with limiting(server.url, load_spent=load) as limiter:  # type: ignore[arg-type]
        assert (await limiter.admit(call({BUDGET: 600}))).admitted
        await limiter.reset([BUDGET])
        is_reset.set()
        await has_read.wait()
        await limiter.flush()
        assert await left(limiter, BUDGET) == [1_000_000]


async def test_what_was_reset_is_not_read_again(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.limits.spending._LOOK_AGAIN_S", (0.0, 0.0, 0.0))
    read: list[list[Rule]] = []
    is_reset = asyncio.Event()

    async def load(rules: Sequence[Rule]) -> Mapping[str, int]:
        read.append(list(rules))
        if len(read) == 2:
            await is_reset.wait()
        return dict.fromkeys([rule.id for rule in rules], 0)

    async with limiting(server.url, load_spent=load) as limiter:  # type: ignore[arg-type]
        before = set(limiter._tasks)
        assert (await limiter.admit(call({BUDGET: 600}))).admitted
        looks = limiter._tasks - before
        await limiter.reset([BUDGET])
        is_reset.set()
        await asyncio.gather(*looks)
    assert len(looks) == 1
    assert read == [[BUDGET], [BUDGET]][: len(read)]


async def test_a_budget_that_cannot_be_read_begins_with_nothing_until_it_can(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_away = True
    monkeypatch.setattr("gateway.limits.spending._READ_AGAIN_S", 0.01)

    async def load(rules: Sequence[Rule]) -> Mapping[str, int]:
        if is_away:
            raise StoreUnavailable("away")
        return {rule.id: 999_900 for rule in rules}

    async with limiting(server.url, load_spent=load) as limiter:  # type: ignore[arg-type]
        assert (await limiter.admit(call({BUDGET: 600}))).admitted
        is_away = False

        async def is_read() -> bool:
            return not (await limiter.admit(call({BUDGET: 101}))).admitted

        await until(is_read)


# Nobody answers


async def test_while_redis_is_stopped_calls_are_quick_and_get_this_nodes_share_and_no_more(
    server: Server, is_long: bool
) -> None:
    seconds = 30 if is_long else 2
    small = Rule("team_1/small/requests/minute", "requests", "team", "minute", 600, 20)
    async with limiting(server.url) as limiter, limiting(server.url) as other:
        await until(lambda: _count_nodes(limiter, 2))
        assert (await other.admit(call({small: 1}))).admitted
        with server.frozen():
            began_s, slowest_s, admitted, clients = time.monotonic(), 0.0, 0, 20

            async def client() -> None:
                nonlocal slowest_s, admitted
                while time.monotonic() < began_s + seconds:
                    decision, took_s = await timed(limiter, call({small: 1}))
                    slowest_s, admitted = max(slowest_s, took_s), admitted + decision.admitted
                    await asyncio.sleep(0.01)

            await asyncio.gather(*(client() for _ in range(clients)))
            share = 10 + 600 / 2 / 60 * (time.monotonic() - began_s)
        assert slowest_s <= LATE_S
        assert 0.9 * share - 1 <= admitted <= share
        assert await until(lambda: not limiter.is_away and not other.is_away) <= BACK_S


async def _count_nodes(limiter: RedisLimiter, wanted: int) -> bool:
    await limiter._nodes.count(limiter._server, limiter.node)
    return limiter.nodes == wanted


async def test_what_came_and_went_while_redis_was_stopped_is_in_its_books_afterwards(server: Server) -> None:
    async with limiting(server.url) as limiter:
        before = [call({REQUESTS: 1, SLOTS: 1, BUDGET: 100}) for _ in range(4)]
        for demand in before:
            assert (await limiter.admit(demand)).admitted
        with server.frozen():
            during = [call({REQUESTS: 1, SLOTS: 1, BUDGET: 100}) for _ in range(6)]
            # The first few are asked of Redis, which will carry them out after all when it goes on.
            decisions = [(await timed(limiter, demand))[0] for demand in during]
            assert all(decision.admitted for decision in decisions)
            for demand in (*before[:2], *during[:3]):
                limiter.settle(demand, {BUDGET.id: 7})
            limiter.cancel(before[2])
        assert await until(lambda: not limiter.is_away) <= BACK_S
        # 1 from before and 3 from then go on; 5 came to 7 each, and 1 never went upstream.
        assert await left(limiter, REQUESTS, SLOTS, BUDGET) == [91, 36, 1_000_000 - 4 * 100 - 5 * 7]
        for demand in (*before, *during):
            limiter.settle(demand, {BUDGET.id: 7})
        await limiter.flush()
        assert await left(limiter, SLOTS, BUDGET) == [40, 1_000_000 - 9 * 7]
        assert server.command("HLEN", "gateway:limits:{team_1}") == 3  # the clock, the rate, the budget


async def test_what_is_shown_is_the_share_though_nobody_has_called_since_redis_went_away(server: Server) -> None:
    two = Nodes(at_least=2)
    async with limiting(server.url, nodes=two) as limiter:
        assert (await limiter.admit(call({REQUESTS: 10, BUDGET: 200_000}))).admitted
        server.kill()
        shown = await limiter.standings([REQUESTS, BUDGET, SLOTS])
        assert limiter.mode == "local"
        assert [standing.remaining for standing in shown] == [50, 400_000, 20]
        told = (await limiter.admit(call({REQUESTS: 1, BUDGET: 1}))).standings
        assert [standing.remaining for standing in told] == [49, 399_999]


async def test_a_reset_reaches_the_share_of_the_next_absence_too(server: Server) -> None:
    async with limiting(server.url) as limiter:
        with server.frozen():
            assert [(await limiter.admit(call({REQUESTS: 60}))).admitted for _ in range(2)] == [True, False]
        assert await until(lambda: not limiter.is_away) <= BACK_S
        await limiter.reset([REQUESTS])
        with server.frozen():
            assert (await limiter.admit(call({REQUESTS: 60}))).admitted


async def test_slots_that_were_taken_before_count_while_redis_is_away(server: Server) -> None:
    three = Rule("team_1/three/parallel", "parallel", "team", None, 3)
    async with limiting(server.url) as limiter:
        first = call({three: 1})
        assert (await limiter.admit(first)).admitted
        server.kill()
        decisions = [(await timed(limiter, call({three: 1})))[0].admitted for _ in range(4)]
        assert decisions == [True, True, False, False]
        limiter.settle(first, {})
        assert (await timed(limiter, call({three: 1})))[0].admitted


async def test_of_a_budget_what_was_left_is_all_there_is_while_redis_is_away(server: Server) -> None:
    async with limiting(server.url) as limiter:
        assert (await limiter.admit(call({BUDGET: 999_000}))).admitted
        server.kill()
        assert not (await timed(limiter, call({BUDGET: 1_001})))[0].admitted
        assert (await timed(limiter, call({BUDGET: 1_000})))[0].admitted
        assert not (await timed(limiter, call({BUDGET: 1})))[0].admitted


@pytest.mark.parametrize("on_failure", ["local", "closed", "open"])
async def test_when_redis_is_killed_every_mode_answers_at_once_and_all_is_exact_when_it_is_back(
    server: Server, on_failure: OnFailure, caplog: pytest.LogCaptureFixture
) -> None:
    few = Rule("team_1/few/requests/minute", "requests", "team", "minute", 20)
    caplog.set_level(logging.INFO, "gateway.limits")
    async with limiting(server.url, on_failure) as limiter:
        server.kill()
        admitted = refused = unavailable = 0
        for _ in range(100):
            watch = Stopwatch()
            try:
                decision, _ = await timed(limiter, call({few: 1}))
                admitted, refused = admitted + decision.admitted, refused + (not decision.admitted)
            except StoreUnavailable:
                unavailable += 1
            assert watch.took().running_s <= LATE_S
        assert (admitted, refused, unavailable) == {"local": (20, 80, 0), "closed": (0, 0, 100), "open": (100, 0, 0)}[
            on_failure
        ]
        assert repr(limiter.mode) == repr(on_failure)
        server.start()
        assert await until(lambda: not limiter.is_away) <= BACK_S
        assert limiter.mode == "exact"
        assert await left(limiter, few) == [0 if on_failure == "local" else 20]
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2, told
    assert told[0].startswith("Redis is away")
    assert told[1].startswith("Redis is back")


async def test_a_reset_that_cannot_be_done_says_so_in_every_mode(server: Server) -> None:
    async with limiting(server.url, "open") as limiter:
        server.kill()
        with pytest.raises(StoreUnavailable):
            await limiter.reset([REQUESTS])


async def test_connections_that_are_closed_while_idle_cost_no_call_anything(server: Server) -> None:
    async with limiting(server.url) as limiter:
        for _ in range(5):
            server.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            assert (await limiter.admit(call({REQUESTS: 1}))).admitted
        assert limiter.figures.failures == 0
        assert await left(limiter, REQUESTS) == [95]


# Callers that leave


async def test_calls_that_are_given_up_at_any_moment_leave_nothing_behind(server: Server, is_long: bool) -> None:
    wide = Rule("team_1/wide/parallel", "parallel", "team", None, 100_000)
    dice = random.Random(4)
    async with limiting(server.url) as limiter:

        async def come_and_go() -> None:
            demand = call({wide: 1, BUDGET: 3})
            try:
                if (await limiter.admit(demand)).admitted:
                    await asyncio.sleep(dice.random() / 100)
            finally:
                limiter.settle(demand, {BUDGET.id: 0})

        async def give_up() -> None:
            task = asyncio.create_task(come_and_go())
            await asyncio.sleep(dice.random() / 200)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        for _ in range(50 if is_long else 5):
            await asyncio.gather(*(give_up() for _ in range(200)))
        await asyncio.wait_for(limiter.flush(), BACK_S)
        assert await left(limiter, wide, BUDGET) == [100_000, 1_000_000]
        assert server.command("HLEN", "gateway:limits:{team_1}") == 2
