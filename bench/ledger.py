"""How long questions to a ledger of a million calls take: `python -m bench.ledger`.

The calls are spread over 90 days, some teams, keys and models; they are written as the gateway writes them, batch by
batch, which is measured too. SQLite, and PostgreSQL with `--postgresql URL` of an empty database.
"""

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from msgspec.structs import replace
from sqlalchemy import text

from gateway.call import CallRecord, Principal, Route, Usage
from gateway.metering.ledger_drain import Drain
from gateway.metering.ledger_line import encode
from gateway.metering.ledger_queries import LedgerQueries
from gateway.metering.ledger_query import CallsQuery, UsageQuery
from gateway.metering.rollups import Days
from gateway.store.engine import Store
from gateway.store.migrate import migrate
from gateway.store.url import parse

DAYS = 90
LIMIT_S = 1.0
_DAY_US = 86_400_000_000
_FIRST_DAY = 20_700
_BATCH = 230
"""Lines in a batch of the gateway's."""
_KEYS, _TEAMS = 100, 10
_MODELS = ("openai/gpt-5.2", "zai/glm-5", "deepseek/v4", "qwen/qwen4", "moonshot/k3")
_ROUTES = (Route("POST", "chat/completions"), Route("POST", "responses"), Route("POST", "embeddings"))


def _records(count: int) -> Iterator[CallRecord]:
    of = random.Random(5)  # noqa: S311 - traffic, no secrets
    principals = [Principal("", "", f"key_{number:020}", f"team_{number % _TEAMS:020}") for number in range(_KEYS)]
    for number in range(count):
        tokens = of.randrange(10_000)
        yield CallRecord(
            id=f"req_{number:024}",
            upstream_request_id=f"chatcmpl-{number:024}",
            principal=of.choice(principals),
            route=of.choice(_ROUTES),
            method="POST",
            model=of.choice(_MODELS),
            status=200,
            outcome="done",
            streamed=number % 2 == 0,
            started_at_s=(_FIRST_DAY + DAYS * number / count) * 86_400,
            duration_s=of.random(),
            first_byte_s=0.1,
            overhead_s=0.0005,
            sent_bytes=tokens,
            usage=Usage(tokens, 100, tokens + 100),
            error=None,
            upstream_error=None,
            usage_source="reported",
            cost_microusd=tokens,
            endpoint="upstream",
            tags={"project": of.choice("abcdefgh")} if number % 10 == 0 else {},
        )


async def _fill(store: Store, days: Days, count: int) -> float:
    """Write so many calls; the seconds that took, making them up left out."""
    drain, taken_s = Drain(store, days), 0.0
    batch: list[bytes] = []
    for record in _records(count):
        batch.append(encode(record))
        if len(batch) == _BATCH:
            began_at = time.perf_counter()
            await drain.write(batch)
            taken_s += time.perf_counter() - began_at
            batch.clear()
    await drain.write(batch)
    return taken_s


def _questions() -> Iterator[tuple[str, UsageQuery | CallsQuery]]:
    since_us, until_us = _FIRST_DAY * _DAY_US, (_FIRST_DAY + DAYS) * _DAY_US
    by_day = UsageQuery(since_us=since_us, until_us=until_us, group_by=("team", "day"), limit=1_000)
    week = replace(by_day, since_us=until_us - 7 * _DAY_US)
    newest = CallsQuery(since_us=since_us, until_us=until_us)
    yield "usage by team and day, 90 days", by_day
    yield "usage by key, model and day, 90 days", replace(by_day, group_by=("key", "model", "day"))
    yield "usage by key and day of one team", replace(by_day, group_by=("key", "day"), team_ids=(f"team_{3:020}",))
    yield "usage by team and day from single calls", replace(by_day, until_us=until_us - 1)
    yield "usage by team and hour, 7 days", replace(week, group_by=("team", "hour"))
    yield "usage by tag, 7 days", replace(week, group_by=("tag:project",))
    yield "newest 100 calls", newest
    yield "newest 100 calls of one key", replace(newest, key_ids=(f"key_{7:020}",))
    yield "newest 100 calls with a tag", replace(newest, tags={"project": "a"})


async def _ask(ledger: LedgerQueries, question: UsageQuery | CallsQuery) -> float:
    """The best of three, in seconds."""
    taken_s = []
    for _ in range(3):
        began_at = time.perf_counter()
        await (ledger.usage(question) if isinstance(question, UsageQuery) else ledger.calls(question))
        taken_s.append(time.perf_counter() - began_at)
    return min(taken_s)


async def _run(url_text: str, count: int) -> bool:
    """Whether the question that has a limit kept it."""
    url = parse(url_text)
    await migrate(url)
    store, days = Store(url, timeout_s=60), Days()
    taken_s = await _fill(store, days, count)
    sys.stdout.write(f"{store.dialect}: {count:,} calls written, {taken_s / count * 1e6:.1f} µs each\n")
    if store.dialect == "postgresql":
        async with store.writing() as connection:
            await connection.execute(text("ANALYZE"))
    ledger, kept = LedgerQueries(store, days), True
    for number, (name, question) in enumerate(_questions()):
        seconds = await _ask(ledger, question)
        kept = kept and (number > 0 or seconds < LIMIT_S)
        sys.stdout.write(f"  {name:<42} {seconds * 1e3:8.1f} ms\n")
        sys.stdout.flush()
    await store.close()
    return kept


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.ledger", description="Questions to a large ledger.")
    parser.add_argument("--calls", type=int, default=1_000_000, help="how many (%(default)s)")
    parser.add_argument("--postgresql", metavar="URL", help="an empty database; without it, SQLite alone")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gateway-ledger-") as folder:
        kept = asyncio.run(_run(f"sqlite:///{Path(folder)}/ledger.db", options.calls))
    if options.postgresql:
        kept = asyncio.run(_run(options.postgresql, options.calls)) and kept
    return int(not kept)


if __name__ == "__main__":
    raise SystemExit(main())
