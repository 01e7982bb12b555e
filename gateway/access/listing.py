"""Lists of teams, keys and audit entries: filters, order, pages.

Pages follow the last object that was shown, not a count, so that what is made or goes meanwhile neither repeats nor
hides others. Whose objects may be listed is the caller's to say.
"""

import base64
import binascii
from collections.abc import Callable
from typing import Any

import msgspec
from sqlalchemy import BigInteger, ColumnElement, Select, Table, and_, func, literal, or_, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.access.drafts import AuditFilters, KeyFilters, TeamFilters
from gateway.access.records import AuditEntry, Page
from gateway.access.rows import mapping_of
from gateway.access.validity import LARGEST, is_plain
from gateway.errors import BadRequest
from gateway.store.tables import audit, keys, teams

MOST = 200
_OF_TEAMS: dict[str, ColumnElement[Any]] = {member: teams.c[member] for member in ("name", "created_at", "updated_at")}
_OF_KEYS: dict[str, ColumnElement[Any]] = {
    **{member: keys.c[member] for member in ("name", "created_at", "updated_at")},
    # What was never used comes before all that was; what never ends, after all that does.
    "last_used_at": func.coalesce(keys.c.last_used_at, literal(0, BigInteger)),
    "expires_at": func.coalesce(keys.c.expires_at, literal(LARGEST, BigInteger)),
}


class Order(msgspec.Struct, frozen=True):
    """How a list is sorted and cut: by a column and then by id, `limit` objects after the cursor `after`."""

    sort: str
    limit: int
    after: str | None

    def columns(self, of: Table) -> tuple[ColumnElement[Any], ColumnElement[Any]]:
        """What is sorted by. Raises `BadRequest`."""
        sortable = _OF_TEAMS if of is teams else _OF_KEYS
        column = sortable.get(self.sort.removeprefix("-"))
        if column is None:
            words = ", ".join(sortable)
            raise BadRequest(f"sort must be one of {words}; with - before it for the other way round.", param="sort")
        return column, of.c.id


async def page(
    connection: AsyncConnection, query: Select[Any], of: Table, order: Order, make: Callable[[Any], Any]
) -> Page:
    """One page of `query`, whose rows `make` turns into objects. Raises `BadRequest`."""
    check_limit(order.limit)
    column, identity = order.columns(of)
    if order.after is not None:
        query = query.where(_follows(column, identity, order))
    falling = order.sort.startswith("-")
    by = [each.desc() if falling else each.asc() for each in (column, identity)]
    query = query.add_columns(column.label("sorted_by")).order_by(*by).limit(order.limit + 1)
    rows = list((await connection.execute(query)).all())
    shown = rows[: order.limit]
    cursor = _cursor([order.sort, shown[-1].sorted_by, shown[-1].id]) if len(rows) > order.limit else None
    return Page(tuple(map(make, shown)), cursor)


async def entries(connection: AsyncConnection, query: Select[Any], limit: int, after: str | None) -> Page:
    """One page of the audit log, newest first. Raises `BadRequest`."""
    check_limit(limit)
    if after is not None:
        (before_id,) = _read_cursor(after, tuple[int])
        query = query.where(audit.c.id < before_id)
    rows = list((await connection.execute(query.order_by(audit.c.id.desc()).limit(limit + 1))).all())
    shown = tuple(msgspec.convert(mapping_of(row), AuditEntry) for row in rows[:limit])
    return Page(shown, _cursor([shown[-1].id]) if len(rows) > limit else None)


def check_limit(limit: int) -> None:
    """Raises `BadRequest`."""
    if not 1 <= limit <= MOST:
        raise BadRequest(f"limit must be from 1 to {MOST}.", param="limit")


def team_conditions(filters: TeamFilters) -> list[ColumnElement[bool]]:
    """What a listed team must fulfil. Raises `BadRequest`."""
    _check_plain(filters)
    return [
        *_equal(teams.c.state, filters.state),
        *_contains(teams.c.name, filters.name),
        *_tagged(teams, filters.tag),
    ]


