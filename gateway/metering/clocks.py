"""Days and hours of a time zone in SQL, which on SQLite knows none.

Between two changes of its clocks a zone is at a fixed distance from UTC: so a sum and a division do, and the changes
within the time that is asked for are found beforehand. Pure.
"""

from collections.abc import Sequence
from datetime import datetime, tzinfo

from sqlalchemy import BigInteger, ColumnElement, case, literal_column

DAY_US = 86_400_000_000
HOUR_US = 3_600_000_000
_SECOND_US = 1_000_000

Change = tuple[int, int]
"""From when on, in microseconds since 1970, and how far the zone is from UTC then."""


def changes(zone: tzinfo, since_us: int, until_us: int) -> list[Change]:
    """The changes of the clocks between two moments, the first of which counts as one."""
    found = [(since_us, _offset_us(zone, since_us))]
    for day_us in range(since_us, until_us, DAY_US):
        end_us = min(day_us + DAY_US, until_us)
        if _offset_us(zone, end_us) != found[-1][1]:
            found.append(_change(zone, day_us, end_us))
    return found


def local_us(column: ColumnElement[int], during: Sequence[Change]) -> ColumnElement[int]:
    """`column`, a time in microseconds, as the zone's clocks show it; `during` are the `changes` of all its values."""
    first, *later = during
    if not later:
        return column + _number(first[1])
    shifted = [(column >= _number(from_us), column + _number(offset_us)) for from_us, offset_us in reversed(later)]
    return case(*shifted, else_=column + _number(first[1]))


def day(column: ColumnElement[int], during: Sequence[Change]) -> ColumnElement[int]:
    """The local day, counted from 1970-01-01."""
    return local_us(column, during) // _number(DAY_US)


def hour_s(column: ColumnElement[int], during: Sequence[Change]) -> ColumnElement[int]:
    """The Unix time in seconds at which the local hour begins; an hour that comes twice is two."""
    return (column - local_us(column, during) % _number(HOUR_US)) // _number(_SECOND_US)


def _number(value: int) -> ColumnElement[int]:
    # As text: two parameters are never the same to PostgreSQL, and so neither what is selected and what is grouped by.
    return literal_column(str(int(value)), BigInteger)


def _offset_us(zone: tzinfo, at_us: int) -> int:
    offset = datetime.fromtimestamp(at_us // _SECOND_US, zone).utcoffset()
    return 0 if offset is None else int(offset.total_seconds()) * _SECOND_US


def _change(zone: tzinfo, low_us: int, high_us: int) -> Change:
    """The one change of the clocks between two moments."""
    low, high = low_us // _SECOND_US, high_us // _SECOND_US
    before = _offset_us(zone, low_us)
    while high - low > 1:
        middle = (low + high) // 2
        if _offset_us(zone, middle * _SECOND_US) == before:
            low = middle
        else:
            high = middle
    return high * _SECOND_US, _offset_us(zone, high * _SECOND_US)
