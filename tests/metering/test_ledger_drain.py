"""How the ledger is written: in few steps, with rests for the sake of calls, and in haste where it is behind."""

import contextlib
import itertools
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL, event

from gateway.errors import StoreUnavailable
from gateway.metering.ledger import Ledger
from gateway.metering.ledger_drain import Drain, Written
from gateway.metering.ledger_line import encode
from gateway.metering.ledger_readings import readings_of_ledger
from gateway.metering.rollups import Days
from gateway.store import drivers
from gateway.store.engine import Store
from tests.metering.ledger import NOON_S, opened, record
from tests.support.stores import fresh_sqlite_url


async def test_it_rests_in_or_between_batches_unless_it_is_behind_or_to_come_to_an_end(
    store_url: URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(store_url)
    rests: list[float] = []
    numbers = itertools.count()

    async def rest(seconds: float) -> None:
        rests.append(seconds)

    line_bytes = len(encode(record("req_00")))
    async with opened(store, tmp_path, rest=rest) as ledger:
        ledger._writer.batch_bytes = 2 * line_bytes
        ledger._writer._sleep = rests.append

        async def drained(*, to_the_end: bool) -> list[float]:
            rests.clear()
            ledger.note([(record(f"req_{next(numbers):02}"), "") for _ in range(6)])
            await ledger.drain(to_the_end=to_the_end)
            return rests

        assert await drained(to_the_end=True) == []
        resting = await drained(to_the_end=False)
        assert len(resting) == (5 if store.dialect == "sqlite" else 2)  # two between, and SQLite's three within
        assert 0 < min(resting) <= max(resting) <= 0.02
        monkeypatch.setattr("gateway.metering.ledger._BEHIND_BYTES", 3 * line_bytes)
        assert len(await drained(to_the_end=False)) == (2 if store.dialect == "sqlite" else 1)
        monkeypatch.setattr("gateway.metering.ledger._BEHIND_BYTES", 0)
        assert await drained(to_the_end=False) == []
    await store.close()


async def test_ordinary_lines_are_one_step_for_sqlite_and_others_are_not(tmp_path: Path) -> None:
    store = Store(fresh_sqlite_url(tmp_path))
    statements: list[str] = []
    event.listen(store.engine.sync_engine, "before_cursor_execute", lambda *of: statements.append(of[2]))
    drain = Drain(store, Days())
    lines = [encode(record(f"req_{number}", tags={"team": "a"})) for number in range(50)]
    assert await drain.write(lines) == Written(50, 0)
    assert statements == []
    assert await drain.write([*lines, encode(record("req_new"))]) == Written(1, 0)
    assert statements
    await store.close()


async def test_sqlite_gives_way_to_calls_unless_in_haste(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(fresh_sqlite_url(tmp_path))
    gave_way: list[bool] = []
    in_one_step = drivers.at_once

    async def at_once(*of: Any, gives_way: bool) -> Any:
        gave_way.append(gives_way)
        return await in_one_step(*of, gives_way=gives_way)

    monkeypatch.setattr(drivers, "at_once", at_once)
    drain = Drain(store, Days())
    await drain.write([encode(record("req_1"))], in_haste=False)
    await drain.write([encode(record("req_2"))], in_haste=True)
    assert gave_way == [True, False]
    await store.close()


async def test_the_age_of_a_backlog_that_grows_is_never_less_than_that_of_its_oldest_record(tmp_path: Path) -> None:
    waited = await waits(tmp_path, batch=4, meanwhile=5)
    assert max(true_s for true_s, _ in waited) > 5
    assert all(true_s <= told_s <= 2 * true_s + 1 for true_s, told_s in waited), waited


async def test_the_age_of_what_waits_stays_where_as_much_comes_as_is_written(tmp_path: Path) -> None:
    waited = await waits(tmp_path, batch=4, meanwhile=4)
    assert waited[1:] == [(1, 1)] * (WRITES - 1)


WRITES = 30


async def waits(folder: Path, *, batch: int, meanwhile: int) -> list[tuple[float, float]]:
    """How old the oldest record is that waits, and what is told of that, in seconds, before each of the first writes.

    The database takes a second for a batch of so many calls, as so many others end meanwhile.
    """
    store = Store(fresh_sqlite_url(folder))
    noted_s: list[float] = []
    waited: list[tuple[float, float]] = []
    numbers = itertools.count(100)
    seconds = 0

    async def no_rest(_: float) -> None: ...

    async with opened(store, folder / "state", now=lambda: NOON_S + seconds, rest=no_rest) as ledger:
        drain = ledger._writer
        drain.batch_bytes = batch * len(encode(record("req_100")))
        write = drain.write

        def note(calls: int) -> None:
            noted_s.extend([seconds] * calls)
            ledger.note([(record(f"req_{next(numbers)}"), "") for _ in range(calls)])

        async def write_slowly(lines: list[bytes], **more: Any) -> Written:
            nonlocal seconds
            if len(waited) == WRITES:
                raise StoreUnavailable("away")
            waited.append((seconds - noted_s[0], age_s(ledger, NOON_S + seconds)))
            note(meanwhile)
            seconds += 1
            del noted_s[: len(lines)]
            return await write(lines, **more)

        with pytest.MonkeyPatch.context() as slow, contextlib.suppress(StoreUnavailable):
            slow.setattr(drain, "write", write_slowly)
            note(batch)
            while True:
                await ledger.drain(to_the_end=False)
        await ledger.drain()
        assert age_s(ledger, NOON_S + seconds) == 0
    await store.close()
    return waited


def age_s(ledger: Ledger, now_s: float) -> float:
    """What is told of the age of what waits."""
    readings = (family.collect() for family in readings_of_ledger(ledger, lambda: now_s))
    (found,) = (each for each in readings if each.name == "gmi_gateway_ledger_backlog_age_seconds")
    told_s = found.samples[()]
    assert isinstance(told_s, float)
    return told_s
