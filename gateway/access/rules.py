"""Who may administer what: pure.

Two rules stand behind all others: nobody sees or touches what lies beyond their role and team, and nobody hands out
more than they have, to themselves neither. What is not theirs to see does not exist: the refusal is the same.
"""

from collections.abc import Iterator

import msgspec

from gateway.access.containment import is_within
from gateway.access.records import Key, Team
from gateway.errors import BadRequest, Conflict, Forbidden, NotFound
from gateway.terms import EVERYTHING, NO_LIMITS, ROLES, Budgets, Grants, Limits, Role, with_defaults

LONGEST_GRACE_S = 30 * 86_400
_OF_TEAM_ADMINS = ("tags",)
"""Not the name: settings and scripts put keys into the team of that name, whoever's it is."""


class Authority(msgspec.Struct, frozen=True):
    """Who acts, as the store has it at this moment. `key` and `team` are None for whoever holds the machine.

    `defaults` are what the settings hold keys to that say nothing themselves, admins' keys too; but an admin may put
    something else in their place, for anybody.
    """

    role: Role
    team_id: str | None = None
    key: Key | None = None
    team: Team | None = None
    defaults: Limits = NO_LIMITS


class Terms(msgspec.Struct, frozen=True):
    """What a key is worth. `home` are its team's grants, which hold for it besides its own."""

    role: Role
    grants: Grants
    limits: Limits
    budgets: Budgets
    expires_at: int | None
    home: Grants = EVERYTHING


def terms_of(key: Key, team: Team) -> Terms:
    """What a key of `team` is worth."""
    return Terms(key.role, key.grants, key.limits, key.budgets, key.expires_at, team.grants)


def require_admin(authority: Authority) -> None:
    """Raises `Forbidden`."""
    if authority.role != "admin":
        raise Forbidden("Only a key with the role admin may do this. Ask whoever runs this gateway.")


def check_brings_secrets(authority: Authority) -> None:
    """Raises `Forbidden`."""
    if authority.role != "admin":
        raise Forbidden("Only a key with the role admin may import secret_sha256. Leave it out: new secrets are made.")


def require_team_admin(authority: Authority) -> None:
    """Raises `Forbidden` unless the actor runs a team or the gateway."""
    if authority.role not in ("team_admin", "admin"):
        raise Forbidden(
            "A key with the role member sees and rotates itself alone: commands take its name (keys show NAME),"
            " over HTTP it is /admin/v1/me. Ask an admin of your team for more."
        )


def check_sees_team(authority: Authority, team_id: str) -> None:
    """Raises `NotFound`."""
    if authority.role != "admin" and team_id != authority.team_id:
        raise no_such("team")


def check_sees_key(authority: Authority, key: Key) -> None:
    """Raises `NotFound`."""
    if authority.role == "admin" or _is_own(authority, key):
        return
    if authority.role != "team_admin" or key.team_id != authority.team_id:
        raise no_such("key")


def no_such(kind: str) -> NotFound:
    """One refusal for what is not there and for what is another's."""
    return NotFound(f"There is no such {kind}, or it is not yours to see. List the {kind}s to find its id.")


def check_changes_team(authority: Authority, before: Team, after: Team) -> None:
    """Whether a team admin or admin may make `before`, which they see, to `after`. Raises `Forbidden`, `Conflict`."""
    if before.source == "settings":
        raise declared("team", before.name)
    if authority.role != "admin":
        for member in before.__struct_fields__:
            if member not in _OF_TEAM_ADMINS and getattr(before, member) != getattr(after, member):
                allowed = " and ".join(_OF_TEAM_ADMINS)
                raise Forbidden(
                    f"A team admin changes the team's {allowed} alone. Ask an admin of the gateway.", param=member
                )
    check_team_grants(authority, after.grants, before.grants)


def check_team_grants(authority: Authority, grants: Grants, before: Grants | None = None) -> None:
    """Whether the actor may give a team `grants`: within their own, or no more than it had. Raises `Forbidden`.

    Else one whose own grants are restricted could make a key in some team, and widen that team afterwards.
    """
    for own in _own_grants(authority):
        _check_grants(grants, own, before)


def check_touches_key(authority: Authority, key: Key) -> None:
    """Whether the actor may do anything to `key`, which they see. Raises `Forbidden` or `Conflict`."""
    if not _is_own(authority, key):
        require_team_admin(authority)
    if _rank(key.role) > _rank(authority.role):
        raise Forbidden(f"This key has the role {key.role}, which is above yours. Ask an admin of the gateway.")
    if key.source == "settings":
        raise declared("key", key.name)
    if key.state == "revoked":
        raise Conflict("This key is revoked, which cannot be undone. Make a new one.")


FIRST_TRY = "demo"
"""The name of the key, and of its team, that a gateway without an upstream key has."""


def declared(kind: str, name: str) -> Conflict:
    """The settings alone change what they declare; the simulator's key for a first try is declared by nobody."""
    if name == FIRST_TRY:
        return Conflict(
            f"The {kind} {name!r} is the simulator's, for a first try, or the settings declare it: it cannot be changed"
            " here. Make one of your own (keys create), or change the settings and restart the gateway."
        )
    return Conflict(f"The settings declare the {kind} {name!r}: change it there, and restart the gateway.")


