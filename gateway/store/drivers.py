"""How SQLite and PostgreSQL are opened, and how a connection that hangs is cut off.

Knows drivers, pragmas and server settings. What is asked, and what a failure means, is others' business.
"""

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar

import aiosqlite
import msgspec
from sqlalchemy import URL, Connection, NullPool, event
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from gateway.store.url import dsn, is_sqlite

T = TypeVar("T")

APPLICATION = "gmi-gateway"

BEGINS = "gateway_begins"
"""Execution option: the statement that begins a transaction on SQLite, whose driver is left to begin none."""

_FILE_ID = "gateway_file"

SQLITE_PRAGMAS = (
    "PRAGMA foreign_keys = ON",
    # A commit is on the disk before it is answered: no power failure brings a revoked key back.
    "PRAGMA synchronous = FULL",
)


def engine(url: URL, *, pool_size: int, timeout_s: float) -> AsyncEngine:
    """An engine with at most `pool_size` connections; statements may wait `timeout_s` for a lock. Opens nothing yet.

    Who waits for one of them bounds that: the pool's own time would also run while this process stands still.
    """
    pool = {"pool_size": pool_size, "max_overflow": 0, "pool_timeout": None}
    return _opened(url, timeout_s, SQLITE_PRAGMAS, pool)


def single_engine(url: URL, *, timeout_s: float) -> AsyncEngine:
    """An engine whose connections are closed after use, for work on the schema itself.

    On SQLite foreign keys are off, so that tables can be rebuilt; statements may wait `timeout_s` for a lock.
    """
    return _opened(url, timeout_s, (), {"poolclass": NullPool})


def cut(driver: Any) -> None:
    """Make the statement under way on a driver's connection fail at once."""
    if isinstance(driver, aiosqlite.Connection):
        # The coroutine of this name only calls through; there is nobody here to await it.
        driver._conn.interrupt()  # noqa: SLF001
    else:
        driver.terminate()


async def at_once(driver: Any, work: Callable[[sqlite3.Connection], T], *, gives_way: bool) -> T:
    """What `work` returns, in one transaction and in one step of the thread that SQLite runs in.

    A thread that `gives_way` interrupts no other that runs; where one always does, it may come to very little.
    """
    result: T = await driver._execute(_in_transaction, driver._conn, work, gives_way)  # noqa: SLF001 - no public way
    return result


@contextlib.contextmanager
def _giving_way() -> Iterator[None]:
    """This thread interrupts no other meanwhile, if the system can do that and nobody chose another way for it."""
    did = _reschedule("SCHED_OTHER", "SCHED_BATCH")
    try:
        yield
    finally:
        if did:
            _reschedule("SCHED_BATCH", "SCHED_OTHER")


def _reschedule(before: str, after: str) -> bool:
    """Give this thread another of Linux' policies; False where it has not the one `before`, or may not."""
    try:
        if os.sched_getscheduler(0) != getattr(os, before):
            return False
        os.sched_setscheduler(0, getattr(os, after), os.sched_param(0))
    except (AttributeError, OSError):
        return False
    return True


def _in_transaction(connection: sqlite3.Connection, work: Callable[[sqlite3.Connection], T], gives_way: bool) -> T:
    with _giving_way() if gives_way else contextlib.nullcontext():
        connection.execute("BEGIN IMMEDIATE")
        try:
            result = work(connection)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:  # some failures have ended it
                connection.execute("ROLLBACK")
            raise
        return result


def _opened(url: URL, timeout_s: float, pragmas: tuple[str, ...], pool: dict[str, Any]) -> AsyncEngine:
    options = {
        **pool,
        "hide_parameters": True,
        "json_serializer": _json,
        "json_deserializer": msgspec.json.decode,
    }
    if is_sqlite(url):
        return _sqlite(url, timeout_s, pragmas, options)
    return _postgresql(url, timeout_s, options)


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _sqlite(url: URL, timeout_s: float, pragmas: tuple[str, ...], options: dict[str, Any]) -> AsyncEngine:
    arguments = {"timeout": timeout_s, "isolation_level": None, "async_creator_fn": _open_file}
    made = create_async_engine(url, connect_args=arguments, **options)
    file = _File(Path(url.database or ""))
    event.listen(made.sync_engine, "do_connect", file.make)
    event.listen(made.sync_engine, "connect", file.note)
    event.listen(made.sync_engine, "connect", partial(_run_each, pragmas))
    event.listen(made.sync_engine, "checkout", file.check)
    event.listen(made.sync_engine, "begin", _begin)
    return made


