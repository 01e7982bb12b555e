"""Sums of usage as CSV (RFC 4180) that may be opened in a spreadsheet.

What is sent is whole, however many pages the ledger makes of it, and never more than one of these in memory.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import tzinfo
from functools import partial

import msgspec

from gateway.access.naming import Names
from gateway.metering.ledger_query import UsagePage, UsageQuery
from gateway.metering.sheets import csv_text, usage_head, usage_row

MEDIA_TYPE = "text/csv"
PAGE = 500
"""Rows that are made at once: a few milliseconds in which the loop does nothing else."""

Ask = Callable[[UsageQuery], Awaitable[tuple[UsagePage, Names]]]


async def csv_of(ask: Ask, query: UsageQuery, zone: tzinfo) -> AsyncIterator[bytes]:
    """The pieces of the document: its head, then all groups of `query` from its first page on.

    The first piece has the first page in it: what is wrong with the question is raised before anything is sent.
    """
    text = csv_text([usage_head(query.group_by)])
    after: str | None = None
    while True:
        page, names = await ask(msgspec.structs.replace(query, limit=PAGE, after=after))
        rows = (usage_row(group, partial(_name, names), zone) for group in page.groups)
        yield (text + csv_text(rows)).encode()
        after, text = page.next, ""
        if after is None:
            return


def _name(names: Names, object_id: str) -> str:
    return names.teams.get(object_id) or names.keys.get(object_id, "")
