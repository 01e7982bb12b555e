"""Teams and keys as one document: to look through, to edit, to take to another gateway.

Knows the document's shape. It names teams and keys by name alone, and holds no secret; digests of secrets only where
an admin asks for them. What an import may do is what its actor may do one by one, the same rules in one transaction,
but for one thing: an admin may bring digests, so that keys go on working elsewhere.

    {"version": 1, "teams": [{"name", "state", "grants", "limits", "model_limits", "budgets", "tags",
        "keys": [{"name", "owner", "role", "state", "grants", "limits", "budgets", "tags", "expires_at",
            "secret_sha256", "hint"}]}]}

A member that is not there stays as it is, or as it is by default; one that is there replaces the whole value.
`expires_at` is written as in RFC 3339 (`2027-01-31T18:00:00Z`), Unix seconds are read too.
"""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal, TypeVar, cast

import msgspec
from sqlalchemy import ColumnElement, and_

from gateway.access import brought, rules
from gateway.access.admins import check_admins_remain
from gateway.access.batch import Batch
from gateway.access.change import View
from gateway.access.drafts import Imported, KeyDraft, TeamDraft
from gateway.access.patches import check_members, check_nested, converted, key_draft, team_draft
from gateway.access.records import Issued, Key, Team
from gateway.access.rows import key_of, select_keys, select_teams, team_of
from gateway.access.teams import make_team, revise_team, set_team_state
from gateway.access.virtual_keys import make_key, revise_key, set_key_state
from gateway.errors import BadRequest, GatewayError
from gateway.store.tables import keys, teams

VERSION = 1
MOST_ENTRIES = 500
"""Teams and keys of one import: nobody else changes anything until it ends."""
MOST_GRANTS = 5_000
"""Models, routes and networks that one import grants, of all its teams and keys together: each is compared with all
that its giver may use."""
_TERMS = ("grants", "limits", "budgets", "tags")
_OF_TEAM = ("name", "state", "model_limits", *_TERMS)
_OF_KEY = ("name", "owner", "role", "state", "expires_at", *_TERMS)
_SET_OF_KEY = (*_OF_KEY, *brought.MEMBERS)
_State = Literal["active", "disabled"]
_Drafted = TypeVar("_Drafted", TeamDraft, KeyDraft)


async def document_of(
    view: View, confines: list[ColumnElement[bool]], *, with_digests: bool = False
) -> dict[str, object]:
    """The teams that fulfil `confines`, with their keys: not those of the settings, nor what has ended."""
    held: dict[str, list[dict[str, Any]]] = defaultdict(list)
    has_ended = and_(keys.c.expires_at.is_not(None), keys.c.expires_at <= view.now)
    kept = (keys.c.state != "revoked", keys.c.source == "api", ~has_ended)
    query = select_keys(view.now).where(*kept, *confines).order_by(keys.c.name, keys.c.id)
    for row in await view.connection.execute(brought.with_newest(query) if with_digests else query):
        key = key_of(row)
        held[key.team_id].append(_members(key, _OF_KEY) | (brought.shown_of(row, key) if with_digests else {}))
    rows = await view.connection.execute(select_teams().where(*confines).order_by(teams.c.name))
    shown = [_members(team, _OF_TEAM) | {"keys": held[team.id]} for team in map(team_of, rows)]
    return {"version": VERSION, "teams": shown}


def entries_of(document: object) -> Sequence[object]:
    """The teams of `document`, each yet to be looked at. Raises `BadRequest` for what is none, or is too long."""
    whole = _mapping(document, "The document", ("version", "teams"))
    if whole.get("version", VERSION) != VERSION:
        raise BadRequest(f"version must be {VERSION}.", param="version")
    entries = _list(whole.get("teams"), "teams")
    count = len(entries) + sum(len(held) for _, held in _named(entries))
    if count > MOST_ENTRIES:
        raise BadRequest(
            f"The document has {count} teams and keys, and {MOST_ENTRIES} are imported at once at most. Send it in"
            " parts: what a part does not name stays as it is."
        )
    granted = sum(map(_granted, entries)) + sum(_granted(key) for _, held in _named(entries) for key in held)
    if granted > MOST_GRANTS:
        raise BadRequest(
            f"The document grants {granted} models, routes and networks, and {MOST_GRANTS} are imported at once at"
            " most. Send it in parts, or use wildcards."
        )
    return entries


