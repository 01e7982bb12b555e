"""Export and import over HTTP: all teams and keys as one YAML document, without secrets.

Knows no secret; digests of secrets go in and out for admins alone.
"""

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import JSONResponse

from gateway.access.administration import Administration
from gateway.errors import BadRequest, UnsupportedMediaType
from gateway.http.admin.authentication import ActorOf, content_type, for_team_admins
from gateway.http.admin.document import read_document, write_document
from gateway.http.admin.replies import ImportReply, import_reply
from gateway.http.admin.requests import ExportQuery, ImportQuery

MAX_DOCUMENT_BYTES = 1024 * 1024

_YAML = "application/yaml"
_TYPES = frozenset((_YAML, "application/x-yaml", "text/yaml", "application/json"))
_EXAMPLE = "version: 1\nteams:\n- name: engines\n  keys:\n  - name: ada\n    owner: ada@example.com\n"
_CONTENT: dict[str, Any] = {_YAML: {"schema": {"type": "string"}, "example": _EXAMPLE}}


class TransferRoutes:
    """The routes /export and /import."""

    def __init__(self, administration: Administration) -> None:
        self._administration = administration
        self._turn = asyncio.Lock()

    def add_to(self, router: APIRouter) -> None:
        """Give the routes to `router`."""
        router.get(
            "/export",
            summary="Teams and keys as YAML",
            response_class=Response,
            responses={200: {"description": "A document for `/import`.", "content": _CONTENT}},
        )(self.export)
        router.post(
            "/import",
            summary="Make or change teams and keys as YAML says",
            response_model=ImportReply,
            openapi_extra={"requestBody": {"required": True, "content": _CONTENT}},
            dependencies=[Depends(for_team_admins)],
        )(self.import_)

    async def export(self, actor: ActorOf, query: Annotated[ExportQuery, Query()]) -> Response:
        """What the actor may see, without secrets and ids; nothing revoked."""
        document = await self._administration.export(actor, query.team, with_digests=query.with_digests)
        return Response(await asyncio.to_thread(write_document, document), media_type=_YAML)

    async def import_(self, actor: ActorOf, request: Request, query: Annotated[ImportQuery, Query()]) -> Response:
        """All or nothing. What the document does not name stays; new keys come with their secrets, this once.

        A new key with `secret_sha256`, which an admin alone may send, keeps the secret that has this SHA-256, and its
        `secret` is null. No key that is there gets another secret.
        """
        if "idempotency-key" in request.headers:
            raise BadRequest(
                "An import takes no Idempotency-Key: sent again it changes nothing, and shows no secret again.",
                param="idempotency-key",
            )
        if content_type(request) not in _TYPES:
            raise UnsupportedMediaType(f"The body must be YAML. Send it with Content-Type: {_YAML}.")
        # One at a time: each takes a while, of the processor and of a connection to the database.
        async with self._turn:
            document = await asyncio.to_thread(read_document, await request.body())
            imported = await self._administration.import_(actor, document, dry_run=query.dry_run)
        return JSONResponse(import_reply(imported, dry_run=query.dry_run).model_dump())
