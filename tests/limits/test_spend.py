"""What was spent of budgets outlives processes and outages, and is counted once."""

import asyncio
import contextlib
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from sqlalchemy import URL, select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.errors import StoreUnavailable
from gateway.limits.budget_id import place
from gateway.limits.plan import Planner, Policy
from gateway.limits.rules import Rule
from gateway.limits.spend import KEPT_S, Spend
from gateway.store.engine import Store
from gateway.store.migrate import migrate
from gateway.store.tables import spend
from gateway.terms import Budgets, Quota
from tests.support.stores import PostgresServer
from tests.support.yardsticks import times_a_count

ROOT = Path(__file__).parents[2]


def budget(number: int = 1, window: str = "month/2026-11", resets_at_s: int | None = None) -> Rule:
    return Rule(f"team_1/key_{number}/budget/{window}", "budget", "key", "month", 10_000_000, resets_at_s=resets_at_s)


RULE = budget()


async def kept(store: Store) -> dict[tuple[str, str], int]:
    """All that the store holds, by subject and window."""
    async with store.reading() as connection:
        rows = await connection.execute(select(spend.c.subject_id, spend.c.window_id, spend.c.microusd))
        return {(row[0], row[1]): row[2] for row in rows}


async def kept_at(url: URL) -> dict[tuple[str, str], int]:
    store = Store(url)
    try:
        return await kept(store)
    finally:
        await store.close()


class Interrupted(Store):
    """A store that loses the answers to its next commits: they go through, and whoever asked hears that they failed."""

    lost = 0

    @contextlib.asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncConnection]:
        async with super().writing() as connection:
            yield connection
        if self.lost:
            self.lost -= 1
            raise StoreUnavailable("The connection broke before the answer came.")


async def test_sums_are_kept_by_whose_and_by_window(store: Store) -> None:
    spent = Spend(store)
    rules = [
        budget(1),
        budget(2),
        budget(1, "day/2026-11-22"),
        Rule("team_1/budget/total", "budget", "team", "total", 1),
    ]
    for amount, rule in enumerate(rules, 1):
        spent.note(rule, amount)
        spent.note(rule, 10 * amount)
    await spent.flush()
    assert await kept(store) == {
        ("team_1/key_1", "month/2026-11"): 11,
        ("team_1/key_2", "month/2026-11"): 22,
        ("team_1/key_1", "day/2026-11-22"): 33,
        ("team_1", "total"): 44,
    }
    assert await Spend(store).load([*rules, budget(3)]) == {
        **{rule.id: 11 * number for number, rule in enumerate(rules, 1)},
        budget(3).id: 0,
    }


async def test_what_is_not_written_yet_is_loaded_too(store: Store) -> None:
    spent = Spend(store)
    spent.note(RULE, 5)
    assert await spent.load([RULE]) == {RULE.id: 5}
    await spent.flush()
    spent.note(RULE, 7)
    assert await spent.load([RULE]) == {RULE.id: 12}
    assert await spent.load([]) == {}
    assert await Spend(store).load([RULE]) == {RULE.id: 5}


async def test_what_is_noted_while_a_batch_is_written_is_in_the_next_one(store: Store) -> None:
    spent = Spend(store)
    for turn in range(20):
        spent.note(RULE, 1)
        flush = asyncio.create_task(spent.flush())
        for _ in range(turn):
            await asyncio.sleep(0)
        spent.note(RULE, 1)
        assert await spent.load([RULE]) == {RULE.id: 2 * turn + 2}
        await flush
    await spent.close()
    assert await kept(store) == {("team_1/key_1", "month/2026-11"): 40}


async def test_nodes_add_up(store_url: URL) -> None:
    stores = [Store(store_url) for _ in range(3)]
    nodes = [Spend(store) for store in stores]
    for turn in range(5):
        for position, node in enumerate(nodes):
            for number in range(40) if position % 2 else reversed(range(40)):
                node.note(budget(number), turn + position)
        await asyncio.gather(*(node.flush() for node in nodes))
    assert set((await kept(stores[0])).values()) == {sum(turn + position for turn in range(5) for position in range(3))}
    for store in stores:
        await store.close()


