"""Which failures of a database mean that it is away, and which are bugs of ours.

Knows SQLSTATE classes (PostgreSQL's manual, appendix A) and SQLite's result codes
(https://www.sqlite.org/rescode.html). Pure: looks at exceptions, and opens nothing.
"""

import contextlib
import sqlite3
from collections.abc import Iterator

from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from gateway.errors import StoreUnavailable

_AWAY_CLASSES = frozenset({"08", "28", "3D", "53", "57", "58"})
"""Connection, log-in, no such database, out of resources, stopped by an operator or a timeout, I/O."""

_AWAY_STATES = frozenset({"25006", "25P03", "40001", "40P01", "42P01", "55P03"})
"""A standby that only reads, an idle transaction that was ended, a conflict or deadlock, no such table (as below), a
lock that was not got."""

_AWAY_RESULTS = frozenset(
    {
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_INTERRUPT,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_NOTADB,
    }
)

_NO_TABLE = "no such table: "
"""Of SQLite, which has no code for it: another database is in the place of the one that was migrated at the start."""

MESSAGE = "The gateway's database cannot be reached. Please try again in a moment."


@contextlib.contextmanager
def reaching() -> Iterator[None]:
    """Around getting a connection: any failure of network, file, log-in or time is StoreUnavailable."""
    try:
        yield
    except (OSError, SQLAlchemyError) as error:
        raise refusal(error) from error


@contextlib.contextmanager
def asking() -> Iterator[None]:
    """Around the use of a connection: what means that the database is away is StoreUnavailable, bugs stay bugs."""
    try:
        yield
    except (SQLAlchemyError, sqlite3.Error) as error:
        away = unavailable(error)
        if away is None:
            raise
        raise away from error


def unavailable(error: BaseException) -> StoreUnavailable | None:
    """The refusal that `error` amounts to, its cause in `detail`; None for a bug."""
    return refusal(error) if _is_away(error) else None


def refusal(error: BaseException) -> StoreUnavailable:
    """What the client sees of `error`, with its cause in `detail`."""
    return StoreUnavailable(MESSAGE, detail=reason(error))


def reason(error: BaseException) -> str:
    """What went wrong in one line, without the statement and its values."""
    cause = _cause(error)
    text = " ".join(str(cause).split())
    return text or ("no answer in time" if isinstance(cause, TimeoutError) else type(cause).__name__)


def sqlstate(error: BaseException) -> str | None:
    """PostgreSQL's five characters, if it was PostgreSQL that refused."""
    state = getattr(_cause(error), "sqlstate", None)
    return state if isinstance(state, str) else None


def is_busy(error: BaseException) -> bool:
    """Whether SQLite refused because another connection holds a lock."""
    return _result(error) == sqlite3.SQLITE_BUSY


def _is_away(error: BaseException) -> bool:
    if isinstance(error, PoolTimeout) or (isinstance(error, DBAPIError) and error.connection_invalidated):
        return True
    state = sqlstate(error)
    if state is not None:
        return state in _AWAY_STATES or state[:2] in _AWAY_CLASSES
    return _result(error) in _AWAY_RESULTS or _lacks_table(error)


def _cause(error: BaseException) -> BaseException | None:
    return error.orig if isinstance(error, DBAPIError) else error


def _lacks_table(error: BaseException) -> bool:
    return _result(error) == sqlite3.SQLITE_ERROR and str(_cause(error)).startswith(_NO_TABLE)


def _result(error: BaseException) -> int:
    # An extended result code holds the primary one in its lowest byte.
    code: int = getattr(_cause(error), "sqlite_errorcode", 0)
    return code & 0xFF
