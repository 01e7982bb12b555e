"""What calls used and cost, over HTTP: sums by groups, of all that the asker may see, or of their own key."""

import re
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import Field

from gateway.access.administration import Administration
from gateway.access.naming import Names
from gateway.access.records import Actor
from gateway.errors import BadRequest
from gateway.http.admin.authentication import ActorOf, for_who_sees_others
from gateway.http.admin.ledger_replies import UsageReply, usage_reply
from gateway.http.admin.ledger_terms import AnyFilters, LedgerDesk, OwnFilters, Whose, own_calls, whose_calls
from gateway.http.admin.usage_csv import MEDIA_TYPE, csv_of
from gateway.metering.ledger_pages import resumed
from gateway.metering.ledger_query import UsagePage, UsageQuery

_MOST_WORDS = 6
_WEIGHT = re.compile(r"[01](\.[0-9]{0,3})?")
_TIMES = ("day", "hour")
_ABOUT_GROUPS = (
    "What to group by, with commas between: any of `team`, `key`, `model`, `route`, `tag:NAME`, and `day` or `hour`."
    " Empty: totals alone."
)
_ABOUT_SORTING = (
    "One of the groups (of `team` and `key` their ids) or of the sums, with `-` before it from the top. Without it:"
    " by time where that is a group, else what cost most comes first. Pages in the order of a group have each once;"
    " in the order of a sum there is a next one only until calls change that order, and all are of the first one's"
    " times."
)


class OwnUsageParameters(OwnFilters):
    """Which calls of one's own key, and how they are summed up."""

    group_by: str = Field(default="day", max_length=400, description=_ABOUT_GROUPS, examples=["team,day"])
    sort: str | None = Field(default=None, max_length=100, description=_ABOUT_SORTING)
    limit: int = Field(default=50, ge=1, le=200, description="Most groups of one reply.")
    after: str | None = Field(default=None, max_length=4000, description="`next` of the reply before.")
    format: Literal["json", "csv"] | None = Field(
        default=None,
        description="Without it, as the request's Accept says. CSV has all groups, sorted by them in their order: it"
        " takes no `sort`, `limit` and `after`.",
    )


class UsageParameters(OwnUsageParameters, AnyFilters):
    """Which calls, and how they are summed up."""


class UsageRoutes:
    """The routes /usage and /me/usage."""

    def __init__(self, administration: Administration, desk: LedgerDesk) -> None:
        self._administration = administration
        self._desk = desk

    def add_to(self, router: APIRouter) -> None:
        """Give the routes to `router`."""
        as_csv: dict[str, Any] = {"content": {MEDIA_TYPE: {"schema": {"type": "string"}}}}
        one: dict[str, Any] = {"response_model": UsageReply, "responses": {200: as_csv}}
        leads = [Depends(for_who_sees_others)]
        router.get("/usage", summary="Sum up what calls used", dependencies=leads, **one)(self.show)
        router.get("/me/usage", summary="Sum up what my calls used", **one)(self.show_own)

    async def show(self, actor: ActorOf, request: Request, query: Annotated[UsageParameters, Query()]) -> Response:
        """Of all calls for an admin, of the team's for a team admin; `team` and `key` must be ones they see."""
        return await self._reply(actor, request, query, await whose_calls(self._administration, actor, query))

    async def show_own(
        self, actor: ActorOf, request: Request, query: Annotated[OwnUsageParameters, Query()]
    ) -> Response:
        """Whoever has a key may ask."""
        return await self._reply(actor, request, query, await own_calls(self._administration, actor))

    async def _reply(self, actor: Actor, request: Request, asked: OwnUsageParameters, whose: Whose) -> Response:
        is_csv = asked.format == "csv" or (asked.format is None and _prefers_csv(request.headers.get("accept", "")))
        response = await (self._csv if is_csv else self._json)(actor, asked, whose)
        response.headers["vary"] = "accept"
        return response

    async def _json(self, actor: Actor, asked: OwnUsageParameters, whose: Whose) -> Response:
        words = _words(asked.group_by)
        query = UsageQuery(
            **self._desk.filters(asked, whose),
            group_by=words,
            sort=asked.sort or _first_sort(words),
            limit=asked.limit,
            after=asked.after,
        )
        query = resumed(query)
        page, names = await self._desk.usage(actor, query)
        return JSONResponse(usage_reply(page, names, query, self._desk.days.zone))

    async def _csv(self, actor: Actor, asked: OwnUsageParameters, whose: Whose) -> Response:
        for name in ("sort", "limit", "after"):
            if name in asked.model_fields_set:
                raise BadRequest(f"{name} does not go with CSV, which has all groups. Leave it out.", param=name)
        words = _words(asked.group_by)
        if not words:
            raise BadRequest("CSV has a row a group. Say in group_by which.", param="group_by")
        query = UsageQuery(**self._desk.filters(asked, whose), group_by=words, sort=words[0])

        async def ask(page: UsageQuery) -> tuple[UsagePage, Names]:
            is_first = page.after is None
            return await (self._desk.usage if is_first else self._desk.next_usage)(actor, page)

        pieces = csv_of(ask, query, self._desk.days.zone)
        first = await anext(pieces)
        headers = {"content-disposition": 'attachment; filename="usage.csv"'}
        return StreamingResponse(_all(first, pieces), media_type=MEDIA_TYPE, headers=headers)


async def _all(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for piece in rest:
        yield piece


def _prefers_csv(accept: str) -> bool:
    """Whether a request names CSV and not JSON, or CSV before JSON by its weight (RFC 9110, section 12.5.1)."""
    weights = dict(map(_weight, accept.split(",")))
    csv, json = weights.get(MEDIA_TYPE, 0.0), weights.get("application/json", 0.0)
    return csv > json


def _weight(item: str) -> tuple[str, float]:
    media_type, *parameters = (part.strip().lower() for part in item.split(";"))
    weight = next((part[2:] for part in parameters if part.startswith("q=")), "1")
    return media_type, float(weight) if _WEIGHT.fullmatch(weight) else 0.0


def _words(text: str) -> tuple[str, ...]:
    words = tuple(word.strip() for word in text.split(",")) if text.strip() else ()
    if len(words) > _MOST_WORDS:
        raise BadRequest(f"group_by must name {_MOST_WORDS} groups at most.", param="group_by")
    return words


def _first_sort(words: tuple[str, ...]) -> str:
    return next((word for word in words if word in _TIMES), "-cost_microusd")