async def test_thousands_of_budgets_are_written_in_several_batches(store: Store) -> None:
    spent = Spend(store)
    for number in range(1_201):
        spent.note(budget(number), number + 1)
    await spent.flush()
    assert len(spent) == 0
    assert sum((await kept(store)).values()) == 1_201 * 1_202 // 2
    assert (await spent.load([budget(number) for number in range(1_201)]))[budget(1_200).id] == 1_201


async def test_it_is_written_in_the_background_and_at_the_end(store: Store) -> None:
    spent = Spend(store, every_s=0.01)
    spent.start()
    spent.note(RULE, 3)
    async with asyncio.timeout(5):
        while not await kept(store):  # noqa: ASYNC110 - the database does not tell
            await asyncio.sleep(0.005)
    await spent.close()
    late = Spend(store, every_s=60)
    late.start()
    late.note(RULE, 4)
    await late.close()
    assert list((await kept(store)).values()) == [7]


async def test_a_batch_whose_commit_was_not_answered_is_added_once(store_url: URL) -> None:
    store = Interrupted(store_url)
    spent = Spend(store)
    spent.note(RULE, 5)
    store.lost = 2
    await spent.flush()
    assert len(spent) == 1
    spent.note(RULE, 7)
    assert await spent.load([RULE]) == {RULE.id: 12}
    await spent.flush()
    await spent.flush()
    assert list((await kept(store)).values()) == [12]
    assert len(spent) == 0
    await store.close()


async def test_whatever_commits_are_not_answered_the_sum_is_exact(store_url: URL) -> None:
    chance = random.Random(3)
    stores = [Interrupted(store_url) for _ in range(2)]
    nodes = [Spend(store) for store in stores]
    total = 0
    for _ in range(60):
        node = chance.randrange(2)
        amount = chance.randrange(100)
        nodes[node].note(RULE, amount)
        total += amount
        stores[node].lost = chance.choice([0, 0, 1])
        if chance.random() < 0.5:
            await nodes[node].flush()
    for store in stores:
        store.lost = 0
    for node_ in nodes:
        await node_.close()
    assert await Spend(stores[0]).load([RULE]) == {RULE.id: total}
    for store in stores:
        await store.close()


async def test_a_cancelled_flush_loses_nothing(store: Store) -> None:
    spent = Spend(store)
    for turns in range(30):
        spent.note(RULE, 1)
        flush = asyncio.create_task(spent.flush())
        for _ in range(turns):
            await asyncio.sleep(0)
        flush.cancel()
        await asyncio.gather(flush, return_exceptions=True)
    await spent.flush()
    assert list((await kept(store)).values()) == [30]


async def test_a_reset_budget_has_nothing_spent_and_others_keep_theirs(store: Store) -> None:
    spent = Spend(store)
    for rule in (RULE, budget(2)):
        spent.note(rule, 5)
    await spent.flush()
    for rule in (RULE, budget(2)):
        spent.note(rule, 6)
    await spent.reset([RULE])
    assert await spent.load([RULE, budget(2)]) == {RULE.id: 0, budget(2).id: 11}
    spent.note(RULE, 1)
    await spent.flush()
    assert await kept(store) == {("team_1/key_1", "month/2026-11"): 1, ("team_1/key_2", "month/2026-11"): 11}


async def test_windows_that_ended_long_ago_are_deleted_and_those_that_never_end_stay(store: Store) -> None:
    now_s = 1_000_000_000
    spent = Spend(store, now=lambda: now_s)
    windows = {"over": now_s - KEPT_S - 1, "just over": now_s - KEPT_S, "total": None}
    for window, resets_at_s in windows.items():
        spent.note(budget(1, window, resets_at_s), 1)
    await spent.flush()
    await spent.tidy()
    assert {window for _, window in await kept(store)} == {"just over", "total"}


