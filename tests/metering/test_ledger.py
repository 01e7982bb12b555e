"""The ledger keeps each call once, whatever becomes of disk, database and process; and no call fails for it."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import URL, text
from sqlalchemy.exc import DBAPIError

from gateway.call import Usage
from gateway.errors import StoreUnavailable
from gateway.metering.ledger import Ledger
from gateway.metering.ledger_drain import Drain, Written
from gateway.metering.ledger_line import encode
from gateway.metering.ledger_readings import readings_of_ledger
from gateway.metering.rollups import Days
from gateway.store.engine import Store
from gateway.store.journal import Journal
from tests.metering.ledger import BERLIN, NOON_S, counted, day_row, day_rows, opened, record, rows

DAY = 20_779
"""2026-11-22."""


@pytest.fixture
async def store(store_url: URL) -> AsyncIterator[Store]:
    made = Store(store_url)
    yield made
    await made.close()


@pytest.fixture
async def ledger(store: Store, tmp_path: Path) -> AsyncIterator[Ledger]:
    async with opened(store, tmp_path / "state") as made:
        yield made


async def test_a_call_becomes_a_row_with_all_that_is_known_of_it(store: Store, ledger: Ledger) -> None:
    ledger.note([(record("req_1", queue_s=1.5), "")])
    await ledger.drain()
    (row,) = (await rows(store)).values()
    usage = dict.fromkeys(Usage.__struct_fields__, 0)
    assert row == {
        "id": "req_1",
        "started_at": int(NOON_S * 1e6),
        "team_id": "team_engines",
        "key_id": "key_ada",
        "method": "POST",
        "route": "/v1/chat/completions",
        "model": "openai/gpt-5.2",
        "endpoint": "upstream",
        "status": 200,
        "outcome": "done",
        "streamed": False,
        "error": None,
        "upstream_error": None,
        "upstream_request_id": "upstream-1",
        "usage_source": "reported",
        "cost_microusd": 12,
        "queue_us": 1_500_000,
        "overhead_us": 500,
        "first_byte_us": 125_000,
        "duration_us": 250_000,
        "sent_bytes": 345,
        **usage,
        "input_tokens": 5,
        "output_tokens": 2,
        "total_tokens": 7,
        "cached_tokens": 3,
    }


async def test_records_come_into_the_database_by_themselves(store: Store, ledger: Ledger) -> None:
    ledger.note([(record("req_1"), "")])
    async with asyncio.timeout(5):
        while not await rows(store):  # noqa: ASYNC110 - nobody tells when another task has written
            await asyncio.sleep(0.02)


async def test_calls_by_nobody_and_to_nowhere_are_not_kept(store: Store, ledger: Ledger) -> None:
    ledger.note([(record("req_1", principal=None), "")])
    ledger.note([(record("req_2", route=None), "")])
    await ledger.drain()
    assert (await rows(store), ledger.lost) == ({}, 0)


async def test_what_is_unknown_is_null_and_no_0(store: Store, ledger: Ledger) -> None:
    ledger.note([(record("req_1", usage=None, usage_source="unknown", cost_microusd=None), "")])
    await ledger.drain()
    (row,) = (await rows(store)).values()
    assert (row["input_tokens"], row["cost_microusd"]) == (None, None)


async def test_sums_by_day_are_added_up_in_the_time_zone_of_the_ledger(store: Store, tmp_path: Path) -> None:
    last_minute_s = NOON_S + 10 * 3600 + 3540  # 23:59 in Berlin
    async with opened(store, tmp_path, zone=BERLIN) as ledger:
        ledger.note([(record("req_1", started_at_s=last_minute_s), "")])
        ledger.note([(record("req_2", started_at_s=last_minute_s, usage_source="estimated", cost_microusd=None), "")])
        ledger.note([(record("req_3", started_at_s=last_minute_s + 60, outcome="cut"), "")])
        ledger.note([(record("req_4", outcome="refused", usage=None, usage_source="none", cost_microusd=0), "")])
        ledger.note([(record("req_5", usage=None, usage_source="unknown", cost_microusd=None), "")])
        await ledger.drain()
    tokens = {"input_tokens": 5, "output_tokens": 2, "total_tokens": 7, "cached_tokens": 3}
    assert await day_rows(store) == [
        day_row(
            DAY,
            calls=4,
            refused_calls=1,
            estimated_calls=1,
            unpriced_calls=1,
            unknown_calls=1,
            cost_microusd=12,
            **{name: 2 * count for name, count in tokens.items()},
        ),
        day_row(DAY + 1, calls=1, failed_calls=1, cost_microusd=12, **tokens),
    ]


async def test_a_line_that_comes_again_changes_nothing(store: Store) -> None:
    drain = Drain(store, Days())
    lines = [encode(record(f"req_{number}", tags={"a": "b"})) for number in range(10)]
    assert await drain.write([*lines[:5], *lines[:5]]) == Written(5, 0)
    assert await drain.write(lines) == Written(5, 0)
    assert await drain.write(lines) == Written(0, 0)
    assert (len(await rows(store)), await counted(store)) == (10, 10)


async def test_two_nodes_that_write_the_same_lines_at_once_count_each_once(store_url: URL) -> None:
    lines = [encode(record(f"req_{number}")) for number in range(500)]
    stores = [Store(store_url) for _ in range(4)]
    writers = (Drain(store, Days()).write(lines[at : at + 50]) for store in stores for at in range(0, 500, 50))
    written = await asyncio.gather(*writers)
    assert (sum(each.new for each in written), await counted(stores[0])) == (500, 500)
    for store in stores:
        await store.close()


async def test_two_nodes_that_hear_the_same_in_another_order_do_not_keep_each_other(store_url: URL) -> None:
    stores = [Store(store_url) for _ in range(2)]
    drains = [Drain(store, Days()) for store in stores]
    for round_ in range(5):
        lines = [encode(record(f"late_resp_{round_}_{number:03}")) for number in range(300)]
        written = await asyncio.gather(drains[0].write(lines), drains[1].write(lines[::-1]))
        assert sum(each.new for each in written) == 300
    for store in stores:
        await store.close()


async def test_a_line_that_cannot_be_read_costs_its_own_call_alone(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    lines = [encode(record("req_1")), b'["req_2",1\n', b"\xff\n", encode(record("req_3"))]
    assert await Drain(store, Days()).write(lines) == Written(2, 2)
    assert sorted(await rows(store)) == ["req_1", "req_3"]
    assert caplog.text.count("cannot be read") == 2


async def test_a_line_that_the_database_refuses_costs_its_own_call_alone(store: Store) -> None:
    """SQLite refuses nothing."""
    lines = [encode(record(f"req_{number}")) for number in range(3)]
    with_nul = lines[1].replace(b"openai", b"open\\u0000ai")
    written = await Drain(store, Days()).write([lines[0], with_nul, lines[2]])
    assert written == (Written(2, 1) if store.dialect == "postgresql" else Written(3, 0))
    assert {"req_0", "req_2"} <= set(await rows(store))


async def test_a_line_of_an_impossible_time_costs_its_own_call_alone(store: Store) -> None:
    lines = [encode(record(f"req_{number}")) for number in range(3)]
    lines[1] = encode(record("req_1", started_at_s=1e12))
    assert await Drain(store, Days()).write(lines) == Written(2, 1)
    assert sorted(await rows(store)) == ["req_0", "req_2"]


async def test_a_line_that_no_day_can_be_found_for_costs_its_own_call_alone(store: Store) -> None:
    lines = [encode(record(f"req_{number}")) for number in range(3)]
    drain = Drain(store, OddDays(int((NOON_S + 86_400) * 1e6)))
    lines[1] = encode(record("req_1", started_at_s=NOON_S + 86_400))
    assert await drain.write(lines) == Written(2, 1)
    assert await drain.write(lines[1:2]) == Written(0, 1)
    assert sorted(await rows(store)) == ["req_0", "req_2"]


class OddDays(Days):
    """Cannot tell of one moment which day it belongs to."""

    def __init__(self, odd_us: int) -> None:
        super().__init__()
        self._odd_us = odd_us

    def of(self, at_us: int) -> int:
        if at_us == self._odd_us:
            raise ValueError("year 33658 is out of range")
        return super().of(at_us)


async def test_what_would_refuse_every_line_costs_none(store: Store) -> None:
    lines = [encode(record(f"req_{number}")) for number in range(3)]
    drain = Drain(store, Days())
    async with store.writing() as connection:
        await connection.execute(text("ALTER TABLE calls RENAME COLUMN cost_microusd TO cost"))
    for some in (lines, lines[:1]):
        with pytest.raises(DBAPIError):
            await drain.write(some)
    async with store.writing() as connection:
        await connection.execute(text("ALTER TABLE calls RENAME COLUMN cost TO cost_microusd"))
    assert await drain.write(lines) == Written(3, 0)


async def test_no_number_that_upstream_makes_up_keeps_others_from_being_counted(store: Store) -> None:
    most = Usage(2**53, 2**53, 2**53)
    lines = [encode(record(f"req_{number}", usage=most, cost_microusd=2**62)) for number in range(2_000)]
    for at in range(0, len(lines), 200):
        await Drain(store, Days()).write(lines[at : at + 200])
    assert await counted(store) == 2_000


async def test_whatever_was_made_up_can_be_written(store: Store, ledger: Ledger) -> None:
    odd = 'a\0b\\u0000"\n\u2028ü' + "x" * 5_000
    ledger.note([(record("req_1", model=odd, error=odd, upstream_request_id=odd, tags={odd: odd}), "")])
    await ledger.drain()
    (row,) = (await rows(store)).values()
    assert row["model"] == odd[:200].replace("\0", "")
    assert ledger.lost == 0


async def test_what_the_ledger_has_deleted_is_not_counted_once_more(store: Store, tmp_path: Path) -> None:
    async with opened(store, tmp_path, kept_days=7) as ledger:
        ledger.note([(record("req_1", started_at_s=NOON_S - 8 * 86_400), "")])
        ledger.note([(record("req_2", started_at_s=NOON_S - 6 * 86_400), "")])
        await ledger.drain()
        assert (sorted(await rows(store)), ledger.lost) == (["req_2"], 1)


async def test_the_lines_that_another_process_left_are_written_once(store: Store, tmp_path: Path) -> None:
    dead = Journal(tmp_path, "usage")
    for number in range(1_000):
        dead.append(encode(record(f"req_{number}")))
    batch = dead.batch(10_000)
    assert batch is not None
    await Drain(store, Days()).write(batch.lines)  # and killed before it could acknowledge that
    dead.close()
    async with opened(store, tmp_path) as ledger:
        ledger._journal.adopt()
        await ledger.drain()
        assert ledger.drained == 1_000 - len(batch.lines)
    assert (len(await rows(store)), await counted(store)) == (1_000, 1_000)
    assert list(tmp_path.glob("*.journal")) == []  # noqa: ASYNC240 - nothing else runs on this loop


async def test_at_the_end_all_is_written_and_no_file_is_left(store: Store, tmp_path: Path) -> None:
    async with opened(store, tmp_path / "state") as ledger:
        ledger.note([(record("req_1"), "")])
    assert list(await rows(store)) == ["req_1"]
    assert list((tmp_path / "state").iterdir()) == []


async def test_while_the_database_is_away_the_journal_keeps_it_and_says_so_once(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with opened(store, tmp_path / "state") as ledger:
        await rename(store, "calls", "gone")
        for number in range(3):
            ledger.note([(record(f"req_{number}"), "")])
            assert not await ledger._could_drain()
        assert ledger.pending_bytes > 0
        assert families(ledger)["ledger_backlog_age_seconds"][()] == 5
        await rename(store, "gone", "calls")
        assert await ledger._could_drain()
        assert (ledger.pending_bytes, ledger.lost) == (0, 0)
        assert families(ledger)["ledger_backlog_age_seconds"][()] == 0
    assert await counted(store) == 3
    assert caplog.text.count("cannot be written to the database") == 1
    assert caplog.text.count("is written to the database again") == 1


async def rename(store: Store, old: str, new: str) -> None:
    """A table that is not there is a database that is away."""
    async with store.writing() as connection:
        await connection.execute(text(f"ALTER TABLE {old} RENAME TO {new}"))


async def test_a_full_disk_costs_nothing_while_memory_has_room(
    store: Store, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with monkeypatch.context() as full:
        full.setattr(os, "write", no_space)
        for number in range(3):
            ledger.note([(record(f"req_{number}"), "")])
        assert families(ledger)["ledger_journal_up"] == {(): 0.0}
    assert ledger.held_bytes > 0
    await ledger.drain()
    assert families(ledger)["ledger_journal_up"] == {(): 1.0}
    assert (sorted(await rows(store)), ledger.held_bytes, ledger.lost) == (["req_0", "req_1", "req_2"], 0, 0)
    assert caplog.text.count("takes no more") == 1
    assert caplog.text.count("waits in memory any more") == 1


async def test_a_database_elsewhere_takes_what_a_full_disk_does_not(
    store: Store, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    if store.dialect == "sqlite":
        return  # it is on the same disk
    monkeypatch.setattr(os, "write", no_space)
    ledger.note([(record("req_1"), "")])
    await ledger.drain()
    assert (list(await rows(store)), ledger.held_bytes) == (["req_1"], 0)


async def test_what_neither_disk_nor_memory_takes_is_lost_and_counted(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    size = len(encode(record("req_0")))
    async with opened(store, tmp_path, max_bytes=2 * size, max_held_bytes=3 * size) as ledger:
        for number in range(9):
            ledger.note([(record(f"req_{number}"), "")])
        assert families(ledger)["ledger_lost_records"] == {(): 4}
        await ledger.drain()
        assert families(ledger)["ledger_records"] == {(): 5}
    assert await counted(store) == 5
    assert caplog.text.count("Records of calls are lost") == 1


async def test_of_calls_that_end_together_the_journal_takes_as_many_as_it_has_room_for(
    store: Store, tmp_path: Path
) -> None:
    size = len(encode(record("req_0")))
    async with opened(store, tmp_path, max_bytes=3 * size, max_held_bytes=2 * size) as ledger:
        ledger.note([(record(f"req_{number}"), "") for number in range(5)])
        assert (ledger.pending_bytes, ledger.held_bytes, ledger.lost) == (3 * size, 2 * size, 0)
        await ledger.drain()
    assert await counted(store) == 5


async def test_a_bug_is_logged_once_and_no_call_s_business(ledger: Ledger, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(3):
        ledger.note([(record(f"req_{number}", started_at_s=float("nan")), "")])
    assert ledger.lost == 3
    assert caplog.text.count("on a bug") == 1


async def test_a_journal_that_cannot_be_made_keeps_the_gateway_from_starting(store: Store, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError):
        await Ledger(Journal(tmp_path / "file", "usage"), Drain(store, Days())).start()


async def test_a_drain_that_fails_says_what_it_is(store: Store, ledger: Ledger) -> None:
    await rename(store, "calls", "gone")
    ledger.note([(record("req_1"), "")])
    with pytest.raises(StoreUnavailable):
        await ledger.drain()
    await rename(store, "gone", "calls")


def no_space(*_: object) -> int:
    raise OSError(28, "No space left on device")


def families(ledger: Ledger) -> dict[str, dict[tuple[str, ...], float]]:
    """What is measured, by name."""
    return {family.name: dict(family.read()) for family in readings_of_ledger(ledger, lambda: NOON_S + 5)}  # type: ignore[attr-defined]
