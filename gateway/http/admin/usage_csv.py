"""Sums of usage as CSV (RFC 4180) that may be opened in a spreadsheet.

What is sent is whole, however many pages the ledger makes of it, and never more than one of these in memory. Money is
there twice: in micro-dollars, to add up, and in dollars.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime, tzinfo
from typing import Any

import msgspec

from gateway.access.naming import Names
from gateway.metering.ledger_query import Sums, UsageGroup, UsagePage, UsageQuery
from gateway.metering.sheets import csv_text

MEDIA_TYPE = "text/csv"
PAGE = 500
"""Rows that are made at once: a few milliseconds in which the loop does nothing else."""

Ask = Callable[[UsageQuery], Awaitable[tuple[UsagePage, Names]]]

_SUMS = Sums.__struct_fields__


async def csv_of(ask: Ask, query: UsageQuery, zone: tzinfo) -> AsyncIterator[bytes]:
    """The pieces of the document: its head, then all groups of `query` from its first page on.

    The first piece has the first page in it: what is wrong with the question is raised before anything is sent.
    Groups that come into being meanwhile move the later pages, so what was on the page before is left out.
    """
    text = csv_text([_head(query.group_by)])
    before: set[tuple[Any, ...]] = set()
    after: str | None = None
    while True:
        page, names = await ask(msgspec.structs.replace(query, limit=PAGE, after=after))
        new = [group for group in page.groups if tuple(group.group.values()) not in before]
        yield (text + csv_text(_row(group, names, zone) for group in new)).encode()
        before, after, text = {tuple(group.group.values()) for group in page.groups}, page.next, ""
        if after is None:
            return


def _head(words: tuple[str, ...]) -> list[str]:
    named = (((f"{word}_id", word) if word in ("team", "key") else (word,)) for word in words)
    return [column for columns in named for column in columns] + [*_SUMS, "cost_usd"]


def _row(of: UsageGroup, names: Names, zone: tzinfo) -> list[str]:
    cells: list[str] = []
    for word, value in of.group.items():
        if word == "hour":
            cells.append(datetime.fromtimestamp(int(value or 0), zone).isoformat())
            continue
        cells.append("" if value is None else str(value))
        if word in ("team", "key"):
            cells.append((names.teams if word == "team" else names.keys).get(str(value), ""))
    return [*cells, *map(str, msgspec.structs.astuple(of.sums)), _usd(of.sums.cost_microusd)]


def _usd(microusd: int) -> str:
    """Decimals, never a float."""
    return f"{microusd // 1_000_000}.{microusd % 1_000_000:06}"
