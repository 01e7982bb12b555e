"""Whether the database can be reached and written, what its schema is, and whether somebody may administer.

Changes nothing: a file that is not there stays away, and a schema that is old stays old. No finding holds a password.
"""

import asyncio
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import URL, func, or_, select, text, update
from sqlalchemy.exc import DBAPIError

from gateway.access.answering import was_by_models
from gateway.doctor.findings import KEY_MISSING, Finding, Mark
from gateway.doctor.inventory import has_budgets
from gateway.doctor.running import each_admits_all
from gateway.errors import StoreUnavailable
from gateway.metering.prices import PricesError, load_prices
from gateway.settings import Settings
from gateway.store import tables
from gateway.store.engine import Store
from gateway.store.failures import reason
from gateway.store.migrate import head, revision
from gateway.store.sharers import name_of, others
from gateway.store.url import BadDatabaseUrl, database_url, is_sqlite, shown

_MAY_MIGRATE = text("SELECT has_schema_privilege(current_schema(), 'CREATE') AND NOT pg_is_in_recovery()")


def examine_database(settings: Settings, now_s: int, timeout_s: float) -> Iterator[Finding]:
    """The findings about the database and what is in it, up to the first that makes the rest pointless."""
    try:
        url = database_url(settings)
    except BadDatabaseUrl as error:
        yield Finding(Mark.BAD, f"database.url cannot be used: {error}", "see docs/settings.md, State")
        return
    try:
        yield from asyncio.run(_examine(url, settings, now_s, timeout_s))
    except (StoreUnavailable, DBAPIError, TimeoutError) as error:
        yield _unreachable(url, error, timeout_s)


async def _examine(url: URL, settings: Settings, now_s: int, timeout_s: float) -> list[Finding]:
    async with asyncio.timeout(timeout_s):
        found = await revision(url)
    if found is not None and found > head():
        text_ = f"the database {shown(url)} is newer than this gateway: its schema is {found}, known is {head()}"
        return [Finding(Mark.BAD, text_, "run that version or a later one, or restore a backup from before")]
    store = Store(url, timeout_s=timeout_s)
    try:
        if found == head():
            await _try_to_write(store)
            text_ = f"the database {shown(url)} can be reached and written; its schema ({found}) is up to date"
            return [
                Finding(Mark.GOOD, text_),
                await _admin_key(store, settings, now_s),
                *await _budgets(store, settings),
                *await _missing_key(store, settings),
                *await _sharers(store, settings),
            ]
        return [await _migration(store, url, found), *_first_admin_key(settings, found)]
    finally:
        await store.close()


async def _try_to_write(store: Store) -> None:
    """Ask for what a change needs, and change no row."""
    async with store.writing() as connection:
        await connection.execute(update(tables.revision).where(tables.revision.c.id < 0).values(value=0))


async def _migration(store: Store, url: URL, found: str | None) -> Finding:
    """What the start will do to a schema that is not there yet, or old."""
    if store.dialect == "postgresql":
        async with store.reading() as connection:
            if not (await connection.execute(_MAY_MIGRATE)).scalar_one():
                cure = "grant it CREATE on the schema, or run `gmi-gateway migrate` as a user who may"
                return Finding(Mark.BAD, f"the schema of {shown(url)} cannot be changed by this user", cure)
    what = f"its schema ({found}) will be migrated to {head()} at start" if found else "it will be set up at start"
    return Finding(Mark.GOOD, f"the database {shown(url)}: {what}")


async def _admin_key(store: Store, settings: Settings, now_s: int) -> Finding:
    if _declares_admin(settings):
        return _DECLARED
    keys = tables.keys
    lives = (keys.c.state == "active") & or_(keys.c.expires_at.is_(None), keys.c.expires_at > now_s)
    count = select(func.count(), func.count().filter(lives)).select_from(keys).where(keys.c.role == "admin")
    async with store.reading() as connection:
        ever, alive = (await connection.execute(count)).one()
    if alive:
        return Finding(Mark.GOOD, f"there is an admin key ({alive})")
    if ever:
        cure = "set GATEWAY_ADMIN_KEY or GATEWAY_ADMIN_KEY_FILE"
        return Finding(Mark.WARNING, "no admin key works any more: all are disabled, revoked or expired", cure)
    return _NONE_YET


async def _budgets(store: Store, settings: Settings) -> list[Finding]:
    if _are_there_prices(settings):
        return []
    async with store.reading() as connection:
        return [_UNPRICED] if await has_budgets(connection) else []


async def _missing_key(store: Store, settings: Settings) -> list[Finding]:
    if settings.upstream.simulator or settings.upstream.api_key is not None:
        return []
    async with store.reading() as connection:
        return [KEY_MISSING] if await was_by_models(connection) else []


async def _sharers(store: Store, settings: Settings) -> list[Finding]:
    found = [] if settings.redis.url is not None else await others(store, name_of(settings.server.state_dir))
    return [each_admits_all(f"another gateway uses this database ({', '.join(found)})")] if found else []


def _are_there_prices(settings: Settings) -> bool:
    file = settings.prices.file
    try:
        return load_prices(None if file is None else Path(file)).priced > 0
    except PricesError:
        return True  # and they are wrong, which is told before


def _first_admin_key(settings: Settings, found: str | None) -> Iterator[Finding]:
    if _declares_admin(settings):
        yield _DECLARED
    elif found is None:
        yield _NONE_YET


def _declares_admin(settings: Settings) -> bool:
    return settings.admin.key is not None or any(key.role == "admin" for key in settings.keys)


_DECLARED = Finding(Mark.GOOD, "the settings seen here hold an admin key")
_NONE_YET = Finding(Mark.GOOD, "there is no admin key yet: the first start makes one and prints it")
_UNPRICED = Finding(
    Mark.WARNING, "budgets are set, but no call draws on them, since no model has a price", "see docs/prices.md"
)


def _unreachable(url: URL, error: Exception, timeout_s: float) -> Finding:
    why = f"no answer within {timeout_s:g} s" if isinstance(error, TimeoutError) else _detail(error)
    cure = (
        "see that this user may read and write the file and its folder"
        if is_sqlite(url)
        else "check database.url (user, password, sslmode too), that the server runs, and the firewall"
    )
    return Finding(Mark.BAD, f"the database {shown(url)} cannot be used: {why}", cure)


def _detail(error: Exception) -> str:
    return error.detail if isinstance(error, StoreUnavailable) else reason(error)
