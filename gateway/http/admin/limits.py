"""Limits over HTTP: how much is left of each, and making all of it available again.

Knows whose limits a request means and how they are written. Where they are counted, `gateway.limits` knows.
"""

import contextlib
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Response
from fastapi.responses import JSONResponse

from gateway.access.administration import Administration
from gateway.access.records import Actor, Key, Team
from gateway.errors import BadRequest, Conflict, NotFound, StoreUnavailable
from gateway.http.admin.authentication import ActorOf, for_admins, no_query
from gateway.http.admin.keys import check_has_key
from gateway.http.admin.replies import LimitReply, LimitsReply
from gateway.http.admin.requests import LimitsQuery, ResetLimits
from gateway.limits.overview import Overview, full, model_of
from gateway.limits.rules import Rule, Standing
from gateway.terms import Quota


class LimitRoutes:
    """The routes /limits and /me/limits. `overview` is None where no limits are counted, on a store by itself."""

    def __init__(self, administration: Administration, overview: Overview | None) -> None:
        self._administration = administration
        self._known = overview

    def add_to(self, router: APIRouter) -> None:
        """Give the routes to `router`."""
        plain: dict[str, Any] = {"response_model": LimitsReply, "dependencies": [Depends(no_query)]}
        admins = {**plain, "dependencies": [Depends(for_admins), Depends(no_query)]}
        router.get("/limits", summary="Show what is left of limits", response_model=LimitsReply)(self.show)
        router.post("/limits/reset", summary="Make all of a limit available again", **admins)(self.reset)
        router.get("/me/limits", summary="Show what is left of my limits", **plain)(self.show_own)

    async def show(self, actor: ActorOf, query: Annotated[LimitsQuery, Query()]) -> Response:
        """Of a key: its own, its team's and those of the team's models. Of a team: without its keys'."""
        _check_one_is_named(query.key, query.team, query.endpoint)
        if query.key is not None:
            rules = self._overview.rules_of_key(_quota(*await self._administration.key_in_team(actor, query.key)))
        elif query.team is not None:
            team = await self._administration.team(actor, query.team)
            rules = self._overview.rules_of_team(_quota(None, team))
        else:
            await self._administration.check_admin(actor)
            rules = self._rules_of_endpoint(query.endpoint or "")
        return await self._reply(rules)

    async def show_own(self, actor: ActorOf) -> Response:
        """Whoever has a key may ask."""
        check_has_key(actor)
        key, team = await self._administration.me(actor)
        return await self._reply(self._overview.rules_of_key(_quota(key, team)))

    async def reset(self, actor: ActorOf, body: ResetLimits) -> Response:
        """For admins. A key's own limits and not its team's, or a team's and its models' and not its keys'.

        Where there is no such limit, `data` is empty, and the audit log says nothing.
        """
        _check_one_is_named(body.key, body.team)
        subject, rules = await self._to_reset(actor, body)
        if body.dimension is not None:
            rules = [rule for rule in rules if rule.dimension == body.dimension]
        if not rules:
            # Nothing is done, so there is nothing to leave a trace of.
            await self._administration.check_admin(actor)
            return await self._reply(rules)
        before = {standing.rule.id: standing.remaining for standing in await self._overview.standings(rules)}
        used = {rule: before[rule.id] for rule in rules if before[rule.id] < full(rule)}
        # First, so that nothing is reset without a trace; what then fails leaves another.
        await self._administration.note_reset(
            actor,
            subject,
            before={rule.id: remaining for rule, remaining in used.items()},
            after={rule.id: full(rule) for rule in used},
        )
        try:
            await self._overview.reset(rules)
        except StoreUnavailable:
            with contextlib.suppress(StoreUnavailable):
                await self._administration.note_reset_failed(actor, subject)
            raise
        return await self._reply(rules)

    @property
    def _overview(self) -> Overview:
        if self._known is None:
            raise Conflict(
                "Limits are counted in the memory of the gateway that runs, and cannot be seen from the store. Ask"
                " that gateway: --url http://127.0.0.1:8080, with an admin key; or share them in Redis: redis.url."
            )
        return self._known

    def _rules_of_endpoint(self, name: str) -> list[Rule]:
        if name not in self._overview.endpoints:
            known = ", ".join(self._overview.endpoints)
            raise NotFound(f"There is no such endpoint. There are these: {known}.", param="endpoint")
        return self._overview.rules_of_endpoint(name)

    async def _to_reset(self, actor: Actor, body: ResetLimits) -> tuple[Key | Team, list[Rule]]:
        if body.key is not None:
            key, team = await self._administration.key_in_team(actor, body.key)
            rules = self._overview.rules_of_key(_quota(key, team))
            return key, [rule for rule in rules if rule.whose == "key"]
        team = await self._administration.team(actor, body.team or "")
        return team, self._overview.rules_of_team(_quota(None, team))

    async def _reply(self, rules: Sequence[Rule]) -> Response:
        standings = await self._overview.standings(rules)
        overview = self._overview
        data = [_limit_reply(standing) for standing in standings]
        reply = LimitsReply(mode=overview.mode, has_prices=overview.has_prices, data=data)
        return JSONResponse(reply.model_dump())


def _check_one_is_named(*names: str | None) -> None:
    if sum(name is not None for name in names) != 1:
        raise BadRequest("Say whose limits are meant: one of key and team, or to see them, endpoint.")


def _quota(key: Key | None, team: Team) -> Quota:
    own = {} if key is None else {"key": key.limits, "key_budgets": key.budgets}
    return Quota(
        team_id=team.id,
        key_id="" if key is None else key.id,
        team=team.limits,
        model_limits=team.model_limits,
        team_budgets=team.budgets,
        **own,  # type: ignore[arg-type]  # a dict of two types
    )


def _limit_reply(standing: Standing) -> LimitReply:
    rule = standing.rule
    is_rate = rule.dimension in ("requests", "tokens")
    has_end = is_rate or rule.resets_at_s is not None
    return LimitReply(
        id=rule.id,
        whose=rule.whose,
        model=model_of(rule),
        dimension=rule.dimension,
        period=rule.period,
        limit=rule.limit,
        burst=full(rule) if is_rate else None,
        remaining=standing.remaining,
        resets_in_ms=-(-standing.reset_us // 1000) if has_end else None,
        shadow=rule.shadow,
    )
