"""Single calls over HTTP, of all that the asker may see, or of their own key: how each ended, where its time went."""

from typing import Annotated, Any, Literal, get_args

from fastapi import APIRouter, Depends, Query, Response
from fastapi.responses import JSONResponse
from pydantic import Field

from gateway.access.administration import Administration
from gateway.access.records import Actor
from gateway.access.validity import is_plain
from gateway.call import Outcome
from gateway.errors import BadRequest, NotFound
from gateway.http.admin.authentication import ActorOf, for_who_sees_others, no_query
from gateway.http.admin.ledger_replies import CallReply, call_reply
from gateway.http.admin.ledger_terms import (
    AnyFilters,
    LedgerDesk,
    OwnFilters,
    Whose,
    own_calls,
    teams_seen,
    whose_calls,
)
from gateway.http.admin.replies import ListReply
from gateway.metering.ledger_query import CallsQuery

_OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
_LONGEST_ID = 100
_CLASSES = {"none": 0, "1xx": 1, "2xx": 2, "3xx": 3, "4xx": 4, "5xx": 5}


class OwnCallsParameters(OwnFilters):
    """Which calls of one's own key; the newest come first."""

    outcome: str | None = Field(
        default=None, max_length=200, description=f"How they ended, with commas between: any of {', '.join(_OUTCOMES)}."
    )
    status: Literal["none", "1xx", "2xx", "3xx", "4xx", "5xx"] | None = Field(
        default=None, description="`none`: the client got no answer."
    )
    error: str | None = Field(default=None, max_length=100, description="The code of the error that the client saw.")
    limit: int = Field(default=50, ge=1, le=200, description="Most calls of one reply.")
    after: str | None = Field(default=None, max_length=1000, description="`next` of the reply before.")


class CallsParameters(OwnCallsParameters, AnyFilters):
    """Which calls; the newest come first."""


class CallRoutes:
    """The routes /calls and /me/calls."""

    def __init__(self, administration: Administration, desk: LedgerDesk) -> None:
        self._administration = administration
        self._desk = desk

    def add_to(self, router: APIRouter) -> None:
        """Give the routes to `router`."""
        leads, alone = Depends(for_who_sees_others), Depends(no_query)
        many: dict[str, Any] = {"response_model": ListReply[CallReply]}
        one: dict[str, Any] = {"response_model": CallReply}
        router.get("/calls", summary="List calls", dependencies=[leads], **many)(self.list)
        router.get("/calls/{call_id}", summary="Show a call", dependencies=[leads, alone], **one)(self.show)
        router.get("/me/calls", summary="List my calls", **many)(self.list_own)
        router.get("/me/calls/{call_id}", summary="Show a call of mine", dependencies=[alone], **one)(self.show_own)

    async def list(self, actor: ActorOf, query: Annotated[CallsParameters, Query()]) -> Response:
        """An admin sees all, a team admin the team's; `team` and `key` must be ones they see."""
        return await self._list(actor, query, await whose_calls(self._administration, actor, query))

    async def list_own(self, actor: ActorOf, query: Annotated[OwnCallsParameters, Query()]) -> Response:
        """Whoever has a key may ask for the calls that were made with it."""
        return await self._list(actor, query, await own_calls(self._administration, actor))

    async def show(self, actor: ActorOf, call_id: str) -> Response:
        """One call, by the `x-gateway-request-id` of its reply; it is there about a second after its end."""
        return await self._show(actor, call_id, Whose(await teams_seen(self._administration, actor)))

    async def show_own(self, actor: ActorOf, call_id: str) -> Response:
        """The same for whoever has a key, of the calls that were made with it."""
        return await self._show(actor, call_id, await own_calls(self._administration, actor))

    async def _list(self, actor: Actor, asked: OwnCallsParameters, whose: Whose) -> Response:
        page, names = await self._desk.calls(
            actor,
            CallsQuery(
                **self._desk.filters(asked, whose),
                outcomes=_outcomes(asked.outcome),
                status_classes=None if asked.status is None else (_CLASSES[asked.status],),
                errors=None if asked.error is None else (asked.error,),
                limit=asked.limit,
                after=asked.after,
            ),
        )
        data = [call_reply(call, names) for call in page.calls]
        return JSONResponse({"object": "list", "data": data, "has_more": page.next is not None, "next": page.next})

    async def _show(self, actor: Actor, call_id: str, whose: Whose) -> Response:
        if is_plain(call_id) and len(call_id) <= _LONGEST_ID:
            call, names = await self._desk.call(actor, call_id, whose)
            if call is not None:
                return JSONResponse(call_reply(call, names))
        raise NotFound("There is no such call, or it is not yours to see. List the calls to find its id.")


def _outcomes(text: str | None) -> tuple[Outcome, ...] | None:
    if text is None:
        return None
    words = {word.strip() for word in text.split(",")}
    if not words <= set(_OUTCOMES):
        raise BadRequest(f"outcome must be any of {', '.join(_OUTCOMES)}, with commas between.", param="outcome")
    return tuple(outcome for outcome in _OUTCOMES if outcome in words)