def key_conditions(filters: KeyFilters, now: int) -> list[ColumnElement[bool]]:
    """What a listed key must fulfil at `now`, Unix time. Raises `BadRequest`."""
    _check_plain(filters)
    found = [
        *_equal(keys.c.owner, filters.owner),
        *_equal(keys.c.role, filters.role),
        *_equal(keys.c.state, filters.state),
        *_contains(keys.c.name, filters.name),
        *_tagged(keys, filters.tag),
    ]
    if filters.team is not None:
        found.append(or_(keys.c.team_id == filters.team, teams.c.name == filters.team))
    if filters.expired is not None:
        ended = and_(keys.c.expires_at.is_not(None), keys.c.expires_at <= now)
        found.append(ended if filters.expired else ~ended)
    return found


def audit_conditions(filters: AuditFilters) -> list[ColumnElement[bool]]:
    """What a listed entry must fulfil. Raises `BadRequest`."""
    _check_plain(filters)
    found = [*_equal(audit.c.object_id, filters.object_id), *_equal(audit.c.actor, filters.actor)]
    if filters.action is not None:
        kind = audit.c.action.startswith(f"{filters.action}.", autoescape=True)
        found.append(or_(audit.c.action == filters.action, kind))
    if filters.team is not None:
        named = select(teams.c.id).where(teams.c.name == filters.team)
        found.append(or_(audit.c.team_id == filters.team, audit.c.team_id.in_(named)))
    if filters.since is not None:
        found.append(audit.c.at >= literal(filters.since, BigInteger))
    if filters.until is not None:
        found.append(audit.c.at < literal(filters.until, BigInteger))
    return found


def _equal(column: ColumnElement[Any], value: str | None) -> list[ColumnElement[bool]]:
    return [] if value is None else [column == value]


def _contains(column: ColumnElement[Any], part: str | None) -> list[ColumnElement[bool]]:
    return [] if part is None else [column.icontains(part, autoescape=True)]


def _tagged(table: Table, tag: str | None) -> list[ColumnElement[bool]]:
    if tag is None:
        return []
    name, equals, value = tag.partition("=")
    if not name or "\\" in name or '"' in name:
        raise BadRequest("tag must be the name of a tag, or name=value.", param="tag")
    stored = table.c.tags[name].as_string()
    return [stored == value] if equals else [stored.is_not(None)]


def _check_plain(filters: msgspec.Struct) -> None:
    """Databases refuse some characters and some integers, each in its own way."""
    for name, value in msgspec.structs.asdict(filters).items():
        if isinstance(value, str) and not is_plain(value):
            raise BadRequest(f"{name} must hold printable characters alone.", param=name)
        if isinstance(value, int) and not 0 <= value <= LARGEST:
            raise BadRequest(f"{name} must be Unix time in seconds.", param=name)


def _follows(column: ColumnElement[Any], identity: ColumnElement[Any], order: Order) -> ColumnElement[bool]:
    by_name = order.sort.removeprefix("-") == "name"
    shape = tuple[str, str, str] if by_name else tuple[str, int, str]
    sort, value, last_id = _read_cursor(order.after or "", shape)
    if sort != order.sort:
        raise _bad_cursor()
    here, last = tuple_(column, identity), tuple_(literal(value, column.type), literal(last_id, identity.type))
    return here < last if order.sort.startswith("-") else here > last


def _cursor(parts: list[Any]) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(parts)).decode().rstrip("=")


def _read_cursor(cursor: str, kind: Any) -> Any:
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        parts = msgspec.json.decode(base64.urlsafe_b64decode(padded), type=kind)
    except (UnicodeError, binascii.Error, msgspec.MsgspecError):
        raise _bad_cursor() from None
    for part in parts:
        if (isinstance(part, str) and not is_plain(part)) or (isinstance(part, int) and not 0 <= part <= LARGEST):
            raise _bad_cursor()
    return parts


def _bad_cursor() -> BadRequest:
    return BadRequest("after must be the cursor of a page of the same list, sorted the same way.", param="after")
