"""Ordinary lines into SQLite, all of a batch in one step of its thread, a few at a time.

Each statement that is sent there by itself takes four trips between two threads, and SQLAlchemy: more than what it
does. In one go, a batch would keep calls waiting where thread and calls share a processor; so the thread rests, and it
does not interrupt them (`gives_way`).
"""

import sqlite3
from collections.abc import Callable, Sequence
from time import perf_counter

from gateway.metering import due, rollups
from gateway.metering.ledger_line import Line, decode
from gateway.metering.ledger_rows import CALLS, TAGS, row, tags
from gateway.metering.rollups import Days

_FEW = 16
_RESTS, _LONGEST_REST_S = 4, 0.005
"""After a few lines it rests so many times as long as they took."""


class UnusualError(Exception):
    """Lines that this does not write: one is known already, is due or tells of one that was, or is too old."""


def write_ordinary(
    connection: sqlite3.Connection,
    raw: Sequence[bytes],
    days: Days,
    kept_since_us: int,
    sleep: Callable[[float], None] | None,
) -> list[Line]:
    """The lines, all written within the transaction of `connection`. `sleep`: how to rest, None where there is haste.

    Raises `UnusualError`, `msgspec.DecodeError`, and what SQLite does; then the transaction is good for nothing.
    """
    written: list[Line] = []
    for start in range(0, len(raw), _FEW):
        began_s = perf_counter()
        written += _written(connection, raw[start : start + _FEW], kept_since_us)
        if sleep is not None:
            sleep(min(_RESTS * (perf_counter() - began_s), _LONGEST_REST_S))
    connection.executemany(rollups.GROWING.for_sqlite, rollups.sums(written, days))
    return written


def _written(connection: sqlite3.Connection, raw: Sequence[bytes], kept_since_us: int) -> list[Line]:
    lines = [decode(each) for each in raw]
    if due.concerns(lines) or min(line.started_at for line in lines) < kept_since_us:
        raise UnusualError
    if connection.executemany(CALLS.for_sqlite, [row(line) for line in lines]).rowcount < len(lines):
        raise UnusualError
    if rows := tags(lines):
        connection.executemany(TAGS.for_sqlite, rows)
    return lines
