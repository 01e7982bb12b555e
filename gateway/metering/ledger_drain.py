"""From lines of the journal to rows of the ledger: each call once, however often its line comes.

A batch is one statement: the database takes the lines apart itself, in its own thread or process, so that a call's row
costs the loop next to nothing. Which calls are new it says, and only those are added to the sums, in one transaction.
"""

import logging
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, Literal, NamedTuple

import msgspec
from sqlalchemy import ColumnElement, Executable, Text, bindparam, cast, func, select, true
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.metering import rollups
from gateway.metering.ledger_line import Line, decode
from gateway.metering.rollups import Days
from gateway.store.engine import Store
from gateway.store.failures import sqlstate
from gateway.store.tables import USAGE, call_tags, calls
from gateway.store.upsert import insert_into

_MEMBERS = tuple(name for name in Line.__struct_fields__ if name not in ("usage", "tags"))
_DATA_EXCEPTION = "22"
"""Class of PostgreSQL's SQLSTATEs for values that it cannot keep; SQLite keeps all."""
_USAGE_AT = Line.__struct_fields__.index("usage")

_log = logging.getLogger("gateway")


class Written(NamedTuple):
    """What became of some lines: so many are `new` in the ledger, so many can never be kept, and are `lost`."""

    new: int
    lost: int


class Drain:
    """Writes lines into `store`, whose days are `days`."""

    def __init__(self, store: Store, days: Days) -> None:
        self._store = store
        self._days = days

    async def write(self, raw: Sequence[bytes], *, kept_since_us: int = 0) -> Written:
        """Write lines. Raises `StoreUnavailable`; then, and if it is cancelled, they may have been written or not.

        What the ledger has deleted before `kept_since_us` it would count once more: such lines are lost.
        """
        lines = [line for line in _readable(raw) if line[1].started_at >= kept_since_us]
        lost = len(raw) - len(lines)
        if not lines:
            return Written(0, lost)
        try:
            return Written(await self._write(lines), lost)
        except DBAPIError as error:
            if not (sqlstate(error) or "").startswith(_DATA_EXCEPTION):
                raise
            if len(lines) > 1:
                new, more = await self._write_each(lines)
                return Written(new, lost + more)
            _log.exception("The ledger's database refuses the record of call %s, which is lost.", lines[0][1].id)
            return Written(0, lost + 1)

    async def _write_each(self, lines: Iterable[tuple[bytes, Line]]) -> Written:
        """One of them is refused, and must not keep the others."""
        each = [await self.write([raw]) for raw, _ in lines]
        return Written(sum(written.new for written in each), sum(written.lost for written in each))

    async def _write(self, lines: Sequence[tuple[bytes, Line]]) -> int:
        batch = b"[" + b",".join(raw.rstrip() for raw, _ in lines) + b"]"
        async with self._store.writing() as connection:
            added = await connection.execute(_insert(self._store.dialect), {"batch": batch.decode()})
            ids = set(added.scalars())
            new = list({line.id: line for _, line in lines if line.id in ids}.values())
            if new:
                await _add_tags(connection, self._store.dialect, new)
                await rollups.add(connection, self._store.dialect, rollups.sums(new, self._days))
        return len(new)


def _readable(raw: Iterable[bytes]) -> list[tuple[bytes, Line]]:
    lines = []
    for each in raw:
        try:
            lines.append((each, decode(each)))
        except msgspec.DecodeError:
            _log.warning("a line of the journal of usage cannot be read, and its call is lost (%d bytes)", len(each))
    return lines


async def _add_tags(
    connection: AsyncConnection, dialect: Literal["sqlite", "postgresql"], lines: Iterable[Line]
) -> None:
    rows = [
        {"call_id": line.id, "name": name, "value": value, "started_at": line.started_at}
        for line in lines
        for name, value in line.tags.items()
    ]
    if rows:
        await connection.execute(insert_into(call_tags, dialect).on_conflict_do_nothing(), rows)


@cache
def _insert(dialect: Literal["sqlite", "postgresql"]) -> Executable:
    """INSERT of a whole batch, a JSON array of lines; it tells the ids of those that are new."""
    names = (*_MEMBERS, *USAGE)
    values = _taken_apart_by_postgresql() if dialect == "postgresql" else _taken_apart_by_sqlite()
    # Without a WHERE, SQLite takes ON CONFLICT for the condition of a join.
    rows = select(*values).where(true())
    return insert_into(calls, dialect).from_select(names, rows).on_conflict_do_nothing().returning(calls.c.id)


def _taken_apart_by_sqlite() -> list[ColumnElement[Any]]:
    line = func.json_each(bindparam("batch", type_=Text)).table_valued("value", name="lines").c.value
    values: list[ColumnElement[Any]] = [func.json_extract(line, f"$[{at}]") for at in range(len(_MEMBERS))]
    return values + [func.json_extract(line, f"$[{_USAGE_AT}][{kind}]") for kind in range(len(USAGE))]


def _taken_apart_by_postgresql() -> list[ColumnElement[Any]]:
    from sqlalchemy.dialects.postgresql import JSONB  # noqa: PLC0415 - those who keep to SQLite need not load it

    line = func.jsonb_array_elements(cast(bindparam("batch", type_=Text), JSONB)).column_valued("line")
    values: list[ColumnElement[Any]] = [
        cast(line.op("->>")(at), calls.c[name].type) for at, name in enumerate(_MEMBERS)
    ]
    usage = line.op("->")(_USAGE_AT)
    return values + [cast(usage.op("->>")(kind), calls.c[name].type) for kind, name in enumerate(USAGE)]
