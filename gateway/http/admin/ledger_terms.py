"""What all questions to the ledger have in common: which calls, of when, and whose calls the asker may see.

Knows the query parameters and how they become filters; what the answers are is the routes' business.
"""

import re
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import msgspec
from pydantic import BaseModel, ConfigDict, Field

from gateway.access import rules
from gateway.access.administration import Administration
from gateway.access.naming import Names, names_of
from gateway.access.records import Actor
from gateway.access.validity import is_plain
from gateway.errors import BadRequest
from gateway.http.admin.keys import check_has_key
from gateway.http.admin.turns import Turns
from gateway.metering import moments
from gateway.metering.ledger_queries import LedgerQueries
from gateway.metering.ledger_query import Call, CallsPage, CallsQuery, Filters, UsagePage, UsageQuery
from gateway.metering.rollups import Days
from gateway.store.engine import Store

_DEFAULT_DAYS = 30
_LONGEST_US = 7_305 * 86_400_000_000
"""Twenty years: the clocks of a time zone are followed day by day."""
_LONGEST_OF_MEMBERS_US = 366 * 86_400_000_000
_TAG = "tag:"
_SECONDS = re.compile(r"[0-9]{1,11}")
_LATEST_US = 32_472_000_000_000_000
_MOST_CHARACTERS = 40
_ABOUT_TIMES = (
    "Unix time in seconds; a date (`2026-11-01`), `today`, `yesterday` or so many days with today as the last (`7d`,"
    " `2w`), which begin as `limits.time_zone` has it; hours ago (`12h`); or a time (`2026-11-01T18:00:00Z`)."
)


class OwnFilters(BaseModel):
    """Which calls, of one key."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    since: str | None = Field(
        default=None,
        max_length=_MOST_CHARACTERS,
        description=f"{_ABOUT_TIMES} Calls from then on; without it, of thirty days, today's among them.",
        examples=["2026-11-01"],
    )
    until: str | None = Field(
        default=None,
        max_length=_MOST_CHARACTERS,
        description=f"{_ABOUT_TIMES} Calls before then; without it, all up to now.",
    )
    model: str | None = Field(default=None, max_length=200, description="As the call named it, aliases resolved.")
    route: str | None = Field(default=None, max_length=100, description="As `/v1/chat/completions`.")
    tag: str | None = Field(default=None, max_length=300, description="`name=value`.")


class AnyFilters(OwnFilters):
    """Which calls, of all that the asker may see."""

    team: str | None = Field(default=None, max_length=100, description="Name or id of a team.")
    key: str | None = Field(default=None, max_length=100, description="Id of a key.")


class Whose(msgspec.Struct, frozen=True):
    """Whose calls are asked for: None is for all of them."""

    team_ids: tuple[str, ...] | None
    key_ids: tuple[str, ...] | None = None


class LedgerDesk:
    """Answers questions to the ledger in `store`, a few at a time. `days` are the ledger's; `now` is Unix time.

    `timeout_s` is the time to get a turn. Who asks is told to each question, whose turn it then is.
    """

    def __init__(
        self,
        store: Store,
        days: Days,
        queries: LedgerQueries,
        *,
        timeout_s: float = 5.0,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.days = days
        self._store = store
        self._queries = queries
        self._now = now
        self._turns = Turns(timeout_s)

    async def usage(self, actor: Actor, query: UsageQuery) -> tuple[UsagePage, Names]:
        """A page of sums, and the names of what is in it.

        Raises `BadRequest`, `StoreUnavailable`, and what `Turns.of` does.
        """
        _check_affordable(actor, query)
        async with self._turns.of(actor):
            return await self._usage(query)

    async def next_usage(self, actor: Actor, query: UsageQuery) -> tuple[UsagePage, Names]:
        """The same of a page of a document that is under way, which waits for what else its key asks."""
        async with self._turns.of(actor, goes_on=True):
            return await self._usage(query)

    async def calls(self, actor: Actor, query: CallsQuery) -> tuple[CallsPage, Names]:
        """A page of calls, and the names of what is in it. Raises as `usage` does."""
        _check_affordable(actor, query)
        async with self._turns.of(actor):
            page = await self._queries.calls(query)
            return page, await self._names(*page.calls)

    async def call(self, actor: Actor, call_id: str, whose: Whose) -> tuple[Call | None, Names]:
        """One call of theirs, and the names of what is in it. Raises `StoreUnavailable`, `Overloaded`."""
        async with self._turns.of(actor, goes_on=True):
            found = await self._queries.call(call_id, whose.team_ids)
            if found is not None and whose.key_ids is not None and found.key_id not in whose.key_ids:
                found = None
            return found, await self._names(*([] if found is None else [found]))

    def filters(self, asked: OwnFilters, whose: Whose) -> dict[str, Any]:
        """Members of `gateway.metering.ledger_query.Filters`. Raises `BadRequest`."""
        _check_plain(asked)
        now = datetime.fromtimestamp(self._now(), self.days.zone)
        until_us = self._until_us(asked.until, now)
        since_us = self._since_us(asked.since, now, until_us)
        return {
            "since_us": since_us,
            "until_us": until_us,
            "team_ids": whose.team_ids,
            "key_ids": whose.key_ids,
            "models": None if asked.model is None else (asked.model,),
            "routes": None if asked.route is None else (asked.route,),
            "tags": _tags(asked.tag),
        }

    async def _usage(self, query: UsageQuery) -> tuple[UsagePage, Names]:
        page = await self._queries.usage(query)
        return page, await names_of(self._store, _in_groups(page, "team"), _in_groups(page, "key"))

    async def _names(self, *calls: Call) -> Names:
        return await names_of(self._store, (call.team_id for call in calls), (call.key_id for call in calls))

    def _until_us(self, text: str | None, now: datetime) -> int:
        if text is not None:
            return _moment_us(text, now, "until")
        return self.days.begin_us(self.days.of(int(now.timestamp() * 1e6)) + 1)

    def _since_us(self, text: str | None, now: datetime, until_us: int) -> int:
        if text is not None:
            return _moment_us(text, now, "since")
        last = self.days.of(max(until_us - 1, 0))
        return self.days.begin_us(max(last - _DEFAULT_DAYS + 1, 1))


async def whose_calls(administration: Administration, actor: Actor, asked: AnyFilters) -> Whose:
    """What `actor` may see of what is asked for. Raises `Forbidden`, or `NotFound` for what is another's."""
    team_ids, key_ids = await teams_seen(administration, actor), None
    if asked.team is not None:
        team_ids = ((await administration.team(actor, asked.team)).id,)
    if asked.key is not None:
        key_ids = ((await administration.key(actor, asked.key)).id,)
    return Whose(team_ids, key_ids)