def test_every_budget_that_is_planned_has_a_place_of_its_own() -> None:
    budgets = Budgets(day_microusd=1, week_microusd=2, month_microusd=3, total_microusd=4)
    quota = Quota("team_1", "key_1", key_budgets=budgets, team_budgets=budgets)
    windows = ["day/2026-11-22", "week/2026-W47", "month/2026-11", "total"]
    at_s = 1_795_305_600  # 2026-11-22
    assert [place(rule) for rule in Planner(Policy()).rules(quota, at_s)] == [
        (subject, window) for subject in ("team_1/key_1", "team_1") for window in windows
    ]


@pytest.mark.parametrize("rule_id", ["team_1/key_1/requests/minute", "/budget/day", "team_1/budget/", "team_1"])
def test_a_rule_that_is_no_budget_is_a_bug(tmp_path: Path, rule_id: str) -> None:
    spent = Spend(Store(URL.create("sqlite+aiosqlite", database=str(tmp_path / "a.db"))))
    with pytest.raises(ValueError, match="is not the id of a budget's rule"):
        spent.note(Rule(rule_id, "budget", "key", "day", 1), 1)


def test_to_note_costs_next_to_nothing(tmp_path: Path) -> None:
    spent = Spend(Store(URL.create("sqlite+aiosqlite", database=str(tmp_path / "a.db"))))
    spent.note(RULE, 1)
    assert times_a_count(lambda: spent.note(RULE, 3)) < 20


@pytest.fixture(scope="module")
def own_postgres() -> Iterator[PostgresServer]:
    server = PostgresServer()
    yield server
    server.close()


async def test_while_the_database_is_away_it_is_kept_up_to_a_bound_and_one_line_says_so(
    own_postgres: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    url = own_postgres.create()
    await migrate(url)
    store = Store(url, timeout_s=2.0)
    spent = Spend(store, max_budgets=3)
    spent.note(budget(1), 1)
    await spent.flush()
    await asyncio.to_thread(own_postgres.stop)
    for _ in range(2):
        for number in range(1, 6):
            spent.note(budget(number), 10)
        await spent.flush()
    assert repr(spent) == "Spend(3 budgets wait to be written, 40 micro-dollars dropped)"
    with pytest.raises(StoreUnavailable):
        await spent.load([RULE])
    with pytest.raises(StoreUnavailable):
        await spent.reset([RULE])
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]
    await asyncio.to_thread(own_postgres.start)
    await spent.close()
    assert sorted((await kept(store)).values()) == [20, 20, 21]
    await store.close()


PROGRAM = """
import asyncio, sys, time
from sqlalchemy import make_url
from gateway.limits.budget_id import place
from gateway.limits.plan import Planner, Policy
from gateway.limits.rules import Rule
from gateway.limits.spend import Spend
from gateway.store.engine import Store

async def run():
    spent = Spend(Store(make_url(sys.argv[1])))
    spent.start()
    rule = Rule("team_1/key_1/budget/total", "budget", "key", "total", 1)
    while True:
        spent.note(rule, 1)
        print(time.monotonic(), flush=True)
        await asyncio.sleep(0.002)

asyncio.run(run())
"""


def test_a_killed_process_loses_what_came_since_its_last_second_and_no_more(store_url: URL) -> None:
    command = [sys.executable, "-c", PROGRAM, store_url.render_as_string(hide_password=False)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        first = float(process.stdout.readline())
        times = [first]
        while times[-1] < first + 2.5:
            times.append(float(process.stdout.readline()))
        process.send_signal(signal.SIGKILL)
        times += map(float, process.stdout.read().split())
    (sum_,) = asyncio.run(kept_at(store_url)).values()
    at_least = sum(at < times[-1] - 1.5 for at in times)  # half a second for the write, on a busy machine
    assert 0 < at_least <= sum_ <= len(times)
