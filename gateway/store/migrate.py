"""Brings a database's schema to where this code needs it, and back.

Knows revisions and locks; what the steps do is in `migrations`. All steps of one run are one transaction, so a run
that fails leaves nothing behind. Alembic is loaded only if there is something to do.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import URL, Connection, func, inspect, select, text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.store import drivers, fresh
from gateway.store.failures import asking, is_busy, reaching, reason, sqlstate
from gateway.store.url import is_sqlite

if TYPE_CHECKING:
    from alembic.config import Config

MIGRATIONS = Path(__file__).with_name("migrations")
BASE = "base"
"""Before the first revision: an empty database."""

CONNECT_TIMEOUT_S = 5.0
LOCK_TIMEOUT_S = 60.0
"""How long another node's migration is waited for."""

_ADVISORY_LOCK = 0x676D_6967_7721
"""Any number, the same in all versions: PostgreSQL keeps such locks by number, in each database."""

_BUSY_PAUSE_S = 0.02

_INSUFFICIENT_PRIVILEGE = "42501"


class SchemaError(Exception):
    """The schema cannot be brought to where it should be; the message says what to do."""


class SchemaIsNewer(SchemaError):
    """A newer gateway has been here."""


def head() -> str:
    """The newest revision that this code knows."""
    return max(_known())


async def revision(url: URL) -> str | None:
    """The schema's revision, None for a database without one. Raises StoreUnavailable."""
    if _is_missing(url):
        return None
    async with _connected(url) as connection:
        return await connection.run_sync(_revision)


async def migrate(url: URL) -> None:
    """Bring the schema to `head()`, once, however many ask at a time. Raises StoreUnavailable, SchemaError."""
    if not await _is_at_head(url):
        await _run(url, _upgrade)


async def downgrade(url: URL, to: str) -> None:
    """Take the schema back to revision `to`, or to `BASE`; what later revisions hold is lost.

    Raises StoreUnavailable, SchemaError.
    """
    if to != BASE and to not in _known():
        raise SchemaError(f"There is no revision {to}; known are {BASE}, {', '.join(sorted(_known()))}.")
    await _run(url, lambda connection: _downgrade(connection, to))


def _known() -> set[str]:
    # The files' names say it, so that nothing need be loaded to know.
    return {path.name[1:].partition("_")[0] for path in (MIGRATIONS / "versions").glob("v*.py")}


def _is_missing(url: URL) -> bool:
    # To connect would make the file.
    return is_sqlite(url) and not Path(url.database or "").exists()


async def _is_at_head(url: URL) -> bool:
    if _is_missing(url):
        return False
    async with _connected(url) as connection:
        if is_sqlite(url) and not await _is_wal(connection):
            return False
        return await connection.run_sync(_known_revision) == head()


async def _run(url: URL, steps: Callable[[Connection], None]) -> None:
    async with _connected(url) as connection:
        if is_sqlite(url):
            await _to_wal(connection)
        with _explained():
            async with _locked(connection):
                await connection.run_sync(steps)


@contextlib.asynccontextmanager
async def _connected(url: URL) -> AsyncIterator[AsyncConnection]:
    engine = drivers.single_engine(url, timeout_s=LOCK_TIMEOUT_S)
    connection = engine.connect()
    with reaching():
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            await connection.start()
    try:
        with asking():
            yield connection
    finally:
        await connection.close()


async def _is_wal(connection: AsyncConnection) -> bool:
    mode = (await connection.exec_driver_sql("PRAGMA journal_mode")).scalar_one()
    await connection.rollback()
    return bool(mode == "wal")


async def _to_wal(connection: AsyncConnection) -> None:
    """From here on readers and a writer go on side by side; the file remembers it."""
    give_up_at = asyncio.get_running_loop().time() + LOCK_TIMEOUT_S
    while not await _is_wal(connection):
        try:
            mode = (await connection.exec_driver_sql("PRAGMA journal_mode = WAL")).scalar_one()
        except OperationalError as error:
            # SQLite does not wait for this lock as it does for others.
            if not is_busy(error) or asyncio.get_running_loop().time() > give_up_at:
                raise
            await asyncio.sleep(_BUSY_PAUSE_S)
        else:
            if mode != "wal":
                raise SchemaError("The database's folder is on a file system without locks and shared memory: move it.")


@contextlib.asynccontextmanager
async def _locked(connection: AsyncConnection) -> AsyncIterator[None]:
    """A transaction that no other run of this module gets into."""
    if connection.dialect.name == "sqlite":
        await connection.execution_options(**{drivers.BEGINS: "BEGIN EXCLUSIVE"})
    async with connection.begin():
        if connection.dialect.name == "postgresql":
            await connection.execute(select(func.pg_advisory_xact_lock(_ADVISORY_LOCK)))
        yield


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except DBAPIError as error:
        if sqlstate(error) != _INSUFFICIENT_PRIVILEGE:
            raise
        raise SchemaError(
            f"The database's user may not change the schema ({reason(error)}). Grant it CREATE on the schema, "
            "or run `gmi-gateway migrate` as a user who may."
        ) from error


def _upgrade(connection: Connection) -> None:
    if _known_revision(connection) == head():
        return
    if fresh.is_empty(connection):
        fresh.create(connection, head())
        return
    from alembic import command  # noqa: PLC0415 - takes longer to load than all the rest of the store

    command.upgrade(_alembic(connection), head())
    _check_foreign_keys(connection)


def _downgrade(connection: Connection, to: str) -> None:
    _known_revision(connection)
    from alembic import command  # noqa: PLC0415 - as above

    command.downgrade(_alembic(connection), to)
    _check_foreign_keys(connection)


def _alembic(connection: Connection) -> "Config":
    from alembic.config import Config  # noqa: PLC0415 - as above

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def _check_foreign_keys(connection: Connection) -> None:
    """They are off on SQLite while tables are rebuilt."""
    if connection.dialect.name != "sqlite":
        return
    if connection.exec_driver_sql("PRAGMA foreign_key_check").first() is not None:
        raise SchemaError("The migration would leave rows that refer to nothing, and was undone. Please report this.")


def _known_revision(connection: Connection) -> str | None:
    """Raises SchemaIsNewer for one that is not among ours."""
    found = _revision(connection)
    if found is not None and found not in _known():
        raise SchemaIsNewer(
            f"The database has been migrated by a newer gateway: its schema is {found}, and this one knows {head()} "
            "at most. Run that version or a later one, or restore a backup from before."
        )
    return found


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()
    return None if found is None else str(found)
