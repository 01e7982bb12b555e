"""Keys over HTTP, one's own among them."""

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Query, Response
from fastapi.responses import JSONResponse

from gateway.access.administration import Administration
from gateway.access.drafts import KeyDraft, KeyFilters
from gateway.access.records import Actor
from gateway.errors import NotFound
from gateway.http.admin.authentication import PREFIX, ActorOf, for_team_admins, no_body, no_query
from gateway.http.admin.conditions import IdempotencyKey, Version
from gateway.http.admin.replies import (
    IssuedReply,
    KeyReply,
    ListReply,
    MeReply,
    key_reply,
    show,
    show_issued,
    show_page,
    team_reply,
)
from gateway.http.admin.requests import KeyCreate, KeysQuery, KeyUpdate, Rotate

_ONE = "/keys/{key_id}"


class KeyRoutes:
    """The routes /keys."""

    def __init__(self, administration: Administration) -> None:
        self._administration = administration

    def add_to(self, router: APIRouter) -> None:
        """Give the routes to `router`."""
        plain, bare = [Depends(no_query)], [Depends(no_query), Depends(no_body)]
        leads = [Depends(for_team_admins), *plain]
        one: dict[str, Any] = {"response_model": KeyReply}
        issued: dict[str, Any] = {"response_model": IssuedReply}
        router.get("/keys", summary="List keys", response_model=ListReply[KeyReply])(self.list)
        router.post("/keys", summary="Make a key", status_code=201, dependencies=leads, **issued)(self.create)
        router.get(_ONE, summary="Show a key", dependencies=plain, **one)(self.show)
        router.patch(_ONE, summary="Change a key", dependencies=leads, **one)(self.update)
        router.post(f"{_ONE}/rotate", summary="Replace a secret", dependencies=plain, **issued)(self.rotate)
        router.post(f"{_ONE}/disable", summary="Stop a key", dependencies=bare, **one)(self.disable)
        router.post(f"{_ONE}/enable", summary="Let it work again", dependencies=bare, **one)(self.enable)
        router.post(f"{_ONE}/revoke", summary="End a key for good", dependencies=bare, **one)(self.revoke)

    async def list(self, actor: ActorOf, query: Annotated[KeysQuery, Query()]) -> Response:
        """An admin sees all keys, revoked ones too, a team admin those of the team; `team` must be one they see."""
        if query.team is not None:
            await self._administration.team(actor, query.team)
        filters = msgspec.convert(query.model_dump(exclude={"sort", "limit", "after"}), KeyFilters)
        page = await self._administration.keys(actor, filters, sort=query.sort, limit=query.limit, after=query.after)
        return show_page(page, [key_reply(key) for key in page.items])

    async def create(self, actor: ActorOf, body: KeyCreate, idempotency_key: IdempotencyKey) -> Response:
        """The reply holds the secret, this once. Nobody hands out more than they have."""
        draft = msgspec.convert(body.model_dump(), KeyDraft)
        issued = await self._administration.create_key(actor, draft, idempotency_key=idempotency_key)
        return show_issued(issued, status=201, headers={"location": f"{PREFIX}/keys/{issued.key.id}"})

    async def show(self, actor: ActorOf, key_id: str) -> Response:
        """One key, with its version as `ETag`."""
        return show(key_reply(await self._administration.key(actor, key_id)))

    async def update(self, actor: ActorOf, key_id: str, body: KeyUpdate, version: Version) -> Response:
        """A JSON merge patch."""
        changes = body.model_dump(exclude_unset=True)
        return show(key_reply(await self._administration.update_key(actor, key_id, changes, version=version)))

    async def rotate(self, actor: ActorOf, key_id: str, version: Version, body: Rotate | None = None) -> Response:
        """Id, limits and history stay. The reply holds the new secret, this once."""
        grace_s = 0 if body is None else body.grace_s
        return show_issued(await self._administration.rotate_key(actor, key_id, grace_s=grace_s, version=version))

    async def disable(self, actor: ActorOf, key_id: str, version: Version) -> Response:
        """From now on it does not work, until it is enabled."""
        return show(key_reply(await self._administration.disable_key(actor, key_id, version=version)))

    async def enable(self, actor: ActorOf, key_id: str, version: Version) -> Response:
        """Undo `disable`."""
        return show(key_reply(await self._administration.enable_key(actor, key_id, version=version)))

    async def revoke(self, actor: ActorOf, key_id: str, version: Version) -> Response:
        """It cannot be undone. The name is free again."""
        return show(key_reply(await self._administration.revoke_key(actor, key_id, version=version)))


class MeRoutes:
    """The routes /me: the key that asks."""

    def __init__(self, administration: Administration) -> None:
        self._administration = administration

    def add_to(self, router: APIRouter) -> None:
        """Give the routes to `router`."""
        plain = [Depends(no_query)]
        router.get("/me", summary="Show my key and my team", response_model=MeReply, dependencies=plain)(self.show)
        router.post("/me/rotate", summary="Replace my secret", response_model=IssuedReply, dependencies=plain)(
            self.rotate
        )

    async def show(self, actor: ActorOf) -> Response:
        """Whoever has a key may ask."""
        check_has_key(actor)
        key, team = await self._administration.me(actor)
        return JSONResponse(MeReply(key=key_reply(key), team=team_reply(team)).model_dump())

    async def rotate(self, actor: ActorOf, version: Version, body: Rotate | None = None) -> Response:
        """Whoever has a key may replace its secret."""
        check_has_key(actor)
        grace_s = 0 if body is None else body.grace_s
        return show_issued(await self._administration.rotate_me(actor, grace_s=grace_s, version=version))


def check_has_key(actor: Actor) -> None:
    """Raises `NotFound` for whoever asks without a key."""
    if actor.key_id is None:
        raise NotFound("Whoever works on the store itself has no key. Ask with --url and a key.")
