"""What is old is deleted, if it is the clock that says so which calls were recorded by."""

from collections.abc import AsyncIterator
from datetime import UTC

import pytest
from sqlalchemy import URL

from gateway.metering.ledger_drain import Drain
from gateway.metering.ledger_line import encode
from gateway.metering.ledger_queries import LedgerQueries
from gateway.metering.ledger_retention import Retention
from gateway.metering.rollups import Days
from gateway.store.engine import Store
from tests.metering.ledger import NOON_S, counted, record, rows


@pytest.fixture
async def store(store_url: URL) -> AsyncIterator[Store]:
    made = Store(store_url)
    yield made
    await made.close()


async def test_what_is_too_old_is_deleted_and_the_sums_stay(store: Store) -> None:
    drain = Drain(store, Days())
    lines = [encode(record(f"req_{age}", started_at_s=NOON_S - age * 86_400, tags={"a": "b"})) for age in range(1_200)]
    for at in range(0, len(lines), 200):
        await drain.write(lines[at : at + 200])
    retention = Retention(store, Days(UTC), calls_days=90, sums_days=1_000, now=lambda: NOON_S)
    assert await retention.prune() == 1_109
    assert (len(await rows(store)), await counted(store)) == (91, 1_001)
    call = await LedgerQueries(store, Days()).call("req_90")
    assert call is not None
    assert call.tags == {"a": "b"}
    assert await retention.prune() == 0


async def test_what_says_that_late_usage_was_counted_outlives_the_calls(store: Store) -> None:
    drain = Drain(store, Days())
    ages = range(0, 800, 2)
    late = [encode(record(f"late_{age}", started_at_s=NOON_S - age * 86_400)) for age in ages]
    await drain.write([*late, *(encode(record(f"req_{age}", started_at_s=NOON_S - age * 86_400)) for age in ages)])
    retention = Retention(store, Days(), calls_days=7, sums_days=0, now=lambda: NOON_S)
    assert await retention.prune() == 199 + 396
    assert set(await rows(store)) == {f"late_{age}" for age in range(0, 401, 2)} | {
        f"req_{age}" for age in (0, 2, 4, 6)
    }
    assert await retention.prune() == 0
    assert (await drain.write([encode(record("late_30"))])).new == 0
    await Retention(store, Days(), calls_days=500, sums_days=0, now=lambda: NOON_S + 90 * 86_400).prune()
    assert "late_400" in await rows(store)


@pytest.mark.parametrize("are_there_new", [False, True])
async def test_a_clock_that_is_far_ahead_deletes_nothing_and_is_doubted_once(
    store: Store, are_there_new: bool, caplog: pytest.LogCaptureFixture
) -> None:
    ahead_s = NOON_S + 400 * 86_400
    begun_s = [NOON_S - age * 86_400 for age in range(80)] + [ahead_s - 3_600] * are_there_new
    lines = [encode(record(f"req_{number}", started_at_s=each)) for number, each in enumerate(begun_s)]
    await Drain(store, Days()).write(lines)
    retention = Retention(store, Days(), calls_days=90, sums_days=300, now=lambda: ahead_s)
    assert [await retention.prune() for _ in range(2)] == [0, 0]
    assert (len(await rows(store)), await counted(store)) == (len(lines), len(lines))
    assert caplog.text.count("Is the clock") == 1


async def test_who_was_away_for_long_has_old_calls_deleted_a_day_after_they_are_back(store: Store) -> None:
    begun_s = [NOON_S - 200 * 86_400, NOON_S - 2 * 86_400, NOON_S]
    lines = [encode(record(f"req_{number}", started_at_s=each)) for number, each in enumerate(begun_s)]
    await Drain(store, Days()).write(lines)
    assert await Retention(store, Days(), calls_days=90, sums_days=0, now=lambda: NOON_S).prune() == 1


@pytest.mark.parametrize("calls_days", [1, 2])
async def test_a_short_time_to_keep_calls_is_no_clock_that_is_ahead(store: Store, calls_days: int) -> None:
    lines = [encode(record(f"req_{hours}", started_at_s=NOON_S - hours * 3_600)) for hours in range(1, 100)]
    await Drain(store, Days()).write(lines)
    retention = Retention(store, Days(), calls_days=calls_days, sums_days=0, now=lambda: NOON_S)
    assert await retention.prune() == 99 - 24 * calls_days


async def test_0_keeps_for_ever(store: Store) -> None:
    await Drain(store, Days()).write([encode(record("req_1", started_at_s=1.0))])
    assert await Retention(store, Days(), calls_days=0, sums_days=0).prune() == 0
    assert (len(await rows(store)), await counted(store)) == (1, 1)