async def apply_entries(batch: Batch, entries: Sequence[object], route_groups: frozenset[str]) -> Imported:
    """Make and change what differs from `entries`. Raises what single changes raise, with the place in front."""
    rules.require_team_admin(batch.authority)
    digests = brought.digests_in(key for _, held in _named(entries) for key in held)
    if digests:
        rules.check_brings_secrets(batch.authority)
    await batch.load(_names(entries))
    work = _Import(batch, route_groups, await brought.Holders.of(batch.connection, digests))
    for index, team in enumerate(entries):
        await work.team(team, f"teams[{index}]")
    if batch.replaces:
        await check_admins_remain(batch.stored(), batch)
    return work.done()


def without_secrets(imported: Imported) -> Imported:
    """What a dry run tells."""
    issued = tuple(Issued(each.key, None) for each in imported.made_keys)
    return msgspec.structs.replace(imported, made_keys=issued)


def _named(entries: Sequence[object]) -> Iterator[tuple[object, Sequence[object]]]:
    """The name that each team has, if it is one, and its keys. What is wrong is refused when its turn comes."""
    for entry in entries:
        if isinstance(entry, Mapping):
            held = entry.get("keys")
            yield entry.get("name"), held if isinstance(held, (list, tuple)) else ()


def _granted(entry: object) -> int:
    """How many models, routes and networks it names. What is wrong is refused when its turn comes, as above."""
    grants = entry.get("grants") if isinstance(entry, Mapping) else None
    lists = grants.values() if isinstance(grants, Mapping) else ()
    return sum(len(each) for each in lists if isinstance(each, (list, tuple)))


def _names(entries: Sequence[object]) -> dict[str, list[str]]:
    """Names of teams, and of the keys in each."""
    found: dict[str, list[str]] = defaultdict(list)
    for name, held in _named(entries):
        if isinstance(name, str):
            names = (key.get("name") for key in held if isinstance(key, Mapping))
            found[name.strip()] += [key.strip() for key in names if isinstance(key, str)]
    return found


