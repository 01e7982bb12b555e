"""The audit log over HTTP."""

from typing import Annotated

import msgspec
from fastapi import APIRouter, Query, Response

from gateway.access.administration import Administration
from gateway.access.drafts import AuditFilters
from gateway.http.admin.authentication import ActorOf
from gateway.http.admin.replies import AuditReply, ListReply, audit_reply, show_page
from gateway.http.admin.requests import AuditQuery


class AuditRoutes:
    """The route /audit."""

    def __init__(self, administration: Administration) -> None:
        self._administration = administration

    def add_to(self, router: APIRouter) -> None:
        """Give the route to `router`."""
        router.get("/audit", summary="List what was changed", response_model=ListReply[AuditReply])(self.list)

    async def list(self, actor: ActorOf, query: Annotated[AuditQuery, Query()]) -> Response:
        """Newest first. An admin sees all, a team admin what was done to the team; `team` must be one they see."""
        if query.team is not None:
            await self._administration.team(actor, query.team)
        filters = msgspec.convert(query.model_dump(exclude={"limit", "after"}), AuditFilters)
        page = await self._administration.audit(actor, filters, limit=query.limit, after=query.after)
        return show_page(page, [audit_reply(entry) for entry in page.items])
