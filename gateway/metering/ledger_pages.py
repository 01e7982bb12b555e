"""Where a page of what the ledger answers begins and ends, and the cursors that say so.

Calls end while somebody reads on: no group may come twice for that, and none be left out without a word.
"""

import base64
import binascii
import zlib
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from sqlalchemy import BigInteger, ColumnElement, FromClause, Select, and_, cast, false, func, literal
from sqlalchemy import or_ as either

from gateway.errors import BadRequest
from gateway.metering.ledger_query import Sums, UsageQuery

TIMES = ("day", "hour")
SUMS = Sums.__struct_fields__
LATEST_US = 32_472_144_000_000_000
"""When the last of the years ends that can be asked for."""
Number = Annotated[int, msgspec.Meta(ge=0, le=LATEST_US)]
Text = Annotated[str, msgspec.Meta(pattern="^[^\0]*$")]
"""What PostgreSQL takes as text; whoever asks may have made the cursor up."""
_BY_SUM = tuple[Number, Number, Number, Number, Number, Number]
"""What a cursor in the order of a sum says."""


def resumed(query: UsageQuery) -> UsageQuery:
    """`query` by the times of its first page, where the order is that of a sum: words such as `24h` move on meanwhile.

    Whoever asks may have made these up: check them as if they were asked for. Raises `BadRequest`.
    """
    if query.after is None or _sorted_by(query) in query.group_by:
        return query
    _, since_us, until_us, *_ = read_cursor(query.after, _BY_SUM)
    return msgspec.structs.replace(query, since_us=since_us, until_us=until_us)


def pages_of(query: UsageQuery, rows: FromClause) -> "PagesByGroup | PagesBySum":
    """Those of the groups that `rows` are summed up by. Raises `BadRequest`."""
    return (PagesByGroup if _sorted_by(query) in query.group_by else PagesBySum)(query, rows)


class PagesByGroup:
    """Pages in the order of one group: what follows the last group of the page before, whatever is new before that."""

    def __init__(self, query: UsageQuery, rows: FromClause) -> None:
        words = [_sorted_by(query), *(word for word in query.group_by if word != _sorted_by(query))]
        columns = [rows.c[f"group_{query.group_by.index(word)}"] for word in words]
        self._places = [query.group_by.index(word) for word in words]
        self._order = [columns[0].desc() if query.sort.startswith("-") else columns[0].asc(), *columns[1:]]
        self._behind: list[ColumnElement[bool]] = []
        if query.after is not None:
            kinds = tuple((Number if word in TIMES else Text) | None for word in words)
            last = read_cursor(query.after, tuple[kinds])  # type: ignore[valid-type]
            self._behind = [_behind(columns, last, is_down=query.sort.startswith("-"))]

    def select(self, groups: Select[Any]) -> Select[Any]:
        """Those of `groups` from where the page begins."""
        return groups.where(*self._behind).order_by(*(each.nulls_last() for each in self._order))

    def check(self, found: Sequence[Any]) -> None:
        """Nothing that was counted meanwhile moves a group to another page."""

    def end(self, shown: Sequence[Any]) -> list[Any]:
        """What the cursor says of the last group shown."""
        return [shown[-1][place] for place in self._places]


class PagesBySum:
    """Pages in the order of a sum, for as long as that stays as it was on the first page.

    Sums only grow: while they come to the same in all, and there are as many groups, each is where it was.
    """

    def __init__(self, query: UsageQuery, rows: FromClause) -> None:
        self._query = query
        self._name = _sorted_by(query)
        self._all = func.count().over(), cast(func.sum(func.sum(rows.c[self._name])).over(), BigInteger)
        self._offset = 0
        self._before: tuple[int, int] | None = None
        if query.after is not None:
            mark, _, _, self._offset, *before = read_cursor(query.after, _BY_SUM)
            if mark != _mark(query):
                raise _bad_cursor()
            self._before = (before[0], before[1])

    def select(self, groups: Select[Any]) -> Select[Any]:
        """Those of `groups` from where the page begins, and in each row what the order is told by."""
        column = groups.selected_columns[self._name]
        first = column.desc() if self._query.sort.startswith("-") else column.asc()
        rest = [groups.selected_columns[f"group_{at}"].asc().nulls_last() for at in range(len(self._query.group_by))]
        return groups.add_columns(*self._all).order_by(first, *rest).offset(self._offset)

    def check(self, found: Sequence[Any]) -> None:
        """Raises `BadRequest` where groups of this page may have been on the one before, or the other way round."""
        if self._before is None or (found and tuple(found[0][-2:]) == self._before):
            return
        other = next(iter(self._query.group_by), "day")
        cure = f"Ask in the order of a group (sort={other}), whose pages have each group once, or begin anew"
        raise BadRequest(
            f"Calls were counted since the page before, and {self._name} makes another order now. {cure}.",
            param="after",
        )

    def end(self, shown: Sequence[Any]) -> list[Any]:
        """Of which question it is, where the next page begins, and what the order was told by."""
        query = self._query
        return [_mark(query), query.since_us, query.until_us, self._offset + len(shown), *shown[-1][-2:]]


def _behind(columns: Sequence[ColumnElement[Any]], last: Sequence[Any], *, is_down: bool) -> ColumnElement[bool]:
    """What comes after `last` in the order of `columns`, the first of which may go down; nulls are last in each."""
    if not columns:
        return false()
    column, value = columns[0], last[0]
    later = _behind(columns[1:], last[1:], is_down=False)
    if value is None:
        return and_(column.is_(None), later)
    bound = literal(value, BigInteger) if isinstance(value, int) else literal(value)
    behind = column < bound if is_down else column > bound
    return either(behind, column.is_(None), and_(column == bound, later))


def _sorted_by(query: UsageQuery) -> str:
    name = query.sort.removeprefix("-")
    if name not in (*query.group_by, *SUMS):
        words = ", ".join([*query.group_by, *SUMS])
        raise BadRequest(f"sort must be one of {words}; with - before it for the other way round.", param="sort")
    return name


def _mark(query: UsageQuery) -> int:
    """What tells the cursor of this question from those of others, though these may come to the same."""
    parts = msgspec.structs.replace(query, limit=0, after=None)
    return zlib.crc32(msgspec.json.encode(parts, order="sorted"))


def cursor_of(parts: list[Any]) -> str:
    """The cursor that says `parts`."""
    return base64.urlsafe_b64encode(msgspec.json.encode(parts)).decode().rstrip("=")


def read_cursor(cursor: str, kind: Any) -> Any:
    """Its parts, of the type `kind`. Raises `BadRequest`."""
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        return msgspec.json.decode(base64.urlsafe_b64decode(padded), type=kind)
    except (UnicodeError, binascii.Error, msgspec.DecodeError):
        raise _bad_cursor() from None


def _bad_cursor() -> BadRequest:
    return BadRequest("after must be the cursor of a page of the same question.", param="after")