class _Import:
    """One run through a document, and what came of it."""

    def __init__(self, change: Batch, route_groups: frozenset[str], holders: brought.Holders) -> None:
        self._change = change
        self._route_groups = route_groups
        self._holders = holders
        self._made_teams: list[Team] = []
        self._changed_teams: list[Team] = []
        self._made_keys: list[Issued] = []
        self._changed_keys: list[Key] = []
        self._unchanged = 0
        self._seen: set[tuple[str | None, str]] = set()

    def done(self) -> Imported:
        return Imported(
            tuple(self._made_teams),
            tuple(self._changed_teams),
            tuple(self._made_keys),
            tuple(self._changed_keys),
            self._unchanged,
        )

    async def team(self, entry: object, place: str) -> None:
        given = dict(_mapping(entry, place, (*_OF_TEAM, "keys")))
        held = _list(given.pop("keys", None), f"{place}.keys")
        given["name"] = self._new_name(given, None, place)
        await self._pause()
        with _at(place):
            team = await self._put_team(given)
        for index, key in enumerate(held):
            await self._key(team, key, f"{place}.keys[{index}]")

    async def _put_team(self, given: dict[str, Any]) -> Team:
        before = await self._visible_team(given["name"])
        state = _state(given)
        if before is None:
            draft = _filled(TeamDraft(name=given["name"]), given)
            team = await make_team(self._change, draft, self._route_groups, state=state or "active")
            self._made_teams.append(team)
            return team
        draft = _filled(team_draft(before), given)
        team = before
        if draft != team_draft(before):
            team = await revise_team(self._change, before, draft, self._route_groups)
        if state is not None and state != team.state:
            team = await set_team_state(self._change, team, state)
        self._count(self._changed_teams, before, team)
        return team

    async def _visible_team(self, name: str) -> Team | None:
        """A team that the actor does not see is made, which is refused just as if it did not exist."""
        team = await self._change.team_named(name)
        authority = self._change.authority
        return team if team is None or authority.role == "admin" or team.id == authority.team_id else None

    async def _key(self, team: Team, entry: object, place: str) -> None:
        given = dict(_mapping(entry, place, _SET_OF_KEY))
        given["name"] = self._new_name(given, team.id, place)
        await self._pause()
        with _at(place):
            await self._put_key(team, given)

    async def _put_key(self, team: Team, given: dict[str, Any]) -> None:
        if "expires_at" in given:
            given["expires_at"] = _time(given["expires_at"])
        secret = brought.taken_from(given)
        before = await self._change.find_key(team.id, given["name"])
        state = _state(given)
        if secret is not None:
            self._holders.check(secret, before)
        if before is None:
            draft = _filled(KeyDraft(team=team.id, name=given["name"]), given)
            issued = await make_key(self._change, draft, self._route_groups, secret, state=state or "active")
            self._made_keys.append(issued)
            return
        if secret is not None and not self._holders.is_marked(secret):
            self._change.mark_imported(before, secret.digest)
        key = before
        draft = _filled(key_draft(before), given)
        if draft != key_draft(before):
            key = await revise_key(self._change, before, draft, self._route_groups)
        if state is not None and state != key.state:
            key = await set_key_state(self._change, key, state)
        self._count(self._changed_keys, before, key)

    def _count(self, changed: list[Any], before: Team | Key, after: Team | Key) -> None:
        if after == before:
            self._unchanged += 1
        else:
            changed.append(after)

    def _new_name(self, given: Mapping[str, Any], team_id: str | None, place: str) -> str:
        name = given.get("name")
        if not isinstance(name, str):
            raise BadRequest(f"{place}: name is missing, or no text.", param=f"{place}.name")
        name = name.strip()
        if (team_id, name) in self._seen:
            raise BadRequest(f"{place}: this name is in the document twice.", param=f"{place}.name")
        self._seen.add((team_id, name))
        return name

    async def _pause(self) -> None:
        """Nothing here waits for the database: calls would wait for all of it."""
        await asyncio.sleep(0)


@contextlib.contextmanager
def _at(place: str) -> Iterator[None]:
    """Says of a refusal which entry it is about."""
    try:
        yield
    except GatewayError as error:
        error.message = f"{place}: {error.message}"
        error.args = (error.message,)
        error.param = place if error.param is None else f"{place}.{error.param}"
        raise


def _members(record: Team | Key, names: tuple[str, ...]) -> dict[str, Any]:
    members = {name: msgspec.to_builtins(getattr(record, name)) for name in names}
    if members.get("expires_at") is not None:
        members["expires_at"] = datetime.fromtimestamp(members["expires_at"], UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return members


def _mapping(value: object, place: str, members: tuple[str, ...]) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise BadRequest(f"{place} must be an object with these members: {', '.join(members)}.")
    check_members(value, members, place)
    return value


def _list(value: object, place: str) -> Sequence[object]:
    if value is None:
        return ()
    if not isinstance(value, (list, tuple)):
        raise BadRequest(f"{place} must be a list.", param=place)
    return value


def _state(given: dict[str, Any]) -> _State | None:
    value = given.pop("state", None)
    if value not in (None, "active", "disabled"):
        raise BadRequest("state must be active or disabled.", param="state")
    return cast("_State | None", value)


def _filled(draft: _Drafted, given: Mapping[str, Any]) -> _Drafted:
    """`draft` with what the document gives, of the right types. An empty `limits:` in YAML is null, and none."""
    kinds = {field.name: field.type for field in msgspec.structs.fields(draft)}
    values: dict[str, Any] = {}
    for name, value in given.items():
        check_nested(name, value)
        whole = {} if value is None and name in (*_TERMS, "model_limits") else value
        values[name] = converted(whole, kinds[name], name)
    return msgspec.structs.replace(draft, **values)


def _time(value: object) -> int | None:
    if value is None or type(value) is int:
        return value
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        moment = None
    if not isinstance(moment, datetime) or moment.tzinfo is None:
        raise BadRequest("expires_at must be a time with its offset: 2027-01-31T18:00:00Z.", param="expires_at")
    return int(moment.timestamp())
