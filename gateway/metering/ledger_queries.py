"""Questions to the ledger, in SQL: sums by groups, single calls.

Sums come from those by day, which answer in milliseconds, wherever they can; single calls are summed up where somebody
asks for hours, tags, or a time that does not begin and end with a day. Who may see what is the caller's to say, by
filters.
"""

from collections.abc import Sequence
from typing import Any, Literal

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    FromClause,
    Select,
    Subquery,
    and_,
    case,
    cast,
    exists,
    false,
    func,
    literal,
    select,
    tuple_,
)
from sqlalchemy import or_ as either

from gateway.errors import BadRequest
from gateway.metering import clocks
from gateway.metering.late import PREFIX
from gateway.metering.ledger_pages import LATEST_US, SUMS, TIMES, Number, Text, cursor_of, pages_of, read_cursor
from gateway.metering.ledger_query import (
    Call,
    CallsPage,
    CallsQuery,
    Filters,
    GroupValue,
    Sums,
    UsageGroup,
    UsagePage,
    UsageQuery,
)
from gateway.metering.refused_by import has_code, parted
from gateway.metering.rollups import FAILED, KNOWN, Days, date_of
from gateway.store.engine import Store
from gateway.store.tables import USAGE, call_tags, calls, usage_days

MOST = 1_000
"""Groups or calls of one page."""
_COLUMNS = {"key": "key_id", "team": "team_id", "model": "model", "route": "route"}
_TAG = "tag:"


class LedgerQueries:
    """Asks `store`; `days` are the ledger's own, and days and hours of answers too."""

    def __init__(self, store: Store, days: Days) -> None:
        self._store = store
        self._days = days

    async def usage(self, query: UsageQuery) -> UsagePage:
        """One page of sums. Raises `BadRequest`, `StoreUnavailable`."""
        _check(query)
        source = self._source(query)
        rows = self._of_days(query) if source == "days" else self._of_calls(query)
        wanted = [rows.c[f"group_{at}"].label(f"group_{at}") for at in range(len(query.group_by))]
        sums = [cast(func.coalesce(func.sum(rows.c[name]), 0), BigInteger).label(name) for name in SUMS]
        groups = select(*wanted, *sums).group_by(*(rows.c[f"group_{at}"] for at in range(len(query.group_by))))
        pages = pages_of(query, rows)
        async with self._store.reading() as connection:
            found = list((await connection.execute(pages.select(groups).limit(query.limit + 1))).all())
            pages.check(found)
            is_more = len(found) > query.limit
            if is_more or query.after is not None:
                totals = tuple((await connection.execute(select(*sums))).one())
            else:  # these are all groups, and to go through the rows once more takes as long again
                totals = _added([_sums_in(query, row) for row in found])
        shown = found[: query.limit] if query.group_by else []
        return UsagePage(
            tuple(_group(query, row) for row in shown),
            Sums(*totals),
            cursor_of(pages.end(shown)) if is_more else None,
            source,
        )

    async def calls(self, query: CallsQuery) -> CallsPage:
        """One page of single calls. Raises `BadRequest`, `StoreUnavailable`."""
        _check_limit(query.limit)
        _check_filters(query)
        wanted = select(calls).where(*_conditions(query), *_details(query))
        if query.after is not None:
            last = read_cursor(query.after, tuple[Number, Text])
            wanted = wanted.where(
                calls.c.started_at <= last[0],
                tuple_(calls.c.started_at, calls.c.id) < tuple_(literal(last[0], BigInteger), literal(last[1])),
            )
        wanted = wanted.order_by(calls.c.started_at.desc(), calls.c.id.desc()).limit(query.limit + 1)
        found = await self._calls(wanted)
        shown = found[: query.limit]
        is_more = len(found) > query.limit
        return CallsPage(tuple(shown), cursor_of([shown[-1].started_at_us, shown[-1].id]) if is_more else None)

    async def call(self, call_id: str, team_ids: tuple[str, ...] | None = None) -> Call | None:
        """One call, if there is one, of one of these teams. Raises `StoreUnavailable`."""
        found = await self._calls(select(calls).where(calls.c.id == call_id, *_among(calls.c.team_id, team_ids)))
        return found[0] if found else None

    async def _calls(self, wanted: Select[Any]) -> list[Call]:
        async with self._store.reading() as connection:
            rows = (await connection.execute(wanted)).mappings().all()
            ids = [row["id"] for row in rows]
            tags: dict[str, dict[str, str]] = {}
            if ids:
                named = select(call_tags.c.call_id, call_tags.c.name, call_tags.c.value)
                for call_id, name, value in await connection.execute(named.where(call_tags.c.call_id.in_(ids))):
                    tags.setdefault(call_id, {})[name] = value
        return [_call(dict(row), tags.get(row["id"], {})) for row in rows]

    def _source(self, query: UsageQuery) -> Literal["days", "calls"]:
        needs_calls = query.tags or any(each == "hour" or each.startswith(_TAG) for each in query.group_by)
        bounds = (query.since_us, query.until_us)
        is_whole = all(self._days.begin_us(self._days.of(bound)) == bound for bound in bounds)
        return "days" if is_whole and not needs_calls else "calls"

    def _of_days(self, query: UsageQuery) -> Subquery:
        """What is to be summed, out of sums by day."""
        conditions = [
            usage_days.c.day >= self._days.of(query.since_us),
            usage_days.c.day < self._days.of(query.until_us),
            *_who(query, usage_days),
        ]
        groups = [_of_day(each) for each in query.group_by]
        labelled = [column.label(f"group_{at}") for at, column in enumerate(groups)]
        sums = [usage_days.c[name] for name in SUMS]
        return select(*labelled, *sums).where(*conditions).subquery()

    def _of_calls(self, query: UsageQuery) -> Subquery:
        """What is to be summed, out of single calls."""
        during = clocks.changes(self._days.zone, query.since_us, query.until_us)
        source: FromClause = calls
        labelled = []
        for at, each in enumerate(query.group_by):
            column: ColumnElement[Any]
            if each.startswith(_TAG):
                tag = call_tags.alias(f"tag_{at}")
                has_name = and_(tag.c.call_id == calls.c.id, tag.c.name == each.removeprefix(_TAG))
                source = source.outerjoin(tag, has_name)
                column = tag.c.value
            elif each in TIMES:
                column = (clocks.day if each == "day" else clocks.hour_s)(calls.c.started_at, during)
            else:
                column = calls.c[_COLUMNS[each]]
            labelled.append(column.label(f"group_{at}"))
        sums = [_sum_of(name).label(name) for name in SUMS]
        return select(*labelled, *sums).select_from(source).where(*_conditions(query)).subquery()


