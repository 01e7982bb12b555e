"""Many rows in one statement, at the cost of a tuple each: SQLAlchemy would look through every value of every row.

SQLite takes the tuples as they are. PostgreSQL gets them as one JSON array, which its own process takes apart.
"""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Literal

import msgspec
from sqlalchemy import CursorResult, Executable, Table, Text, bindparam, cast, func, select
from sqlalchemy.dialects import sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.store.upsert import insert_into

Conflict = Callable[[sqlite.Insert], Any]
"""Says of an INSERT what is to happen to rows that are there already."""


class BulkInsert:
    """An INSERT of all columns of `table`, whose rows are tuples in their order."""

    def __init__(self, table: Table, conflict: Conflict) -> None:
        self._table = table
        self._conflict = conflict

    def __repr__(self) -> str:
        return f"BulkInsert({self._table.name})"

    async def run(
        self, connection: AsyncConnection, dialect: Literal["sqlite", "postgresql"], rows: Sequence[tuple[Any, ...]]
    ) -> CursorResult[Any]:
        """Insert `rows`, at least one, in the transaction of `connection`; RETURNING is for PostgreSQL alone."""
        if dialect == "sqlite":
            return await connection.exec_driver_sql(self.for_sqlite, list(rows))
        return await connection.execute(self._for_postgresql, {"rows": msgspec.json.encode(rows).decode()})

    @cached_property
    def for_sqlite(self) -> str:
        """The statement, for `executemany`."""
        return str(self._conflict(insert_into(self._table, "sqlite")).compile(dialect=sqlite.dialect()))

    @cached_property
    def _for_postgresql(self) -> Executable:
        # Those who keep to SQLite need not wait 25 ms for it to be imported.
        from sqlalchemy.dialects.postgresql import JSONB  # noqa: PLC0415

        row = func.jsonb_array_elements(cast(bindparam("rows", type_=Text), JSONB)).column_valued("row")
        values = [cast(row.op("->>")(at), column.type) for at, column in enumerate(self._table.columns)]
        names = [column.name for column in self._table.columns]
        statement: Executable = self._conflict(
            insert_into(self._table, "postgresql").from_select(names, select(*values))
        )
        return statement