async def teams_seen(administration: Administration, actor: Actor) -> tuple[str, ...] | None:
    """The team of a team admin, all for an admin. Raises `Forbidden` for members."""
    if actor.key_id is None:
        await administration.check_admin(actor)
        return None
    key, team = await administration.me(actor)
    rules.require_team_admin(rules.Authority(key.role))
    return None if key.role == "admin" else (team.id,)


async def own_calls(administration: Administration, actor: Actor) -> Whose:
    """Those of the key that asks. Raises `NotFound` without one."""
    check_has_key(actor)
    key, team = await administration.me(actor)
    return Whose((team.id,), (key.id,))


def _moment_us(text: str, now: datetime, param: str) -> int:
    try:
        moment_s = int(text) if _SECONDS.fullmatch(text) else moments.since(text, now)
    except ValueError as error:
        raise BadRequest(f"{param} {error}, or Unix time in seconds.", param=param) from None
    if moment_s * 1_000_000 > _LATEST_US:
        raise BadRequest(f"{param} must be a time between 1970 and 2999.", param=param)
    return moment_s * 1_000_000


def _tags(text: str | None) -> Mapping[str, str]:
    if text is None:
        return {}
    name, separator, value = text.partition("=")
    if not name or not separator:
        raise BadRequest("tag must be written as name=value.", param="tag")
    return {name: value}


def _check_affordable(actor: Actor, query: Filters) -> None:
    """Raises `BadRequest` for what keeps the gateway too busy, or the database for a member to ask."""
    if query.until_us - query.since_us > _LONGEST_US:
        raise BadRequest("The time asked for must be twenty years at most. Ask for a part of it.", param="since")
    if actor.role != "member":
        return
    if query.until_us - query.since_us > _LONGEST_OF_MEMBERS_US:
        raise BadRequest("A member asks for a year at most. Ask for a part of the time.", param="since")
    if isinstance(query, UsageQuery) and sum(word.startswith(_TAG) for word in query.group_by) > 1:
        raise BadRequest("A member groups by one tag at most. Ask for one after the other.", param="group_by")


def _check_plain(asked: BaseModel) -> None:
    """Raises `BadRequest` for what no database takes as text."""
    for name, value in asked.model_dump(exclude_none=True).items():
        if isinstance(value, str) and not is_plain(value):
            raise BadRequest(f"{name} must be printable characters.", param=name)


def _in_groups(page: UsagePage, word: str) -> list[str]:
    return [str(group.group[word]) for group in page.groups if group.group.get(word) is not None]