def _added(rows: Sequence[Sequence[int]]) -> tuple[int, ...]:
    return tuple(map(sum, zip(*rows, strict=True))) if rows else (0,) * len(SUMS)


def _of_day(word: str) -> ColumnElement[Any]:
    """What sums by day are grouped by."""
    if word == "model":
        return func.nullif(usage_days.c.model, "")
    return usage_days.c["day" if word == "day" else _COLUMNS[word]]


def _sum_of(name: str) -> ColumnElement[int]:
    """What one call adds to a sum."""
    conditions: dict[str, ColumnElement[bool]] = {
        "refused_calls": calls.c.outcome == "refused",
        "failed_calls": calls.c.outcome.in_(FAILED),
        "estimated_calls": calls.c.usage_source == "estimated",
        "unknown_calls": calls.c.usage_source == "unknown",
        "unpriced_calls": and_(calls.c.cost_microusd.is_(None), calls.c.usage_source.in_(KNOWN)),
    }
    if name == "calls":
        # Usage that came late is of a call which has a row of its own.
        return case((calls.c.id.startswith(PREFIX, autoescape=True), 0), else_=1)
    condition = conditions.get(name)
    return calls.c[name] if condition is None else case((condition, 1), else_=0)


def _conditions(query: Filters) -> list[ColumnElement[bool]]:
    conditions = [
        calls.c.started_at >= query.since_us,
        calls.c.started_at < query.until_us,
        *_who(query, calls),
    ]
    for name, value in query.tags.items():
        here = (call_tags.c.call_id == calls.c.id, call_tags.c.name == name, call_tags.c.value == value)
        conditions.append(exists().where(*here))
    return conditions


def _who(query: Filters, table: FromClause) -> list[ColumnElement[bool]]:
    return [
        *_among(table.c.team_id, query.team_ids),
        *_among(table.c.key_id, query.key_ids),
        *_among(table.c.model, query.models),
        *_among(table.c.route, query.routes),
    ]


def _details(query: CallsQuery) -> list[ColumnElement[bool]]:
    conditions = _among(calls.c.outcome, query.outcomes)
    if query.errors is not None:
        conditions.append(either(false(), *map(has_code, query.errors)))
    if query.status_classes is not None:
        ranges = (calls.c.status.between(first * 100, first * 100 + 99) for first in query.status_classes)
        conditions.append(either(false(), *ranges))
    if query.ended_since_us is not None:
        conditions.append(calls.c.started_at + calls.c.duration_us >= query.ended_since_us)
    return conditions


def _among(column: ColumnElement[Any], values: Sequence[str] | None) -> list[ColumnElement[bool]]:
    return [] if values is None else [column.in_(values) if values else false()]


def _sums_in(query: UsageQuery, row: Any) -> Any:
    return row[len(query.group_by) : len(query.group_by) + len(SUMS)]


def _group(query: UsageQuery, row: Any) -> UsageGroup:
    values = {word: _group_value(word, row[at]) for at, word in enumerate(query.group_by)}
    return UsageGroup(values, Sums(*_sums_in(query, row)))


def _group_value(word: str, value: Any) -> GroupValue:
    if word == "day":
        return date_of(int(value)).isoformat()
    if word == "hour":
        return int(value)
    return None if value is None else str(value)


def _call(row: dict[str, Any], tags: dict[str, str]) -> Call:
    usage = {name: row.pop(name) or 0 for name in USAGE} if row["total_tokens"] is not None else None
    if usage is None:
        for name in USAGE:
            del row[name]
    row["streamed"] = bool(row["streamed"])
    row["error"], row["refused_by"] = parted(row["error"], row["outcome"])
    return Call(started_at_us=row.pop("started_at"), usage=usage, tags=tags, **row)


def _is_group(word: str) -> bool:
    return word in _COLUMNS or word in TIMES or (word.startswith(_TAG) and word != _TAG)


def _check(query: UsageQuery) -> None:
    _check_limit(query.limit)
    _check_filters(query)
    words = query.group_by
    if not all(map(_is_group, words)) or len(set(words)) < len(words) or set(TIMES) <= set(words):
        raise BadRequest(
            "group_by must name any of key, team, model, route, tag:NAME, and day or hour, each once.", param="group_by"
        )


def _check_filters(query: Filters) -> None:
    for name, values in (("model", query.models), ("route", query.routes)):
        if "" in (values or ()):  # sums by day have it for calls without a model, single calls have not
            raise BadRequest(f"{name} must not be empty. Leave it out to ask for all.", param=name)
    if not 0 <= query.since_us <= query.until_us <= LATEST_US:
        raise BadRequest("The time asked for must begin before it ends, and lie between 1970 and 2999.", param="until")


def _check_limit(limit: int) -> None:
    if not 1 <= limit <= MOST:
        raise BadRequest(f"limit must be between 1 and {MOST}.", param="limit")
