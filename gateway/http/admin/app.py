"""The admin API as routes for the gateway's own app, or as an app of its own.

Knows how the parts of this package go together, and nothing of stores.
"""

from typing import Any, Protocol

from fastapi import APIRouter

from gateway.access.administration import Administration
from gateway.http.admin.authentication import MAX_BODY_BYTES, PREFIX, Authenticate, describe_key, route_class
from gateway.http.admin.calls import CallRoutes
from gateway.http.admin.keys import KeyRoutes, MeRoutes
from gateway.http.admin.ledger_terms import LedgerDesk
from gateway.http.admin.limits import LimitRoutes
from gateway.http.admin.log import AuditRoutes
from gateway.http.admin.replies import ErrorReply
from gateway.http.admin.teams import TeamRoutes
from gateway.http.admin.transfer import MAX_DOCUMENT_BYTES, TransferRoutes
from gateway.http.admin.usage import UsageRoutes
from gateway.http.pages import OwnPages
from gateway.limits.overview import Overview

_ERRORS: dict[int | str, dict[str, Any]] = {"default": {"model": ErrorReply, "description": "An error."}}


class _Group(Protocol):
    def add_to(self, router: APIRouter) -> None: ...


def admin_router(
    administration: Administration,
    authenticate: Authenticate,
    overview: Overview | None = None,
    desk: LedgerDesk | None = None,
) -> APIRouter:
    """The routes below /admin/v1. `authenticate` is asked before a request's body is read.

    `overview` is None where limits cannot be seen; without a `desk` there are no routes that ask the ledger.
    """
    router = APIRouter(prefix=PREFIX, responses=_ERRORS, dependencies=[describe_key])
    groups: dict[str, _Group] = {
        "teams": TeamRoutes(administration),
        "keys": KeyRoutes(administration),
        "me": MeRoutes(administration),
        "limits": LimitRoutes(administration, overview),
        "audit": AuditRoutes(administration),
        "transfer": TransferRoutes(administration),
    }
    if desk is not None:
        groups["usage"] = UsageRoutes(administration, desk)
        groups["calls"] = CallRoutes(administration, desk)
    for name, group in groups.items():
        most_bytes = MAX_DOCUMENT_BYTES if name == "transfer" else MAX_BODY_BYTES
        guarded = route_class(authenticate, max_body_bytes=most_bytes)
        part = APIRouter(tags=[f"admin: {name}"], route_class=guarded)
        group.add_to(part)
        router.include_router(part)
    return router


def admin_app(
    administration: Administration,
    authenticate: Authenticate,
    overview: Overview | None = None,
    desk: LedgerDesk | None = None,
    **options: Any,
) -> OwnPages:
    """An app that has these routes, their description at /docs, and no other. `options` are FastAPI's."""
    app = OwnPages(title="GMI gateway: administration", **options)
    app.include_router(admin_router(administration, authenticate, overview, desk))
    return app
