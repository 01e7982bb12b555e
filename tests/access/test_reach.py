"""How far each role reaches, by every call there is; and that there is always an admin left."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import URL

from gateway.access.administration import Administration
from gateway.access.containment import is_within
from gateway.access.drafts import AuditFilters, KeyDraft, KeyFilters, TeamDraft, TeamFilters
from gateway.access.records import Actor, Issued, Key
from gateway.errors import Conflict, Forbidden, GatewayError, NotFound
from gateway.terms import EVERYTHING, ROLES, Budgets, Grants, Limits
from tests.access.desk import NOW, ROOT, Desk, actor_of, opened
from tests.support.stores import fresh_sqlite_url

UNKNOWN = {"team": "team_" + "0" * 20, "key": "key_" + "0" * 20}
Call = Callable[[Administration, Actor, str], Awaitable[object]]

ON_KEYS: dict[str, Call] = {
    "key": lambda do, actor, it: do.key(actor, it),
    "key_in_team": lambda do, actor, it: do.key_in_team(actor, it),
    "update_key": lambda do, actor, it: do.update_key(actor, it, {"name": "x"}),
    "rotate_key": lambda do, actor, it: do.rotate_key(actor, it),
    "disable_key": lambda do, actor, it: do.disable_key(actor, it),
    "enable_key": lambda do, actor, it: do.enable_key(actor, it),
    "revoke_key": lambda do, actor, it: do.revoke_key(actor, it),
}
LOOKS = {"key", "key_in_team"}
ON_TEAMS: dict[str, Call] = {
    "team": lambda do, actor, it: do.team(actor, it),
    "update_team": lambda do, actor, it: do.update_team(actor, it, {"name": "x"}),
    "create_key": lambda do, actor, it: do.create_key(actor, KeyDraft(it, "x")),
    "disable_team": lambda do, actor, it: do.disable_team(actor, it),
    "enable_team": lambda do, actor, it: do.enable_team(actor, it),
}


async def _note_reset(do: Administration, actor: Actor, it: str) -> None:
    await do.note_reset(actor, await do.team(ROOT, it), before={}, after={})


FOR_ADMINS: dict[str, Call] = {
    **{name: ON_TEAMS[name] for name in ("disable_team", "enable_team")},
    "create_team": lambda do, actor, _: do.create_team(actor, TeamDraft("x")),
    "check_admin": lambda do, actor, _: do.check_admin(actor),
    "note_reset": _note_reset,
}
LISTS: dict[str, Call] = {
    "teams": lambda do, actor, _: do.teams(actor),
    "keys": lambda do, actor, _: do.keys(actor),
    "audit": lambda do, actor, _: do.audit(actor),
    "export": lambda do, actor, _: do.export(actor),
    "import": lambda do, actor, _: do.import_(actor, {"teams": []}),
}

OF_THE_MACHINE = {"note_reset_failed"}
"""Asked of nobody: who was let in is noted, whatever has become of their key since."""
OF_ONESELF = {"check_lives", "me", "rotate_me"}


@pytest.fixture
async def desk(store_url: URL) -> AsyncIterator[Desk]:
    """Two teams, `research` and `sales`, each with a member called bob."""
    async with opened(store_url) as desk:
        for team in ("research", "sales"):
            await desk.team(team)
            await desk.key("bob", team)
        yield desk


def test_every_method_of_administration_is_tried() -> None:
    methods = {name for name in dir(Administration) if not name.startswith("_")}
    tried = {*ON_KEYS, *ON_TEAMS, *FOR_ADMINS, *LISTS, *OF_ONESELF, *OF_THE_MACHINE, "import_"} - {"import"}
    assert methods == tried


async def _id_of(desk: Desk, kind: str, team: str) -> str:
    if kind == "team":
        return (await desk.do.team(ROOT, team)).id
    key: Key = (await desk.do.keys(ROOT, KeyFilters(team=team, name="bob"))).items[0]
    return key.id


@pytest.mark.parametrize("role", ["member", "team_admin"])
async def test_what_is_another_teams_is_as_if_it_were_not_there(desk: Desk, role: Any) -> None:
    actor = await desk.as_key("alice", role=role)
    before = await desk.trace()
    for kind, calls in (("key", ON_KEYS), ("team", ON_TEAMS)):
        foreign = await _id_of(desk, kind, "sales")
        for name, call in calls.items():
            refusals = []
            for it in (foreign, UNKNOWN[kind]):
                with pytest.raises(NotFound if role == "team_admin" or kind == "key" else Forbidden) as refusal:
                    await call(desk.do, actor, it)
                refusals.append(refusal.value.body())
            assert refusals[0] == refusals[1], name
    with pytest.raises((NotFound, Forbidden)):
        await desk.do.team(actor, "sales")
    assert await desk.trace() == before


@pytest.mark.parametrize("role", ["member", "team_admin"])
@pytest.mark.parametrize("name", FOR_ADMINS)
async def test_what_is_for_admins_is_refused_for_ones_own_team_too(desk: Desk, role: Any, name: str) -> None:
    actor = await desk.as_key("alice", role=role)
    before = await desk.trace()
    with pytest.raises(Forbidden):
        await FOR_ADMINS[name](desk.do, actor, "research")
    assert await desk.trace() == before


async def test_a_member_sees_and_rotates_their_own_key_and_does_nothing_else(desk: Desk) -> None:
    actor = await desk.as_key("alice")
    assert (await desk.do.key(actor, actor.name)).name == "alice"
    assert [it.name for it in await desk.do.key_in_team(actor, actor.name)] == ["alice", "research"]
    actor = actor_of(await desk.do.rotate_key(actor, actor.name))
    before = await desk.trace()
    for name in ON_KEYS.keys() - {*LOOKS, "rotate_key"}:
        with pytest.raises(Forbidden):
            await ON_KEYS[name](desk.do, actor, actor.name)
    for call in (ON_TEAMS | LISTS).values():
        with pytest.raises(Forbidden):
            await call(desk.do, actor, "research")
    assert await desk.trace() == before


async def test_a_team_admin_lists_their_own_team_alone_whatever_is_asked_for(desk: Desk) -> None:
    actor = await desk.as_key("alice", role="team_admin")
    sales = await _id_of(desk, "team", "sales")
    own = (await desk.do.team(ROOT, "research")).id
    assert [team.id for team in (await desk.do.teams(actor)).items] == [own]
    assert {key.team_id for key in (await desk.do.keys(actor)).items} == {own}
    assert {entry.team_id for entry in (await desk.do.audit(actor)).items} == {own}
    for team in ("sales", sales):
        assert (await desk.do.keys(actor, KeyFilters(team=team))).items == ()
        assert (await desk.do.audit(actor, AuditFilters(team=team))).items == ()
        assert (await desk.do.audit(actor, AuditFilters(object_id=team))).items == ()
    assert (await desk.do.teams(actor, TeamFilters(name="sales"))).items == ()
    assert "sales" not in str(await desk.do.export(actor))


async def test_a_team_admin_runs_their_team(desk: Desk) -> None:
    actor = await desk.as_key("alice", role="team_admin")
    bob = (await desk.do.create_key(actor, KeyDraft("research", "bob 2", role="team_admin"))).key
    await desk.do.update_key(actor, bob.id, {"limits": {"parallel": 2}})
    await desk.do.rotate_key(actor, bob.id)
    await desk.do.disable_key(actor, bob.id)
    await desk.do.enable_key(actor, bob.id)
    await desk.do.revoke_key(actor, bob.id)
    assert (await desk.do.update_team(actor, "research", {"tags": {"a": "b"}})).tags == {"a": "b"}


@pytest.mark.parametrize("name", ["admins", "payroll"])
async def test_a_team_admin_takes_no_name_that_the_settings_may_put_keys_under(desk: Desk, name: str) -> None:
    actor = await desk.as_key("alice", role="team_admin")
    before = await desk.trace()
    with pytest.raises(Forbidden):
        await desk.do.update_team(actor, "research", {"name": name})
    assert await desk.trace() == before


async def test_a_team_admin_touches_no_admins_key_in_their_team_though_they_see_it(desk: Desk) -> None:
    actor = await desk.as_key("alice", role="team_admin")
    admin = (await desk.key("root", role="admin")).key
    assert await desk.do.key(actor, admin.id) == admin
    before = await desk.trace()
    for name in ON_KEYS.keys() - LOOKS:
        with pytest.raises(Forbidden):
            await ON_KEYS[name](desk.do, actor, admin.id)
    assert await desk.trace() == before


async def test_a_team_admin_gets_no_secret_of_a_key_that_is_worth_more_than_theirs(desk: Desk) -> None:
    actor = await desk.as_key("alice", role="team_admin", limits=Limits(parallel=1))
    wide = (await desk.key("wide")).key
    with pytest.raises(Forbidden):
        await desk.do.rotate_key(actor, wide.id)
    await desk.do.disable_key(actor, wide.id)
    with pytest.raises(Forbidden):
        await desk.do.enable_key(actor, wide.id)
    assert (await desk.do.update_key(actor, wide.id, {"limits": {"parallel": 5}, "name": "w"})).limits.parallel == 5


@pytest.mark.parametrize("role", ["team_admin", "admin"])
async def test_nobody_widens_themselves(desk: Desk, role: Any) -> None:
    terms: dict[str, Any] = {
        "grants": Grants(models=("a",)),
        "limits": Limits(parallel=1),
        "budgets": Budgets(day_microusd=5),
        "expires_at": NOW + 5,
    }
    await desk.key("root", "sales", role="admin")
    actor = await desk.as_key("alice", role=role, **terms)
    before = await desk.trace()
    wider: list[dict[str, object]] = [
        {"grants": None},
        {"grants": {"models": None}},
        {"grants": {"models": ["a", "b"]}},
        {"limits": {"parallel": None}},
        {"limits": {"parallel": 2}},
        {"budgets": None},
        {"expires_at": None},
        {"expires_at": NOW + 6},
    ]
    wider += [{"role": higher} for higher in ROLES[ROLES.index(role) + 1 :]]
    for changes in wider:
        with pytest.raises(Forbidden):
            await desk.do.update_key(actor, actor.name, changes)
    assert await desk.trace() == before
    await desk.do.update_key(actor, actor.name, {"budgets": {"day_microusd": 4}, "expires_at": NOW + 4})


async def test_an_admin_widens_not_the_team_that_binds_them(desk: Desk) -> None:
    await desk.do.update_team(ROOT, "research", {"grants": {"models": ["a"]}})
    actor = await desk.as_key("alice", role="admin")
    with pytest.raises(Forbidden):
        await desk.do.update_team(actor, "research", {"grants": None})
    with pytest.raises(Forbidden):
        await desk.do.create_key(actor, KeyDraft("sales", "x"))
    await desk.do.create_key(actor, KeyDraft("sales", "x", grants=Grants(models=("a",))))


async def test_a_key_of_the_settings_and_its_team_are_changed_by_nobody(desk: Desk) -> None:
    actor = await desk.as_key("alice", role="admin")
    async with desk.store.writing() as connection:
        for table in ("teams", "keys"):
            await connection.exec_driver_sql(f"UPDATE {table} SET source = 'settings'")
    before = await desk.trace()
    bob, sales = await _id_of(desk, "key", "sales"), await _id_of(desk, "team", "sales")
    for name in ON_KEYS.keys() - LOOKS:
        with pytest.raises(Conflict, match="settings"):
            await ON_KEYS[name](desk.do, actor, bob)
    for name in ("update_team", "disable_team"):
        with pytest.raises(Conflict, match="settings"):
            await ON_TEAMS[name](desk.do, actor, sales)
    with pytest.raises(Conflict):
        await desk.do.rotate_me(actor)
    assert await desk.trace() == before


ENDS: dict[str, Callable[[Desk, Key], Awaitable[object]]] = {
    "disable": lambda desk, key: desk.do.disable_key(ROOT, key.id),
    "revoke": lambda desk, key: desk.do.revoke_key(ROOT, key.id),
    "demote": lambda desk, key: desk.do.update_key(ROOT, key.id, {"role": "team_admin"}),
    "expire": lambda desk, key: desk.do.update_key(ROOT, key.id, {"expires_at": NOW + 9}),
    "disable team": lambda desk, key: desk.do.disable_team(ROOT, key.team_id),
}


@pytest.mark.parametrize("end", ENDS)
async def test_the_last_admin_key_stays(desk: Desk, end: str) -> None:
    last = (await desk.key("last", role="admin")).key
    others = [
        await desk.key("ends", "sales", role="admin", expires_at=NOW + 99),
        await desk.key("disabled", "sales", role="admin"),
        await desk.key("member", "sales"),
    ]
    await desk.do.disable_key(ROOT, others[1].key.id)
    before = await desk.trace()
    with pytest.raises(Conflict):
        await ENDS[end](desk, last)
    assert await desk.trace() == before
    await desk.do.enable_key(ROOT, others[1].key.id)
    await ENDS[end](desk, last)


async def test_of_two_last_admin_keys_that_are_revoked_at_once_one_stays(desk: Desk, store_url: URL) -> None:
    pair = [(await desk.key(name, role="admin")).key for name in ("a", "b")]
    async with opened(store_url) as other:
        ends = [each.do.revoke_key(ROOT, key.id) for each, key in zip((desk, other), pair, strict=True)]
        done = await asyncio.gather(*ends, return_exceptions=True)
    assert sorted(type(each).__name__ for each in done) == ["Conflict", "Key"]


small = st.none() | st.integers(1, 3)
some_grants = st.builds(
    Grants,
    models=st.none() | st.lists(st.sampled_from(["a", "b", "*"]), max_size=2).map(tuple),
    routes=st.none() | st.lists(st.sampled_from(["chat", "files"]), max_size=2).map(tuple),
)
some_terms = st.fixed_dictionaries(
    {},
    optional={
        "role": st.sampled_from(ROLES),
        "grants": some_grants,
        "limits": st.builds(Limits, parallel=small, tokens_per_day=small),
        "budgets": st.builds(Budgets, total_microusd=small),
        "expires_at": st.none() | st.integers(NOW + 1, NOW + 3),
    },
)
bound_terms = st.fixed_dictionaries(
    {
        "grants": some_grants,
        "limits": st.builds(Limits, parallel=st.integers(1, 3)),
        "expires_at": st.integers(NOW + 1, NOW + 3),
    }
)
setting = st.sampled_from(["create", "update", "import"])
what = setting | st.sampled_from(["rotate", "disable", "enable", "revoke", "update team"])
steps = st.lists(st.tuples(what, st.integers(0, 5), some_terms), min_size=1, max_size=8)


async def _step(desk: Desk, actor: Actor, kind: str, it: str, terms: dict[str, Any]) -> object:
    plain = msgspec.to_builtins(terms)
    match kind:
        case "create":
            return await desk.do.create_key(actor, KeyDraft("research", f"new {len(await _keys(desk))}", **terms))
        case "update":
            return await desk.do.update_key(actor, it, plain)
        case "update team":
            return await desk.do.update_team(actor, "research", plain)
        case "import":
            held = [{"name": (await desk.do.key(ROOT, it)).name, **plain}]
            return await desk.do.import_(actor, {"teams": [{"name": "research", "keys": held}]})
        case _:
            return await getattr(desk.do, f"{kind}_key")(actor, it)


async def _keys(desk: Desk) -> dict[str, Key]:
    return {key.id: key for key in (await desk.do.keys(ROOT, limit=200)).items}


def _is_at_most(key: Key, other: Key) -> bool:
    pairs = [(getattr(key.limits, name), getattr(other.limits, name)) for name in Limits.__struct_fields__]
    pairs += [(getattr(key.budgets, name), getattr(other.budgets, name)) for name in Budgets.__struct_fields__]
    pairs.append((key.expires_at, other.expires_at))
    return (
        ROLES.index(key.role) <= ROLES.index(other.role)
        and is_within(key.grants, other.grants)
        and all(most is None or (mine is not None and mine <= most) for mine, most in pairs)
    )


async def _run_steps(folder: Path, own: dict[str, Any], others: list[Any], todo: list[Any]) -> None:
    async with opened(fresh_sqlite_url(folder)) as desk:
        team = await desk.team()
        await desk.team("sales")
        foreign = (await desk.key("foreign", "sales")).key
        actor = await desk.as_key("alice", **{**own, "role": "team_admin"})
        for number, terms in enumerate(others):
            await desk.key(f"other {number}", **terms)
        for kind, number, terms in todo:
            before = await _keys(desk)
            me = before[actor.name]
            try:
                done = await _step(desk, actor, kind, sorted(before)[number % len(before)], terms)
            except GatewayError:
                assert await _keys(desk) == before
                continue
            if isinstance(done, Issued) and done.key.id == actor.key_id:
                actor = actor_of(done)
            after = await _keys(desk)
            _check_step(before, after, me, done)
            assert after[foreign.id] == foreign
            assert (await desk.do.team(ROOT, team.id)).grants == EVERYTHING


def _check_step(before: dict[str, Key], after: dict[str, Key], me: Key, done: object) -> None:
    for key_id, key in after.items():
        was = before.get(key_id)
        gained = was is None or was.state != key.state or (isinstance(done, Issued) and done.key.id == key_id)
        if gained and key.state == "active":
            assert _is_at_most(key, me)
        elif was != key and was is not None:
            assert _is_no_more_than_either(key, was, me)


def _is_no_more_than_either(key: Key, was: Key, me: Key) -> bool:
    """Amount by amount and grant by grant: each was left, narrowed, or set within the giver's own."""
    return all(
        _is_at_most(part, was_part) or _is_at_most(part, my_part) for part, was_part, my_part in _parts(key, was, me)
    )


def _parts(*keys: Key) -> Iterator[tuple[Key, ...]]:
    """The keys reduced to one term after the other, all else being equal."""
    plain = msgspec.structs.replace(keys[0], **_NOTHING)
    for term in ("role", "expires_at"):
        yield tuple(msgspec.structs.replace(plain, **{term: getattr(key, term)}) for key in keys)
    for term, kind in (("grants", Grants), ("limits", Limits), ("budgets", Budgets)):
        for member in kind.__struct_fields__:
            alone = [{term: kind(**{member: getattr(getattr(key, term), member)})} for key in keys]
            yield tuple(msgspec.structs.replace(plain, **each) for each in alone)


_NOTHING: dict[str, Any] = {
    "role": "member",
    "expires_at": None,
    "grants": Grants(),
    "limits": Limits(),
    "budgets": Budgets(),
}


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(own=some_terms | bound_terms, others=st.lists(some_terms, max_size=3), todo=steps)
def test_whatever_a_team_admin_does_no_key_ends_up_with_more_than_theirs(
    tmp_path_factory: pytest.TempPathFactory, own: dict[str, Any], others: list[Any], todo: list[Any]
) -> None:
    asyncio.run(_run_steps(tmp_path_factory.mktemp("reach"), own, others, todo))
