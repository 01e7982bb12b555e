"""Teams over HTTP."""

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Query, Response

from gateway.access.administration import Administration
from gateway.access.drafts import TeamDraft, TeamFilters
from gateway.http.admin.authentication import PREFIX, ActorOf, for_admins, for_team_admins, no_body, no_query
from gateway.http.admin.conditions import IdempotencyKey, Version
from gateway.http.admin.replies import ListReply, TeamReply, show, show_page, team_reply
from gateway.http.admin.requests import TeamCreate, TeamsQuery, TeamUpdate

_ONE = "/teams/{team_id}"


class TeamRoutes:
    """The routes /teams; a team may be named by its id or, if it holds no slash, by its name."""

    def __init__(self, administration: Administration) -> None:
        self._administration = administration

    def add_to(self, router: APIRouter) -> None:
        """Give the routes to `router`."""
        plain, bare = [Depends(no_query)], [Depends(no_query), Depends(no_body)]
        leads, admins = [Depends(for_team_admins), *plain], [Depends(for_admins), *plain]
        one: dict[str, Any] = {"response_model": TeamReply}
        router.get("/teams", summary="List teams", response_model=ListReply[TeamReply])(self.list)
        router.post("/teams", summary="Make a team", status_code=201, dependencies=admins, **one)(self.create)
        router.get(_ONE, summary="Show a team", dependencies=plain, **one)(self.show)
        router.patch(_ONE, summary="Change a team", dependencies=leads, **one)(self.update)
        router.post(f"{_ONE}/disable", summary="Stop all keys of a team", dependencies=bare, **one)(self.disable)
        router.post(f"{_ONE}/enable", summary="Let them work again", dependencies=bare, **one)(self.enable)

    async def list(self, actor: ActorOf, query: Annotated[TeamsQuery, Query()]) -> Response:
        """An admin sees all teams, a team admin their own."""
        filters = TeamFilters(name=query.name, state=query.state, tag=query.tag)
        page = await self._administration.teams(actor, filters, sort=query.sort, limit=query.limit, after=query.after)
        return show_page(page, [team_reply(team) for team in page.items])

    async def create(self, actor: ActorOf, body: TeamCreate, idempotency_key: IdempotencyKey) -> Response:
        """For admins."""
        draft = msgspec.convert(body.model_dump(), TeamDraft)
        made = await self._administration.create_team(actor, draft, idempotency_key=idempotency_key)
        headers = {"location": f"{PREFIX}/teams/{made.team.id}"}
        if made.is_replay:
            headers["idempotent-replayed"] = "true"
        return show(team_reply(made.team), status=201, headers=headers)

    async def show(self, actor: ActorOf, team_id: str) -> Response:
        """One team, with its version as `ETag`."""
        return show(team_reply(await self._administration.team(actor, team_id)))

    async def update(self, actor: ActorOf, team_id: str, body: TeamUpdate, version: Version) -> Response:
        """A JSON merge patch. A team admin changes the tags alone."""
        changes = body.model_dump(exclude_unset=True)
        return show(team_reply(await self._administration.update_team(actor, team_id, changes, version=version)))

    async def disable(self, actor: ActorOf, team_id: str, version: Version) -> Response:
        """From now on no key of the team works."""
        return show(team_reply(await self._administration.disable_team(actor, team_id, version=version)))

    async def enable(self, actor: ActorOf, team_id: str, version: Version) -> Response:
        """Keys that were disabled one by one stay so."""
        return show(team_reply(await self._administration.enable_team(actor, team_id, version=version)))
