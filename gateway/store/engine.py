"""Connections to the database, each for one task's short while.

Knows how SQLite and PostgreSQL are opened, how long they may take, and which failures mean that the database is away.
Knows no table, and does not retry: whoever asked knows whether that is safe.
"""

import asyncio
import contextlib
import functools
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Literal, TypeVar

from sqlalchemy import URL, Connection, event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from gateway.errors import StoreUnavailable
from gateway.store import drivers
from gateway.store.failures import asking, reaching, refusal
from gateway.store.own_time import Timer, within
from gateway.store.url import is_sqlite, shown

T = TypeVar("T")

_WRITES = "gateway_writes"
"""Execution option of connections that may change something."""


class Store:
    """A database and up to `pool_size` connections to it. Nothing is opened before the first use.

    `timeout_s` is the time to get a connection, and again for each statement, without what this process stood still
    (`own_time.py`). Use it on one event loop.
    """

    def __init__(self, url: URL, *, pool_size: int = 5, timeout_s: float = 5.0) -> None:
        self.dialect: Literal["sqlite", "postgresql"] = "sqlite" if is_sqlite(url) else "postgresql"
        self.is_away = False
        """Whether the last attempt failed, for want of the database."""
        self._timeout_s = timeout_s
        self._shown = shown(url)
        self._engine = drivers.engine(url, pool_size=pool_size, timeout_s=timeout_s)
        self._reader, self._writer = _faces(self._engine, self.dialect)
        self._turn = asyncio.Lock() if self.dialect == "sqlite" else contextlib.nullcontext()
        self._watches: dict[Connection, Timer] = {}
        self._listen()

    def __repr__(self) -> str:
        return f"Store({self._shown}, {self._engine.pool.status()}, {'away' if self.is_away else 'there'})"

    @property
    def engine(self) -> AsyncEngine:
        """What the connections come from, for who wants to listen to its events."""
        return self._engine

    @contextlib.asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """A connection for queries, outside of any transaction: each sees what is newest. Raises StoreUnavailable."""
        with self._noted(), asking():
            async with self._borrowed(self._reader) as connection:
                yield connection

    @contextlib.asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncConnection]:
        """A connection in a transaction: committed at the end, rolled back on any error. Raises StoreUnavailable.

        SQLite has one writer at a time. PostgreSQL has many (READ COMMITTED): lock what must not move. Where the
        database goes away at the very end, the commit may have gone through.
        """
        with self._noted(), asking():
            async with self._my_turn(), self._borrowed(self._writer) as connection, connection.begin():
                yield connection

    async def at_once(self, work: Callable[[sqlite3.Connection], T], *, gives_way: bool = False) -> T:
        """What `work` returns, which runs in a transaction of its own and in one step: for SQLite alone.

        Statements that are sent one by one take four trips to SQLite's thread each, and SQLAlchemy between them: more
        than the statements themselves. Where it `gives_way`, the thread does not interrupt calls; while there always
        are some, it comes to very little. Raises StoreUnavailable, and whatever `work` does; then nothing is changed.
        """
        with self._noted(), asking():
            async with self._my_turn(), self._borrowed(self._reader) as connection:
                raw = await connection.get_raw_connection()
                if connection.sync_connection is not None:
                    self._watch(connection.sync_connection)  # until it is given back
                result = await drivers.at_once(raw.driver_connection, work, gives_way=gives_way)
                self.is_away = False
                return result

    async def close(self) -> None:
        """Close the connections that are not in use."""
        await self._engine.dispose()

    @contextlib.contextmanager
    def _noted(self) -> Iterator[None]:
        try:
            yield
        except StoreUnavailable:
            self.is_away = True
            raise

    @contextlib.asynccontextmanager
    async def _my_turn(self) -> AsyncIterator[None]:
        # SQLite's own queue for its lock is neither fair nor quick; between the tasks of one process this one is.
        with reaching():
            async with within(self._timeout_s):
                await self._turn.__aenter__()
        try:
            yield
        finally:
            await self._turn.__aexit__(None, None, None)

    @contextlib.asynccontextmanager
    async def _borrowed(self, engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
        connection = engine.connect()
        with reaching():
            async with within(self._timeout_s):
                await connection.start()
        root = connection.sync_connection
        try:
            yield connection
        finally:
            try:
                await connection.close()
            finally:
                if root is not None:
                    self._unwatch(root)

    def _listen(self) -> None:
        engine = self._engine.sync_engine
        event.listen(engine, "before_cursor_execute", self._before_statement, named=True)
        event.listen(engine, "after_cursor_execute", self._after_statement)
        event.listen(engine, "commit", self._watch)
        event.listen(engine, "rollback", self._watch)
        event.listen(engine, "handle_error", _on_error)
        event.listen(engine, "close", self._on_close)

    def _before_statement(self, *, conn: Connection, context: Any, **_: object) -> None:
        if context is not None and (context.isinsert or context.isupdate or context.isdelete):
            _refuse_unless_writing(conn)
        self._watch(conn)

    def _after_statement(self, connection: Connection, *_: Any) -> None:
        self._unwatch(connection)
        self.is_away = False

    def _watch(self, connection: Connection) -> None:
        self._unwatch(connection)
        if connection.invalidated:
            return
        cut = functools.partial(self._cut, connection.connection.driver_connection)
        self._watches[connection] = Timer(self._timeout_s, cut)

    def _unwatch(self, connection: Connection) -> None:
        watch = self._watches.pop(connection, None)
        if watch is not None:
            watch.cancel()

    def _cut(self, driver: Any) -> None:
        self.is_away = True
        drivers.cut(driver)

    def _on_close(self, connection: Any, _record: object) -> None:
        # A server that hangs would hold up each farewell.
        if self.is_away and self.dialect == "postgresql":
            drivers.cut(connection.driver_connection)


def _faces(engine: AsyncEngine, dialect: str) -> tuple[AsyncEngine, AsyncEngine]:
    """For reading and for writing, on one pool."""
    if dialect == "sqlite":
        # A transaction that reads first and locks later would fail where another has written in between.
        return engine, engine.execution_options(**{drivers.BEGINS: "BEGIN IMMEDIATE", _WRITES: True})
    return engine.execution_options(isolation_level="AUTOCOMMIT"), engine.execution_options(**{_WRITES: True})


def _refuse_unless_writing(connection: Connection) -> None:
    if not connection.get_execution_options().get(_WRITES):
        raise RuntimeError("a change needs Store.writing()")


def _on_error(context: ExceptionContext) -> None:
    # The driver lets some failures of its socket through as they are.
    error = context.original_exception
    if isinstance(error, OSError):
        raise refusal(error) from error
