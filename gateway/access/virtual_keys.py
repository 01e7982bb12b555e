"""Changes to keys, each within one transaction: permitted, legal, fitting, then stored.

Knows where secrets come from and that they are kept as digests alone.
"""

from typing import Literal

import msgspec

from gateway.access import rules
from gateway.access.admins import check_an_admin_key_remains
from gateway.access.change import Change, new_id
from gateway.access.drafts import Brought, KeyDraft
from gateway.access.keys import digest, new_secret
from gateway.access.records import Issued, Key, Team
from gateway.access.validity import check_ends_later, check_key_name, legal_key
from gateway.errors import Conflict

_HINT_LENGTH = 4
_State = Literal["active", "disabled"]


def new_key(team: Team, draft: KeyDraft, secret: str, now: int, state: _State = "active") -> Key:
    """The record of a key that is made at `now`, Unix time, and has `secret`."""
    members = msgspec.structs.asdict(draft)
    members.update(team=team.name, team_id=team.id, team_state=team.state, hint=hint(secret))
    return Key(id=new_id("key"), state=state, source="api", version=1, created_at=now, updated_at=now, **members)


def hint(secret: str) -> str:
    """What is shown of a secret: enough to tell keys apart, too little to help anyone guess."""
    return secret[-_HINT_LENGTH:]


async def make_key(
    change: Change,
    draft: KeyDraft,
    route_groups: frozenset[str],
    brought: Brought | None = None,
    *,
    state: _State = "active",
) -> Issued:
    """A new key in a team that the actor sees; with a new secret, or with the one that was `brought` and no other."""
    rules.require_team_admin(change.authority)
    team = await change.team(draft.team)
    draft = legal_key(draft, route_groups)
    check_key_name(draft.name)
    check_ends_later(draft.expires_at, change.now)
    secret = new_secret()
    key = new_key(team, draft, secret, change.now, state)
    rules.check_hands_out(change.authority, rules.terms_of(key, team))
    await _check_name_is_free(change, key)
    if brought is None:
        return Issued(await change.add_key(key, digest(secret.encode())), secret)
    key = msgspec.structs.replace(key, hint=brought.hint or "")
    return Issued(await change.add_key(key, brought.digest, is_imported=True), None)


async def revise_key(change: Change, before: Key, draft: KeyDraft, route_groups: frozenset[str]) -> Key:
    """`before` made to what `draft` says; nothing is written if that is what it is."""
    rules.require_team_admin(change.authority)
    rules.check_touches_key(change.authority, before)
    # A group that has left the route table may stay where it is.
    draft = legal_key(draft, route_groups | frozenset(before.grants.routes or ()))
    after = _with(before, draft)
    if after == before:
        return before
    if after.expires_at != before.expires_at:
        check_ends_later(after.expires_at, change.now)
    team = await change.team(before.team_id)
    rules.check_hands_out(change.authority, rules.terms_of(after, team), rules.terms_of(before, team))
    if after.name != before.name:
        check_key_name(after.name)
        await _check_name_is_free(change, after)
    await check_an_admin_key_remains(change, before, after)
    return await change.replace_key(before, after)


async def rotate(change: Change, before: Key, grace_s: int) -> Issued:
    """A new secret for a key; the one before ends after `grace_s`, older ones now."""
    rules.check_touches_key(change.authority, before)
    rules.check_grace(grace_s)
    team = await change.team(before.team_id)
    rules.check_hands_out(change.authority, rules.terms_of(before, team))
    secret = new_secret()
    await change.end_secrets(before.id, grace_s=grace_s)
    await change.add_secret(before.id, digest(secret.encode()))
    grace_until = change.now + grace_s if grace_s else None
    after = msgspec.structs.replace(before, hint=hint(secret), rotated_at=change.now, grace_until=grace_until)
    return Issued(await change.replace_key(before, after, "key.rotate"), secret)


async def set_key_state(change: Change, before: Key, state: _State) -> Key:
    """Disable or enable a key; nothing is written if it is in that state."""
    rules.require_team_admin(change.authority)
    rules.check_touches_key(change.authority, before)
    if before.state == state:
        return before
    after = msgspec.structs.replace(before, state=state)
    if state == "active":
        # Whoever enables a key lets it be worth again what it is worth.
        rules.check_hands_out(change.authority, rules.terms_of(before, await change.team(before.team_id)))
    await check_an_admin_key_remains(change, before, after)
    return await change.replace_key(before, after, "key.enable" if state == "active" else "key.disable")


async def revoke(change: Change, before: Key) -> Key:
    """End a key for good; nothing is written if it is revoked."""
    rules.require_team_admin(change.authority)
    if before.state == "revoked":
        return before
    rules.check_touches_key(change.authority, before)
    after = msgspec.structs.replace(before, state="revoked", grace_until=None)
    await check_an_admin_key_remains(change, before, after)
    await change.end_secrets(before.id)
    return await change.replace_key(before, after, "key.revoke")


def _with(key: Key, draft: KeyDraft) -> Key:
    members = msgspec.structs.asdict(draft)
    del members["team"]
    return msgspec.structs.replace(key, **members)


async def _check_name_is_free(change: Change, key: Key) -> None:
    if await change.find_key(key.team_id, key.name) is not None:
        raise Conflict(
            f"There is a key of the name {key.name!r} in this team already. Choose another name.", param="name"
        )
