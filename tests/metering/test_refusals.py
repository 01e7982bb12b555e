"""Refused calls are all counted, and of one key some a second are kept singly."""

from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL, text

from gateway.call import CallRecord, Principal, Route
from gateway.metering.ledger_line import encode
from gateway.metering.ledger_queries import LedgerQueries
from gateway.metering.ledger_query import CallsQuery
from gateway.metering.refusals import MOST_A_SECOND
from gateway.metering.rollups import Days
from gateway.store.engine import Store
from tests.metering.ledger import CHAT, NOON_S, counted, day_rows, opened, record, rows

DAY = 20_779
"""2026-11-22."""


class Clock:
    """Unix time, in seconds, that goes as it is told."""

    def __init__(self) -> None:
        self.now_s = NOON_S

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
async def store(store_url: URL) -> AsyncIterator[Store]:
    made = Store(store_url)
    yield made
    await made.close()


def refused(number: int, **changed: Any) -> CallRecord:
    refusal = {"outcome": "refused", "status": 429, "usage": None, "usage_source": "none", "cost_microusd": 0}
    return record(f"req_{number:05}", **{**refusal, **changed})


async def test_of_many_refused_calls_of_a_key_some_are_kept_and_all_counted(store: Store, tmp_path: Path) -> None:
    async with opened(store, tmp_path) as ledger:
        for number in range(1_000):
            ledger.note([(refused(number, tags={"a": "b"}), "")])
        await ledger.drain()
        await ledger.drain()
        assert (len(await rows(store)), ledger.lost) == (MOST_A_SECOND + 1, 0)
    (row,) = await day_rows(store)
    assert (row["calls"], row["refused_calls"], row["failed_calls"], row["unknown_calls"]) == (1_000, 1_000, 0, 0)
    async with store.reading() as connection:
        assert (await connection.execute(text("SELECT count(*) FROM call_tags"))).scalar() == 0


async def test_each_key_and_each_second_has_its_own(store: Store, tmp_path: Path) -> None:
    clock = Clock()
    other = Principal("eve", "others", "key_eve", "team_others")
    async with opened(store, tmp_path, now=clock) as ledger:
        for number in range(30):
            ledger.note([(refused(number), "")])
        ledger.note([(refused(100, principal=other), "")])
        clock.now_s += 1
        for number in range(200, 230):
            ledger.note([(refused(number), "")])
        await ledger.drain()
    found = await rows(store)
    assert len(found) == 2 * (MOST_A_SECOND + 1) + 1
    assert sorted(row["calls"] for row in await day_rows(store)) == [1, 60]


async def test_no_second_begins_but_what_was_counted_comes_into_the_database(store: Store, tmp_path: Path) -> None:
    clock = Clock()
    async with opened(store, tmp_path, now=clock) as ledger:
        for number in range(30):
            ledger.note([(refused(number), "")])
        await ledger.drain(to_the_end=False)
        assert await counted(store) == MOST_A_SECOND
        assert ledger._noted.is_set(), "so it is looked at again"
        clock.now_s += 1
        await ledger.drain(to_the_end=False)
        assert await counted(store) == 30


async def test_calls_that_were_not_refused_are_kept_however_many(store: Store, tmp_path: Path) -> None:
    async with opened(store, tmp_path) as ledger:
        for number in range(50):
            ledger.note([(record(f"req_{number}", outcome="failed"), "")])
        await ledger.drain()
    assert len(await rows(store)) == 50


async def test_refused_calls_are_counted_by_route_and_model_and_day(store: Store, tmp_path: Path) -> None:
    evening_s = NOON_S + 12 * 3_600 - 0.5
    embeddings = Route("POST", "embeddings")
    async with opened(store, tmp_path, now=lambda: evening_s) as ledger:
        for number in range(100):
            route = embeddings if number % 2 else CHAT
            ledger.note([(refused(number, route=route, started_at_s=evening_s + (number >= 50)), "")])
        await ledger.drain()
    found = {(row["day"], row["route"]): row["refused_calls"] for row in await day_rows(store)}
    assert found == {(day, path): 25 for day in (DAY, DAY + 1) for path in (CHAT.path, embeddings.path)}


async def test_models_that_a_client_makes_up_are_counted_as_none(store: Store, tmp_path: Path) -> None:
    async with opened(store, tmp_path) as ledger:
        for number in range(1_000):
            ledger.note([(refused(number, model=f"model-{number}"), "")])
        await ledger.drain()
    by_model = {row["model"]: row["refused_calls"] for row in await day_rows(store)}
    assert len(by_model) == 2 * MOST_A_SECOND + 1
    assert (by_model[""], sum(by_model.values())) == (1_000 - 2 * MOST_A_SECOND, 1_000)


async def test_the_limit_that_refused_calls_is_kept_of_single_ones_and_of_those_that_are_counted(
    store: Store, tmp_path: Path
) -> None:
    """Filters and answers have the code alone, and the limit apart."""
    async with opened(store, tmp_path, limit_of=lambda detail: detail or None) as ledger:
        for number in range(40):
            detail = "key/requests/minute" if number % 2 else "team/budget/day"
            ledger.note([(refused(number, error="rate_limit_exceeded"), detail)])
        ledger.note([(refused(40, status=403, error="model_not_allowed"), "not a limit")])
        await ledger.drain()
    found = await LedgerQueries(store, Days()).calls(
        CallsQuery(since_us=0, until_us=int(NOON_S * 2e6), errors=("rate_limit_exceeded",))
    )
    limits = Counter((call.error, call.refused_by) for call in found.calls)
    assert limits == {
        ("rate_limit_exceeded", "key/requests/minute"): MOST_A_SECOND // 2 + 1,
        ("rate_limit_exceeded", "team/budget/day"): MOST_A_SECOND // 2 + 1,
    }
    other = await LedgerQueries(store, Days()).call("req_00040")
    assert other is not None
    assert (other.error, other.refused_by) == ("model_not_allowed", None)


@pytest.mark.parametrize(
    "code", ["rate_limit", "rate_limit_exceeded key", "rate%", "RATE_LIMIT_EXCEEDED", "key/parallel"]
)
async def test_no_part_of_an_error_is_taken_for_its_code(store: Store, tmp_path: Path, code: str) -> None:
    async with opened(store, tmp_path, limit_of=lambda _: "key/parallel") as ledger:
        ledger.note([(refused(1, error="rate_limit_exceeded"), "")])
        await ledger.drain()
    query = CallsQuery(since_us=0, until_us=int(NOON_S * 2e6), errors=(code,))
    assert (await LedgerQueries(store, Days()).calls(query)).calls == ()


async def test_a_counting_line_that_comes_again_changes_nothing(store: Store, tmp_path: Path) -> None:
    async with opened(store, tmp_path) as ledger:
        for _ in range(2):
            ledger._keep([encode(refused(1), 99)])
            await ledger.drain()
    assert await counted(store) == 100
