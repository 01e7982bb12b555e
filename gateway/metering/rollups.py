"""Sums of calls by day, key, model and route, kept beside the calls themselves.

What happened long ago is asked for by the month and the year: from the sums that is a matter of milliseconds, and they
stay when single calls have long been deleted.
"""

from collections.abc import Iterable
from datetime import UTC, date, datetime, tzinfo
from typing import Any, Literal

from sqlalchemy.dialects import sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.metering.bulk import BulkInsert
from gateway.metering.late import PREFIX
from gateway.metering.ledger_line import Line
from gateway.store.tables import COUNTS, USAGE, usage_days

FAILED = ("upstream_error", "failed", "cut", "drained")
"""Outcomes of calls that a client would want to have ended otherwise, and that are no refusal of its own making."""
KNOWN = ("reported", "estimated")
"""Sources of a usage that has a price, unless its model has none."""

_MOST = 2**40
"""Tokens, or micro-dollars, that no call can come to: more is a mistake of upstream's, of which sums overflow."""
_EPOCH = date(1970, 1, 1).toordinal()
_QUARTER_US = 900_000_000
"""Clocks are changed, and zones differ, by whole quarters of an hour."""
_KEPT_QUARTERS = 1_000
_PLACE = ("day", "team_id", "key_id", "model", "route")
_SUMS = (*COUNTS, *USAGE, "cost_microusd")

_Place = tuple[int, str, str, str, str]


class Days:
    """Which day a moment belongs to, in one time zone; days are counted from 1970-01-01."""

    def __init__(self, zone: tzinfo = UTC) -> None:
        self.zone = zone
        self._days: dict[int, int] = {}

    def __repr__(self) -> str:
        return f"Days({self.zone})"

    def of(self, at_us: int) -> int:
        """The day of a moment, in microseconds since 1970."""
        quarter = at_us // _QUARTER_US
        day = self._days.get(quarter)
        if day is None:
            if len(self._days) >= _KEPT_QUARTERS:
                self._days.clear()
            moment = datetime.fromtimestamp(quarter * (_QUARTER_US // 1_000_000), self.zone)
            day = self._days[quarter] = moment.date().toordinal() - _EPOCH
        return day

    def begin_us(self, day: int) -> int:
        """The first moment of a day. A midnight that the clocks skip is where they are changed."""
        local = date_of(day)
        return int(datetime(local.year, local.month, local.day, tzinfo=self.zone).timestamp()) * 1_000_000


def date_of(day: int) -> date:
    """The date of a day that is counted from 1970-01-01."""
    return date.fromordinal(_EPOCH + day)


def sums(lines: Iterable[Line], days: Days) -> list[tuple[Any, ...]]:
    """What the lines add to rows of `usage_days`, in the order of its columns, and of its primary key."""
    found: dict[_Place, list[int]] = {}
    for line in lines:
        place = (days.of(line.started_at), line.team_id, line.key_id, line.model or "", line.route)
        amounts = found.get(place)
        if amounts is None:
            amounts = found[place] = [0] * len(_SUMS)
        if line.outcome != "done" or line.usage_source != "reported" or line.id.startswith(PREFIX):
            _add_kind(amounts, line)
        else:
            amounts[0] += 1
        _add_used(amounts, line)
    # In one order on all nodes, so that no two transactions wait for each other.
    return [(*place, *found[place]) for place in sorted(found)]


def _add_kind(amounts: list[int], line: Line) -> None:
    """Into `COUNTS`. Usage that came late is of a call which has a line of its own."""
    calls = 1 + line.more
    amounts[0] += 0 if line.id.startswith(PREFIX) else calls
    amounts[1] += calls if line.outcome == "refused" else 0
    amounts[2] += line.outcome in FAILED
    amounts[3] += line.usage_source == "estimated"
    amounts[4] += line.usage_source == "unknown"


def _add_used(amounts: list[int], line: Line) -> None:
    """Tokens and the like, and what they cost."""
    cost = line.cost_microusd
    if cost is None:
        amounts[5] += line.usage_source in KNOWN
    elif cost:
        amounts[-1] += min(_MOST, cost)
    if line.usage is not None:
        for at, count in enumerate(line.usage[: len(USAGE)], len(COUNTS)):
            if count:
                amounts[at] += min(_MOST, count)


def _grown(statement: sqlite.Insert) -> sqlite.Insert:
    new = statement.excluded
    grown = {name: usage_days.c[name] + new[name] for name in _SUMS}
    return statement.on_conflict_do_update(index_elements=list(_PLACE), set_=grown)


GROWING = BulkInsert(usage_days, _grown)
"""Adds rows to `usage_days`."""


async def add(
    connection: AsyncConnection, dialect: Literal["sqlite", "postgresql"], rows: list[tuple[Any, ...]]
) -> None:
    """Add `rows` to `usage_days`, in the transaction of `connection`."""
    await GROWING.run(connection, dialect, rows)
