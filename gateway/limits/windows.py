"""Which window of a day, week or month a moment lies in, and when the next one begins.

Pure: the moment and the time zone are passed in. Days begin at local midnight, or where a change of the clocks skips
that, when the new date begins; weeks begin on Monday (ISO 8601), and the week of a new year is named by its own year.
"""

from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Literal

import msgspec

WindowPeriod = Literal["day", "week", "month", "total"]


class Window(msgspec.Struct, frozen=True, gc=False):
    """`name` tells it from all others of its period: `2026-11-22`, `2026-W47`, `2026-11`, `total`."""

    name: str
    resets_at_s: int | None
    """Unix time of its end, which is the beginning of the next; None: it has no end."""


def window(period: WindowPeriod, at_s: float, zone: tzinfo = UTC) -> Window:
    """The window of `period` that contains `at_s`, a Unix time, for people who live in `zone`."""
    if period == "total":
        return Window("total", None)
    today = datetime.fromtimestamp(at_s, zone).date()
    if period == "day":
        return Window(today.isoformat(), _begin_s(today + timedelta(days=1), zone))
    if period == "week":
        year, week, weekday = today.isocalendar()
        return Window(f"{year}-W{week:02}", _begin_s(today + timedelta(days=8 - weekday), zone))
    # The 1st is never more than 31 days away, and 4 more never reach the month after the next.
    next_month = (today.replace(day=28) + timedelta(days=4)).replace(day=1)
    return Window(f"{today:%Y-%m}", _begin_s(next_month, zone))


def _begin_s(day: date, zone: tzinfo) -> int:
    """The first moment of a date. A midnight that is skipped is read with the offset before, which makes it the change.

    PEP 495: of a midnight that comes twice, `fold=0` is the first.
    """
    return int(datetime(day.year, day.month, day.day, tzinfo=zone).timestamp())
