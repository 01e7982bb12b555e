"""Ask the store whom secrets stand for.

Knows the query and what of a row becomes a principal. Only what may be used now is found: active keys of active teams.
Whether their time is over is for whoever holds a clock.
"""

import logging
from collections.abc import Sequence
from typing import Any, cast

import msgspec
from sqlalchemy import Row, bindparam, null, select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.call import Principal
from gateway.store.tables import keys, secrets, teams
from gateway.terms import Budgets, Grants, Limits, Quota, Role

_log = logging.getLogger(__name__)

_TAG_NAME, _TAG_VALUE = 64, 200
"""A tag of more characters is not put on calls."""

_OF_KEYS = (
    keys.c.id.label("key_id"),
    keys.c.name.label("key"),
    keys.c.team_id,
    teams.c.name.label("team"),
    keys.c.role,
    keys.c.expires_at,
    keys.c.grants.label("key_grants"),
    teams.c.grants.label("team_grants"),
    keys.c.limits.label("key_limits"),
    teams.c.limits.label("team_limits"),
    teams.c.model_limits,
    keys.c.budgets.label("key_budgets"),
    teams.c.budgets.label("team_budgets"),
    keys.c.tags,
)
_PRINCIPALS = (
    select(secrets.c.digest, secrets.c.valid_until, *_OF_KEYS)
    .join_from(secrets, keys, secrets.c.key_id == keys.c.id)
    .join(teams, keys.c.team_id == teams.c.id)
    .where(
        secrets.c.digest.in_(bindparam("digests", expanding=True)),
        keys.c.state == "active",
        teams.c.state == "active",
    )
)
_MAKERS = (
    select(*_OF_KEYS, null().label("valid_until"))
    .join_from(keys, teams, keys.c.team_id == teams.c.id)
    .where(keys.c.id.in_(bindparam("key_ids", expanding=True)))
)


async def find_imported(connection: AsyncConnection, key_ids: Sequence[str] | None = None) -> set[bytes]:
    """Digests of secrets that came with an import, of these keys or of all."""
    query = select(secrets.c.digest).where(secrets.c.is_imported)
    if key_ids is not None:
        query = query.where(secrets.c.key_id.in_(key_ids))
    return {bytes(digest) for digest in (await connection.execute(query)).scalars()}


async def find_principals(connection: AsyncConnection, digests: Sequence[bytes]) -> dict[bytes, Principal]:
    """Principals by digest, in one query; digests that stand for nobody are left out."""
    rows = await connection.execute(_PRINCIPALS, {"digests": list(digests)})
    found = ((bytes(row.digest), _principal(row)) for row in rows)
    return {digest: principal for digest, principal in found if principal is not None}


async def find_makers(connection: AsyncConnection, key_ids: Sequence[str]) -> dict[str, Principal]:
    """Whom these keys stand for, by key id, whether they may still be used or not. None of their calls is admitted."""
    rows = await connection.execute(_MAKERS, {"key_ids": list(key_ids)})
    found = ((row.key_id, _principal(row)) for row in rows)
    return {key_id: principal for key_id, principal in found if principal is not None}


def _principal(row: Row[*tuple[Any, ...]]) -> Principal | None:
    """None for a row that cannot be read: what it withholds is not known, so nothing is given."""
    try:
        grants = tuple(msgspec.convert(terms, Grants) for terms in (row.key_grants, row.team_grants))
        quota = Quota(
            team_id=row.team_id,
            key_id=row.key_id,
            key=msgspec.convert(row.key_limits, Limits),
            team=msgspec.convert(row.team_limits, Limits),
            model_limits=msgspec.convert(row.model_limits, dict[str, Limits]),
            key_budgets=msgspec.convert(row.key_budgets, Budgets),
            team_budgets=msgspec.convert(row.team_budgets, Budgets),
        )
        tags = _fitting(msgspec.convert(row.tags, dict[str, str]))
    except msgspec.ValidationError:
        _log.exception("The terms of key %s cannot be read, so it does not work.", row.key_id)
        return None
    return Principal(
        key=row.key,
        team=row.team,
        key_id=row.key_id,
        team_id=row.team_id,
        role=cast("Role", row.role),
        grants=tuple(grant for grant in grants if not grant.is_everything),
        quota=quota,
        expires_at_s=_earliest(row.expires_at, row.valid_until),
        is_in_grace=row.valid_until is not None,
        tags=tags,
    )


def _fitting(tags: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in tags.items() if len(name) <= _TAG_NAME and len(value) <= _TAG_VALUE}


def _earliest(*times_s: int | None) -> int | None:
    return min((time_s for time_s in times_s if time_s is not None), default=None)
