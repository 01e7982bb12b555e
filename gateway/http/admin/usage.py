"""What calls used and cost, over HTTP: sums by groups, of all that the asker may see, or of their own key."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Response
from fastapi.responses import JSONResponse
from pydantic import Field

from gateway.access.administration import Administration
from gateway.errors import BadRequest
from gateway.http.admin.authentication import ActorOf, for_team_admins
from gateway.http.admin.ledger_replies import UsageReply, usage_reply
from gateway.http.admin.ledger_terms import AnyFilters, LedgerDesk, OwnFilters, Whose, own_calls, whose_calls
from gateway.metering.ledger_query import UsageQuery

_MOST_WORDS = 6
_TIMES = ("day", "hour")
_ABOUT_GROUPS = (
    "What to group by, with commas between: any of `team`, `key`, `model`, `route`, `tag:NAME`, and `day` or `hour`."
    " Empty: totals alone."
)
_ABOUT_SORTING = (
    "One of the groups (of `team` and `key` their ids) or of the sums, with `-` before it from the top. Without it:"
    " by time where that is a group, else what cost most comes first."
)


class OwnUsageParameters(OwnFilters):
    """Which calls of one's own key, and how they are summed up."""

    group_by: str = Field(default="day", max_length=400, description=_ABOUT_GROUPS, examples=["team,day"])
    sort: str | None = Field(default=None, max_length=100, description=_ABOUT_SORTING)
    limit: int = Field(default=50, ge=1, le=200, description="Most groups of one reply.")
    after: str | None = Field(default=None, max_length=1000, description="`next` of the reply before.")


class UsageParameters(OwnUsageParameters, AnyFilters):
    """Which calls, and how they are summed up."""


class UsageRoutes:
    """The routes /usage and /me/usage."""

    def __init__(self, administration: Administration, desk: LedgerDesk) -> None:
        self._administration = administration
        self._desk = desk

    def add_to(self, router: APIRouter) -> None:
        """Give the routes to `router`."""
        one: dict[str, Any] = {"response_model": UsageReply}
        leads = [Depends(for_team_admins)]
        router.get("/usage", summary="Sum up what calls used", dependencies=leads, **one)(self.show)
        router.get("/me/usage", summary="Sum up what my calls used", **one)(self.show_own)

    async def show(self, actor: ActorOf, query: Annotated[UsageParameters, Query()]) -> Response:
        """Of all calls for an admin, of the team's for a team admin; `team` and `key` must be ones they see."""
        return await self._reply(query, await whose_calls(self._administration, actor, query))

    async def show_own(self, actor: ActorOf, query: Annotated[OwnUsageParameters, Query()]) -> Response:
        """Whoever has a key may ask."""
        whose, _, _ = await own_calls(self._administration, actor)
        return await self._reply(query, whose)

    async def _reply(self, asked: OwnUsageParameters, whose: Whose) -> Response:
        words = _words(asked.group_by)
        query = UsageQuery(
            **self._desk.filters(asked, whose),
            group_by=words,
            sort=asked.sort or _first_sort(words),
            limit=asked.limit,
            after=asked.after,
        )
        page, names = await self._desk.usage(query)
        return JSONResponse(usage_reply(page, names, query, self._desk.days.zone))


def _words(text: str) -> tuple[str, ...]:
    words = tuple(word.strip() for word in text.split(",")) if text.strip() else ()
    if len(words) > _MOST_WORDS:
        raise BadRequest(f"group_by must name {_MOST_WORDS} groups at most.", param="group_by")
    return words


def _first_sort(words: tuple[str, ...]) -> str:
    return next((word for word in words if word in _TIMES), "-cost_microusd")
