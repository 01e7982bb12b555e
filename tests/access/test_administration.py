"""Teams and keys from their making to their end, on both kinds of database."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import URL, update

from gateway.access.drafts import AuditFilters, KeyDraft, TeamDraft
from gateway.access.keys import is_well_formed
from gateway.access.records import Actor
from gateway.errors import BadRequest, Conflict, GatewayError, InvalidKey, NotFound, PreconditionFailed
from gateway.store.tables import changes, keys, secrets
from gateway.terms import Grants, Limits
from tests.access.desk import NOW, ROOT, Desk, actor_of, opened, secret_of

DAY_S = 86_400


@pytest.fixture
async def desk(store_url: URL) -> AsyncIterator[Desk]:
    async with opened(store_url) as desk:
        yield desk


async def test_a_team_is_as_it_was_asked_for_and_found_by_id_and_by_name(desk: Desk) -> None:
    draft = TeamDraft(
        " research ",
        Grants(models=("openai/*",)),
        Limits(parallel=3),
        {"a/*": Limits(tokens_per_day=9)},
        tags={"a": "b"},
    )
    team = (await desk.do.create_team(ROOT, draft)).team
    assert (team.name, team.state, team.source, team.version, team.created_at) == ("research", "active", "api", 1, NOW)
    assert (team.grants, team.limits, team.model_limits) == (draft.grants, draft.limits, draft.model_limits)
    assert await desk.do.team(ROOT, team.id) == await desk.do.team(ROOT, "research") == team


async def test_a_key_is_as_it_was_asked_for_and_its_secret_works(desk: Desk) -> None:
    team = await desk.team()
    draft = KeyDraft("research", "alice", "Alice", "team_admin", Grants(routes=("chat",)), expires_at=NOW + 5)
    issued = await desk.do.create_key(ROOT, draft)
    key = issued.key
    assert (key.team_id, key.team, key.owner, key.role, key.expires_at) == (
        team.id,
        "research",
        "Alice",
        "team_admin",
        NOW + 5,
    )
    assert is_well_formed(secret_of(issued))
    assert key.hint == secret_of(issued)[-4:]
    assert await desk.works(secret_of(issued))
    assert await desk.do.key(ROOT, key.id) == key


async def test_a_name_is_taken_until_its_key_is_revoked(desk: Desk) -> None:
    await desk.team()
    await desk.team("sales")
    issued = await desk.key("alice")
    await desk.key("alice", "sales")
    with pytest.raises(Conflict):
        await desk.key(" alice ")
    with pytest.raises(Conflict):
        await desk.team("sales ")
    await desk.do.revoke_key(ROOT, issued.key.id)
    assert (await desk.key("alice")).key.id != issued.key.id


async def test_an_update_changes_what_it_names_and_nothing_else(desk: Desk) -> None:
    await desk.team()
    key = (await desk.key(limits=Limits(parallel=3, tokens_per_day=7), tags={"a": "b", "c": "d"}, owner="Al")).key
    changes: dict[str, Any] = {
        "limits": {"parallel": None, "requests_per_minute": 5},
        "tags": {"a": None, "e": "f"},
        "grants": {"models": ["x", "x"]},
        "name": "bob",
    }
    after = await desk.do.update_key(ROOT, key.id, changes)
    assert after.limits == Limits(requests_per_minute=5, tokens_per_day=7)
    assert after.tags == {"c": "d", "e": "f"}
    assert after.grants == Grants(models=("x",))
    assert (after.name, after.owner, after.version) == ("bob", "Al", 2)
    assert await desk.do.key(ROOT, key.id) == after
    cleared = await desk.do.update_key(ROOT, key.id, {"owner": None, "limits": None, "grants": {"models": None}})
    assert (cleared.owner, cleared.limits, cleared.grants) == (None, Limits(), Grants())


async def test_an_update_that_changes_nothing_leaves_no_trace(desk: Desk) -> None:
    team = await desk.team()
    key = (await desk.key()).key
    before = await desk.trace()
    assert await desk.do.update_key(ROOT, key.id, {"name": "alice", "tags": {}}) == key
    assert await desk.do.update_team(ROOT, team.id, {"name": "research"}) == team
    assert await desk.do.enable_key(ROOT, key.id) == key
    assert await desk.do.enable_team(ROOT, team.id) == team
    assert await desk.trace() == before


async def test_a_disabled_key_works_again_when_it_is_enabled(desk: Desk) -> None:
    await desk.team()
    issued = await desk.key()
    assert (await desk.do.disable_key(ROOT, issued.key.id)).state == "disabled"
    assert not await desk.works(secret_of(issued))
    await desk.do.enable_key(ROOT, issued.key.id)
    assert await desk.works(secret_of(issued))


async def test_no_key_of_a_disabled_team_works(desk: Desk) -> None:
    await desk.team()
    issued = await desk.key(role="team_admin")
    await desk.do.disable_team(ROOT, "research")
    assert not await desk.works(secret_of(issued))
    with pytest.raises(InvalidKey):
        await desk.do.teams(actor_of(issued))
    await desk.do.enable_team(ROOT, "research")
    assert await desk.works(secret_of(issued))


async def test_a_revoked_key_is_gone_for_good(desk: Desk) -> None:
    await desk.team()
    issued = await desk.key()
    revoked = await desk.do.revoke_key(ROOT, issued.key.id)
    assert (revoked.state, await desk.rows(secrets)) == ("revoked", [])
    assert await desk.do.revoke_key(ROOT, issued.key.id) == revoked
    for change in (
        desk.do.enable_key(ROOT, revoked.id),
        desk.do.disable_key(ROOT, revoked.id),
        desk.do.rotate_key(ROOT, revoked.id),
        desk.do.update_key(ROOT, revoked.id, {"name": "x"}),
    ):
        with pytest.raises(Conflict):
            await change


async def test_a_change_on_top_of_another_that_the_caller_has_not_seen_is_refused(desk: Desk) -> None:
    team = await desk.team()
    key = (await desk.key()).key
    await desk.do.update_key(ROOT, key.id, {"owner": "x"}, version=1)
    await desk.do.update_team(ROOT, team.id, {"tags": {"a": "b"}}, version=1)
    before = await desk.trace()
    for change in (
        desk.do.update_key(ROOT, key.id, {"owner": "y"}, version=1),
        desk.do.rotate_key(ROOT, key.id, version=1),
        desk.do.disable_key(ROOT, key.id, version=3),
        desk.do.enable_key(ROOT, key.id, version=1),
        desk.do.revoke_key(ROOT, key.id, version=10**30),
        desk.do.update_team(ROOT, team.id, {"name": "y"}, version=1),
        desk.do.disable_team(ROOT, team.id, version=1),
        desk.do.enable_team(ROOT, team.id, version=1),
    ):
        with pytest.raises(PreconditionFailed):
            await change
    assert await desk.trace() == before


async def test_every_change_is_audited_numbered_and_announced(desk: Desk) -> None:
    team = await desk.team()
    root = Actor("cli", "admin", address="192.0.2.1")
    key = (await desk.do.create_key(root, KeyDraft(team.id, "alice"))).key
    await desk.do.update_key(root, key.id, {"limits": {"parallel": 3}})
    await desk.do.rotate_key(root, key.id)
    await desk.do.disable_key(root, key.id)
    await desk.do.enable_key(root, key.id)
    await desk.do.revoke_key(root, key.id)
    await desk.do.update_team(root, team.id, {"name": "sales"})
    await desk.do.disable_team(root, team.id)
    await desk.do.enable_team(root, team.id)
    page = await desk.do.audit(ROOT)
    kinds = ["create", "update", "rotate", "disable", "enable", "revoke"]
    actions = ["team.create", *(f"key.{kind}" for kind in kinds), "team.update", "team.disable", "team.enable"]
    assert [entry.action for entry in reversed(page.items)] == actions
    assert {(entry.actor, entry.address) for entry in page.items[:-1]} == {("cli", "192.0.2.1")}
    update = page.items[-3]
    assert (update.object_id, update.team_id, update.at) == (key.id, team.id, NOW)
    assert (update.before["limits"], update.after["limits"]) == ({}, {"parallel": 3})
    noted = [(row["team_id"], row["key_id"]) for row in await desk.rows(changes)]
    assert noted == [(team.id, None), *[(team.id, key.id)] * 6, *[(team.id, None)] * 3]
    assert desk.revisions == [row["revision"] for row in await desk.rows(changes)]


@pytest.mark.parametrize(
    "draft",
    [
        {"name": ""},
        {"name": "x" * 101},
        {"name": "a\nb"},
        {"name": "a\x00b"},
        {"name": "\ud800"},
        {"name": "team_" + "a" * 20},
        {"owner": ""},
        {"owner": "\x00"},
        {"expires_at": NOW},
        {"expires_at": 10**18},
        {"limits": Limits(parallel=0)},
        {"limits": Limits(parallel=2**53)},
        {"limits": Limits(parallel=True)},
        {"limits": Limits(max_wait_s=601)},
        {"limits": Limits(max_wait_s=-1)},
        {"limits": Limits(max_wait_s=True)},
        {"grants": Grants(models=("gpt-?",))},
        {"grants": Grants(models=("",))},
        {"grants": Grants(models=("*a" * 9,))},
        {"grants": Grants(routes=("admin",))},
        {"grants": Grants(networks=("10.0.0.1/8",))},
        {"grants": Grants(networks=("all",))},
        {"tags": {"": "x"}},
        {"tags": {"x" * 65: "x"}},
        {"tags": {"x": "y" * 257}},
        {"tags": {'"': "x"}},
        {"tags": {"x": "\ud800"}},
        {"tags": {str(n): "" for n in range(33)}},
    ],
)
async def test_what_is_not_legal_is_refused_and_leaves_no_trace(desk: Desk, draft: dict[str, Any]) -> None:
    await desk.team()
    key = (await desk.key("bob")).key
    before = await desk.trace()
    with pytest.raises(BadRequest):
        await desk.do.create_key(ROOT, KeyDraft("research", **{"name": "alice", **draft}), idempotency_key="k")
    with pytest.raises(BadRequest):
        await desk.do.update_key(ROOT, key.id, draft)
    assert await desk.trace() == before


async def test_a_key_gets_no_name_with_a_slash_and_keeps_one_that_it_has(desk: Desk) -> None:
    await desk.team("a/b")
    key = (await desk.key(team="a/b")).key
    before = await desk.trace()
    named: list[dict[str, Any]] = [{"name": "x/y"}]
    for refused in (
        desk.do.create_key(ROOT, KeyDraft("a/b", "x/y")),
        desk.do.update_key(ROOT, key.id, {"name": "x/y"}),
        desk.do.import_(ROOT, {"teams": [{"name": "a/b", "keys": named}]}),
    ):
        with pytest.raises(BadRequest, match="slash"):
            await refused
    assert await desk.trace() == before
    async with desk.store.writing() as connection:
        await connection.execute(update(keys).values(name="x/y"))
    assert (await desk.do.update_key(ROOT, key.id, {"owner": "Al"})).name == "x/y"
    named[0]["owner"] = "Ada"
    assert len((await desk.do.import_(ROOT, {"teams": [{"name": "a/b", "keys": named}]})).changed_keys) == 1
    assert (await desk.do.update_key(ROOT, key.id, {"name": "x"})).name == "x"


async def test_how_long_calls_wait_is_said_of_keys_and_teams_and_not_of_single_models(desk: Desk) -> None:
    team = await desk.team(limits=Limits(max_wait_s=600))
    key = await desk.key(limits=Limits(max_wait_s=0))
    assert (team.limits.max_wait_s, key.key.limits.max_wait_s) == (600, 0)
    with pytest.raises(BadRequest, match=r"model_limits\.a\.max_wait_s: calls wait as their key or team may"):
        await desk.do.update_team(ROOT, team.id, {"model_limits": {"a": {"max_wait_s": 5}}})


@pytest.mark.parametrize(
    "member", ["id", "team_id", "team", "source", "version", "state", "created_at", "hint", "nope"]
)
async def test_a_member_that_nobody_sets_is_refused_by_name(desk: Desk, member: str) -> None:
    team = await desk.team()
    key = (await desk.key()).key
    for change in (
        desk.do.update_key(ROOT, key.id, {member: "x"}),
        desk.do.update_key(ROOT, key.id, {"limits": {member: 1}}),
        desk.do.update_team(ROOT, team.id, {member: "x"}),
        desk.do.update_team(ROOT, team.id, {"model_limits": {"m": {member: 1}}}),
    ):
        with pytest.raises(BadRequest, match=member):
            await change


@pytest.mark.parametrize("name", ["x\x00", "\ud800", "'; drop table keys --", "", "key_" + "0" * 20])
async def test_an_id_that_cannot_be_is_one_that_there_is_not(desk: Desk, name: str) -> None:
    for call in (desk.do.key(ROOT, name), desk.do.team(ROOT, name), desk.do.revoke_key(ROOT, name)):
        with pytest.raises(NotFound):
            await call


async def test_a_create_that_is_asked_for_again_makes_nothing_again(desk: Desk) -> None:
    draft = TeamDraft("research", tags={"a": "b", "c": "d"})
    made = await desk.do.create_team(ROOT, draft, idempotency_key="k1")
    again = TeamDraft("research", tags={"c": "d", "a": "b"})
    replay = await desk.do.create_team(ROOT, again, idempotency_key="k1")
    assert (replay.team, replay.is_replay, made.is_replay) == (made.team, True, False)
    key = await desk.do.create_key(ROOT, KeyDraft("research", "alice"), idempotency_key="k2")
    before = await desk.trace()
    repeat = await desk.do.create_key(ROOT, KeyDraft("research", "alice"), idempotency_key="k2")
    assert (repeat.key, repeat.secret) == (key.key, None)
    for request in (KeyDraft("research", "bob"), KeyDraft("research", "alice", role="team_admin")):
        with pytest.raises(Conflict):
            await desk.do.create_key(ROOT, request, idempotency_key="k2")
    assert await desk.trace() == before


async def test_an_idempotency_key_is_its_actors_own_and_ends_after_a_day(desk: Desk) -> None:
    await desk.team()
    admin = await desk.as_key("admin", role="admin")
    one = await desk.do.create_key(ROOT, KeyDraft("research", "a"), idempotency_key="k")
    other = await desk.do.create_key(admin, KeyDraft("research", "b"), idempotency_key="k")
    assert one.key.id != other.key.id
    desk.now += DAY_S - 1
    assert (await desk.do.create_key(ROOT, KeyDraft("research", "a"), idempotency_key="k")).key.id == one.key.id
    desk.now += 1
    assert (await desk.do.create_key(ROOT, KeyDraft("research", "c"), idempotency_key="k")).key.name == "c"


async def test_me_is_the_key_and_its_team_and_rotates_itself(desk: Desk) -> None:
    team = await desk.team()
    issued = await desk.key()
    me = actor_of(issued)
    assert await desk.do.me(me) == (issued.key, team)
    rotated = await desk.do.rotate_me(me, grace_s=60)
    assert (rotated.key.id, rotated.key.version) == (issued.key.id, 2)
    assert await desk.works(secret_of(rotated))
    assert (await desk.do.audit(ROOT, AuditFilters(actor=me.name))).items[0].action == "key.rotate"
    for asked in (desk.do.rotate_me(ROOT), desk.do.me(ROOT)):
        with pytest.raises(BadRequest):
            await asked


async def _outcomes(*calls: Any) -> list[str]:
    done = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(each, GatewayError) for each in done if isinstance(each, BaseException)), done
    return sorted(type(each).__name__ for each in done)


async def test_of_two_admins_at_once_one_overwrites_nothing(desk: Desk, store_url: URL) -> None:
    await desk.team()
    key = (await desk.key()).key
    async with opened(store_url) as other:
        assert await _outcomes(
            desk.do.update_key(ROOT, key.id, {"owner": "a"}, version=1),
            other.do.update_key(ROOT, key.id, {"tags": {"b": "c"}}, version=1),
        ) == ["Key", "PreconditionFailed"]
        await asyncio.gather(
            desk.do.update_key(ROOT, key.id, {"limits": {"parallel": 1}}),
            other.do.update_key(ROOT, key.id, {"limits": {"tokens_per_day": 2}}),
        )
    assert (await desk.do.key(ROOT, key.id)).limits == Limits(parallel=1, tokens_per_day=2)


async def test_of_many_creates_at_once_one_makes_the_object(desk: Desk, store_url: URL) -> None:
    await desk.team()
    async with opened(store_url) as other:
        replays = [
            each.do.create_key(ROOT, KeyDraft("research", "a"), idempotency_key="k") for each in [desk, other] * 3
        ]
        issued = await asyncio.gather(*replays)
        assert len({each.key.id for each in issued}) == 1
        assert sum(each.secret is not None for each in issued) == 1
        named = [each.do.create_key(ROOT, KeyDraft("research", "b")) for each in [desk, other] * 2]
        assert await _outcomes(*named) == ["Conflict", "Conflict", "Conflict", "Issued"]
    assert len(await desk.rows(keys)) == 2
    revisions = [row["revision"] for row in await desk.rows(changes)]
    assert revisions == list(range(revisions[0], revisions[0] + len(revisions)))