async def _open_file(*of: Any, **how: Any) -> aiosqlite.Connection:
    """As the driver does it, but whoever is cancelled, and whatever fails, leaves no file and no thread behind."""
    connection = aiosqlite.connect(*of, **how, factory=_Connection)
    thread = connection._thread  # noqa: SLF001
    thread.daemon = True
    opening = asyncio.ensure_future(_opened_or_ended(connection, thread))
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        with contextlib.suppress(Exception):
            await (await opening).close()
        raise


async def _opened_or_ended(connection: aiosqlite.Connection, thread: Thread) -> aiosqlite.Connection:
    try:
        return await connection
    except Exception:
        # It has been told to end, and would answer to a loop that may be closed by then.
        await asyncio.to_thread(thread.join)
        raise


class _Connection(sqlite3.Connection):
    """Ends its transaction when it is closed.

    SQLite keeps a connection, with its locks, until the last of its statements is gone. That of a task which was
    cancelled is held by the task's traceback, for as long as somebody holds the task.
    """

    def close(self) -> None:
        try:
            if self.in_transaction:
                self.rollback()
        finally:
            super().close()


class _File:
    """A database's file: made if there is none at first, and not once more when it is gone later.

    A new one would pass for a gateway without keys, and what is written to a deleted one is lost. Whatever is in the
    place of the file is opened, so that one that is put back is found.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._was_there = False

    def make(self, *_: object) -> None:
        """For the owner alone. SQLite gives the files beside it (-wal, -shm) the same mode."""
        if self._was_there:
            self._path.stat()
            return
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Never opened where it exists: to close it would drop the locks that this process has on it.
        with contextlib.suppress(FileExistsError):
            os.close(os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        self._was_there = True

    def note(self, _connection: object, record: Any) -> None:
        """Which file a new connection is to."""
        record.info[_FILE_ID] = self._id()

    def check(self, _connection: object, record: Any, _proxy: object) -> None:
        """Raises DisconnectionError for a connection to a file that is no longer in its place."""
        if record.info.get(_FILE_ID) != self._id():
            raise DisconnectionError("the database's file is not the one that was opened")

    def _id(self) -> tuple[int, int] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino


def _run_each(statements: tuple[str, ...], connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    for statement in statements:
        cursor.execute(statement)
    cursor.close()


def _begin(connection: Connection) -> None:
    statement = connection.get_execution_options().get(BEGINS)
    if statement:
        connection.exec_driver_sql(statement)


def _postgresql(url: URL, timeout_s: float, options: dict[str, Any]) -> AsyncEngine:
    # asyncpg reads the URL itself, with all of libpq's parameters; SQLAlchemy would hand them on as arguments.
    arguments = {"dsn": dsn(url), "timeout": timeout_s, "server_settings": _server_settings(url, timeout_s)}
    made = create_async_engine("postgresql+asyncpg://", connect_args=arguments, **options)
    event.listen(made.sync_engine, "checkout", _refuse_closed)
    return made


def _server_settings(url: URL, timeout_s: float) -> dict[str, str]:
    whole_ms = int(timeout_s * 1000)
    return {
        "application_name": str(url.query.get("application_name", APPLICATION)),
        # The server gives up before we do, and the connection is saved.
        "statement_timeout": str(max(1, whole_ms * 9 // 10)),
        # A node that dies in a transaction must not keep its locks until TCP notices.
        "idle_in_transaction_session_timeout": str(max(1, whole_ms)),
    }


def _refuse_closed(connection: Any, _record: object, _proxy: object) -> None:
    """What a ping would find, without asking: the loop has seen the server close."""
    if connection.driver_connection.is_closed():
        raise DisconnectionError("the server has closed this connection")
