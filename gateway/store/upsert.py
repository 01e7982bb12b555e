"""INSERT … ON CONFLICT, which SQLite and PostgreSQL both know and SQL does not.

Knows which of SQLAlchemy's two dialects speaks it; what conflicts, and what then, is for who asks.
"""

from typing import Literal, cast

from sqlalchemy import Table
from sqlalchemy.dialects import sqlite


def insert_into(table: Table, dialect: Literal["sqlite", "postgresql"]) -> sqlite.Insert:
    """An INSERT that has `on_conflict_do_update`, `on_conflict_do_nothing` and `excluded`."""
    if dialect == "postgresql":
        # Those who keep to SQLite need not wait 25 ms for it to be imported.
        from sqlalchemy.dialects import postgresql  # noqa: PLC0415

        # Another class, which has the same methods.
        return cast("sqlite.Insert", postgresql.insert(table))
    return sqlite.insert(table)