def check_hands_out(authority: Authority, terms: Terms, before: Terms | None = None) -> None:
    """Whether the actor may let a key be worth `terms`. Raises `Forbidden`.

    Each term must lie within the actor's own, or within what the key had, so that anyone may narrow a key that was
    wider than theirs. Not so if its role is raised: then all that it has is handed to a role of the actor's giving.
    """
    if _rank(terms.role) > _rank(authority.role):
        raise Forbidden(f"Nobody hands out more than they have: your role is {authority.role}.", param="role")
    if before is not None and _rank(terms.role) > _rank(before.role):
        before = None
    if authority.key is None:
        return
    _check_grants(terms.grants, authority.key.grants, before.grants if before else None)
    if authority.team is not None:
        _check_grants(_inherited(terms), authority.team.grants, _inherited(before) if before else None)
    _check_limits(terms.limits, authority, authority.key.limits, before.limits if before else None)
    _check_wait(terms.limits, authority, before.limits if before else None)
    _check_amounts("budgets", terms.budgets, authority.key.budgets, before.budgets if before else None)
    _check_expiry(terms, authority.key, before)


def check_grace(grace_s: int) -> None:
    """Raises `BadRequest`."""
    if not 0 <= grace_s <= LONGEST_GRACE_S:
        raise BadRequest(f"grace_s must be from 0 to {LONGEST_GRACE_S} seconds (30 days).", param="grace_s")


def _is_own(authority: Authority, key: Key) -> bool:
    return authority.key is not None and authority.key.id == key.id


def _rank(role: Role) -> int:
    return ROLES.index(role)


def _own_grants(authority: Authority) -> Iterator[Grants]:
    if authority.key is not None:
        yield authority.key.grants
    if authority.team is not None:
        yield authority.team.grants


def _inherited(terms: Terms) -> Grants:
    """What a key may use where it names nothing itself: what its team may."""
    own = {member: getattr(terms.grants, member) for member in Grants.__struct_fields__}
    return Grants(**{member: getattr(terms.home, member) if mine is None else mine for member, mine in own.items()})


def _check_grants(grants: Grants, own: Grants, before: Grants | None) -> None:
    for member in Grants.__struct_fields__:
        wanted, mine = _only(grants, member), _only(own, member)
        if is_within(wanted, mine) or (before is not None and is_within(wanted, _only(before, member))):
            continue
        shown = ", ".join(getattr(own, member)) or "none"
        raise Forbidden(
            f"Nobody hands out more than they have: {member} must be named, and lie within yours: {shown}.",
            param=f"grants.{member}",
        )


def _only(grants: Grants, member: str) -> Grants:
    """Members are independent of each other, so each is compared by itself."""
    return Grants(**{member: getattr(grants, member)})


def _check_limits(limits: Limits, authority: Authority, own: Limits, before: Limits | None) -> None:
    _check_amounts("limits", limits, own, before)
    if authority.role != "admin":
        # Any limit of a kind takes the place of all defaults of that kind: it must not be a way past them.
        held = [with_defaults(each, authority.defaults) for each in (limits, own, before or NO_LIMITS)]
        _check_amounts("limits", held[0], held[1], None if before is None else held[2])


def _check_amounts(
    what: str, amounts: Limits | Budgets, own: Limits | Budgets, before: Limits | Budgets | None
) -> None:
    for member in own.__struct_fields__:
        if member == "max_wait_s":
            continue
        most = _most(getattr(own, member), before, member)
        wanted = getattr(amounts, member)
        if most is not None and (wanted is None or wanted > most):
            raise Forbidden(
                f"Nobody hands out more than they have: {member} must be set, to {most} at most.",
                param=f"{what}.{member}",
            )


def _check_wait(limits: Limits, authority: Authority, before: Limits | None) -> None:
    """Whoever says nothing of their own waits as their team says, or the settings, and has just that to hand out."""
    if authority.key is None:
        return
    own = authority.key.limits.max_wait_s
    most = own
    if most is None and authority.team is not None:
        most = authority.team.limits.max_wait_s
    if most is None and authority.role != "admin":
        most = authority.defaults.max_wait_s
    wanted, had = limits.max_wait_s, None if before is None else before.max_wait_s
    if most is None or (wanted is None and (own is None or (before is not None and had is None))):
        return
    most = max(most, had or 0)
    if wanted is None or wanted > most:
        raise Forbidden(
            f"Nobody hands out more than they have: max_wait_s must be set, to {most} at most.",
            param="limits.max_wait_s",
        )


def _most(own: int | None, before: object, member: str) -> int | None:
    """None stands for no bound: none of the actor's own, or none on the key as it was."""
    if before is None or own is None:
        return own
    had: int | None = getattr(before, member)
    return None if had is None else max(own, had)


def _check_expiry(terms: Terms, own: Key, before: Terms | None) -> None:
    latest = _most(own.expires_at, before, "expires_at")
    if latest is not None and (terms.expires_at is None or terms.expires_at > latest):
        raise Forbidden(
            f"Nobody hands out more than they have: expires_at must be {latest} at the latest, when your key ends.",
            param="expires_at",
        )
