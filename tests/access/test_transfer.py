"""Teams and keys as a document: out of one gateway, into another, or edited and back."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from sqlalchemy import URL

from gateway.access.change import Change
from gateway.access.drafts import KeyFilters
from gateway.access.transfer import MOST_ENTRIES, MOST_GRANTS
from gateway.errors import BadRequest, Conflict, Forbidden, GatewayError, NotFound
from gateway.http.admin.document import read_document, write_document
from gateway.store.tables import audit, changes
from gateway.terms import Budgets, Grants, Limits
from tests.access.desk import NOW, ROOT, Desk, opened, secret_of
from tests.access.queries import queries
from tests.support.stores import fresh_sqlite_url


@pytest.fixture
async def desk(store_url: URL) -> AsyncIterator[Desk]:
    async with opened(store_url) as desk:
        await desk.team(grants=Grants(models=("a/*",)), model_limits={"a/x": Limits(parallel=1)}, tags={"a": "b"})
        await desk.team("empty")
        await desk.key(
            limits=Limits(parallel=3, max_wait_s=0), budgets=Budgets(day_microusd=5), expires_at=NOW + 500, owner="Al"
        )
        bob = await desk.key("bob", role="team_admin")
        await desk.do.disable_key(ROOT, bob.key.id)
        yield desk


def _team(*keys: dict[str, Any], **members: Any) -> dict[str, Any]:
    return {"version": 1, "teams": [{"name": "research", "keys": list(keys), **members}]}


async def test_what_is_exported_holds_no_secret_and_no_id(desk: Desk) -> None:
    text = yaml.safe_dump(await desk.do.export(ROOT))
    assert "sk-gw-" not in text
    assert "key_" not in text
    assert "team_" not in text.replace("team_admin", "")
    for key in (await desk.do.keys(ROOT)).items:
        assert key.hint not in text


async def test_what_is_exported_and_imported_elsewhere_is_the_same_there(desk: Desk, tmp_path: Path) -> None:
    text = yaml.safe_dump(await desk.do.export(ROOT))
    async with opened(fresh_sqlite_url(tmp_path / "other")) as other:
        imported = await other.do.import_(ROOT, yaml.safe_load(text))
        assert [team.name for team in imported.made_teams] == ["empty", "research"]
        assert [issued.key.name for issued in imported.made_keys] == ["alice", "bob"]
        assert [await other.works(secret_of(issued)) for issued in imported.made_keys] == [True, False]
        assert await other.do.export(ROOT) == await desk.do.export(ROOT)


async def test_importing_what_is_there_changes_nothing(desk: Desk) -> None:
    document = await desk.do.export(ROOT)
    before = await desk.trace()
    imported = await desk.do.import_(ROOT, document)
    assert (imported.unchanged, imported.made_keys, imported.changed_keys) == (4, (), ())
    assert await desk.trace() == before


async def test_what_is_edited_changes_and_what_is_not_named_stays(desk: Desk) -> None:
    document = _team(
        {"name": "alice", "limits": {"tokens_per_day": 9}, "expires_at": "2027-02-01T00:00:00+01:00"},
        {"name": "bob", "state": "active"},
        {"name": "carol", "grants": None},
        tags=None,
        state="disabled",
    )
    imported = await desk.do.import_(ROOT, document)
    team = await desk.do.team(ROOT, "research")
    assert (team.state, team.tags, team.grants) == ("disabled", {}, Grants(models=("a/*",)))
    assert [key.name for key in imported.changed_keys] == ["alice", "bob"]
    assert [issued.key.name for issued in imported.made_keys] == ["carol"]
    alice = (await desk.do.keys(ROOT, KeyFilters(name="alice"))).items[0]
    assert (alice.limits, alice.budgets, alice.owner) == (Limits(tokens_per_day=9), Budgets(day_microusd=5), "Al")
    assert alice.expires_at == 1_801_436_400
    assert desk.revisions[-1] == (await desk.trace())[0]


async def test_a_dry_run_tells_what_would_be_done_and_does_nothing(desk: Desk) -> None:
    before = await desk.trace()
    document = _team({"name": "carol"}, {"name": "bob", "state": "active"}, tags={"x": "y"})
    imported = await desk.do.import_(ROOT, document, dry_run=True)
    assert [(issued.key.name, issued.secret) for issued in imported.made_keys] == [("carol", None)]
    assert ([team.name for team in imported.changed_teams], len(imported.changed_keys)) == (["research"], 1)
    assert await desk.trace() == before


async def test_a_dry_run_waits_for_nobody_who_changes_something(desk: Desk) -> None:
    async with asyncio.timeout(2), desk.store.writing() as connection:
        await Change.begin(connection, ROOT, NOW)
        imported = await desk.do.import_(ROOT, _team({"name": "carol"}), dry_run=True)
    assert [issued.key.name for issued in imported.made_keys] == ["carol"]


async def test_however_much_is_imported_it_takes_few_statements(desk: Desk) -> None:
    many = [{"name": f"key {number}", "state": "disabled"} for number in range(MOST_ENTRIES - 1)]
    with queries(desk.store) as seen:
        made = await desk.do.import_(ROOT, _team(*many))
    assert (len(made.made_keys), len(seen) < 50) == (MOST_ENTRIES - 1, True)
    changed = [{**key, "state": "active", "owner": "Al"} for key in many]
    with queries(desk.store) as seen:
        assert len((await desk.do.import_(ROOT, _team(*changed))).changed_keys) == MOST_ENTRIES - 1
    assert len(seen) < 50
    assert await desk.works(secret_of(made.made_keys[-1]))


async def test_more_than_can_be_imported_at_once_is_refused_before_anybody_waits(desk: Desk) -> None:
    before = await desk.trace()
    many = _team(*({"name": f"key {number}"} for number in range(MOST_ENTRIES)))
    async with asyncio.timeout(2), desk.store.writing() as connection:
        await Change.begin(connection, ROOT, NOW)
        for document in (many, {"teams": [{"name": str(number)} for number in range(MOST_ENTRIES + 1)]}):
            with pytest.raises(BadRequest, match="in parts"):
                await desk.do.import_(ROOT, document)
    assert await desk.trace() == before


async def test_more_grants_than_can_be_judged_at_once_are_refused_before_anybody_waits(desk: Desk) -> None:
    before = await desk.trace()
    models = [str(number) for number in range(200)]
    many = [{"name": str(number), "grants": {"models": models}} for number in range(MOST_GRANTS // 200)]
    async with asyncio.timeout(2), desk.store.writing() as connection:
        await Change.begin(connection, ROOT, NOW)
        for document in (
            _team(*many, {"name": "one more", "grants": {"routes": ["chat"]}}),
            _team(*many, grants={"networks": ["10.0.0.0/8"]}),
        ):
            with pytest.raises(BadRequest, match="in parts"):
                await desk.do.import_(ROOT, document)
    assert await desk.trace() == before
    await desk.do.update_team(ROOT, "research", {"grants": None})
    assert len((await desk.do.import_(ROOT, _team(*many))).made_keys) == len(many)


async def test_an_import_that_is_refused_waits_for_nobody_who_changes_something(desk: Desk) -> None:
    actor = await desk.as_key("boss", role="team_admin", limits=Limits(parallel=3))
    async with asyncio.timeout(2), desk.store.writing() as connection:
        await Change.begin(connection, ROOT, NOW)
        with pytest.raises(Forbidden):
            await desk.do.import_(actor, _team({"name": "carol"}))


async def test_each_thing_that_is_imported_is_audited_and_told_to_other_nodes(desk: Desk) -> None:
    number = (await desk.trace())[0]
    document = _team({"name": "carol", "state": "disabled"}, {"name": "alice", "owner": "Ada", "state": "disabled"})
    document["teams"].append({"name": "new", "state": "disabled", "keys": [{"name": "dan"}]})
    await desk.do.import_(ROOT, document)
    entries = [entry for entry in await desk.rows(audit) if entry["id"] > number]
    assert [entry["action"] for entry in entries] == [
        "key.create",
        "key.update",
        "key.disable",
        "team.create",
        "key.create",
    ]
    assert [(entry["before"] or {}).get("version") for entry in entries] == [None, 1, 2, None, None]
    assert [entry["after"]["state"] for entry in entries] == ["disabled", "active", "disabled", "disabled", "active"]
    told = [change for change in await desk.rows(changes) if change["revision"] > number]
    assert {(it["team_id"], it["key_id"]) for it in told} == {
        (entry["team_id"], None if entry["object_id"] == entry["team_id"] else entry["object_id"]) for entry in entries
    }
    assert [change["revision"] for change in told] == list(range(number + 1, number + 1 + len(told)))
    assert desk.revisions[-1] == (await desk.trace())[0] == told[-1]["revision"]
    carol, alice = [(await desk.do.keys(ROOT, KeyFilters(name=name))).items[0] for name in ("carol", "alice")]
    assert (carol.state, carol.version) == ("disabled", 1)
    assert (alice.state, alice.version, alice.owner) == ("disabled", 3, "Ada")


@pytest.mark.parametrize("dry_run", [True, False])
async def test_an_import_leaves_an_admin_key_that_works(desk: Desk, *, dry_run: bool) -> None:
    await desk.key("root", role="admin")
    before = await desk.trace()
    gone: list[dict[str, Any]] = [
        _team({"name": "root", "state": "disabled"}),
        _team({"name": "root", "role": "member"}),
        _team(state="disabled"),
        _team({"name": "heir", "role": "admin", "state": "disabled"}, {"name": "root", "state": "disabled"}),
    ]
    for document in gone:
        with pytest.raises(Conflict):
            await desk.do.import_(ROOT, document, dry_run=dry_run)
    assert await desk.trace() == before
    heir: list[dict[str, Any]] = [{"name": "heirs", "keys": [{"name": "heir", "role": "admin"}]}]
    handed_on = {"teams": [*heir, *_team({"name": "root", "role": "member"}, state="disabled")["teams"]]}
    imported = await desk.do.import_(ROOT, handed_on, dry_run=dry_run)
    assert [issued.key.name for issued in imported.made_keys] == ["heir"]


async def test_an_admin_key_may_be_handed_on_in_any_order(desk: Desk) -> None:
    await desk.key("root", role="admin")
    off, heir = {"name": "root", "state": "disabled"}, {"name": "heir", "role": "admin"}
    with pytest.raises(Conflict, match="research/root"):
        await desk.do.import_(ROOT, _team(off, heir | {"expires_at": NOW + 5}))
    imported = await desk.do.import_(ROOT, _team(off, heir))
    assert [issued.key.name for issued in imported.made_keys] == ["heir"]
    handed_back = {"teams": [{"name": "old", "state": "disabled"}, {"name": "research", "state": "disabled"}]}
    handed_back["teams"].append({"name": "new", "keys": [{"name": "root", "role": "admin"}]})  # type: ignore[dict-item]
    assert len((await desk.do.import_(ROOT, handed_back)).made_keys) == 1
    assert (await desk.do.team(ROOT, "research")).state == "disabled"


@pytest.mark.parametrize("names", [("root", "zoe"), ("zoe", "root")])
async def test_an_admin_key_that_is_disabled_moves_whatever_its_name(
    desk: Desk, tmp_path: Path, names: tuple[str, str]
) -> None:
    await desk.team("admins")
    made = {name: await desk.key(name, "admins", role="admin") for name in names}
    await desk.do.disable_key(ROOT, made[names[0]].key.id)
    async with opened(fresh_sqlite_url(tmp_path / "other")) as other:
        imported = await other.do.import_(ROOT, await desk.do.export(ROOT))
        assert {issued.key.version for issued in imported.made_keys} == {1}
        assert await other.do.export(ROOT) == await desk.do.export(ROOT)


@pytest.mark.parametrize(
    ("document", "place"),
    [
        (None, "document"),
        ({"teams": {}}, "teams"),
        ({"version": 2, "teams": []}, "version"),
        ({"nope": 1}, "nope"),
        ({"teams": [5]}, r"teams\[0\]"),
        ({"teams": [{"name": 5}]}, r"teams\[0\]"),
        ({"teams": [{"name": "x"}, {"name": " x"}]}, r"teams\[1\]"),
        (_team({"name": "carol", "secret": "x"}), "secret"),
        (_team({"name": "carol", "team": "sales"}), "team"),
        (_team({"name": "carol", "id": "x"}), "id"),
        (_team({"name": "carol", "role": "root"}), r"keys\[0\]"),
        (_team({"name": "carol", "state": "revoked"}), "state"),
        (_team({"name": "carol", "limits": {"paralel": 1}}), "paralel"),
        (_team({"name": "carol", "limits": {"parallel": "1"}}), "parallel"),
        (_team({"name": "carol", "expires_at": "2027-02-01"}), "offset"),
        (_team({"name": "carol", "expires_at": True}), "offset"),
        (_team({"name": "carol", "expires_at": 5}), "future"),
        (_team({"name": "carol"}, {"name": "carol"}), "twice"),
        (_team({"name": "carol"}, {"name": "dan", "grants": {"routes": ["x"]}}), r"keys\[1\]"),
    ],
)
async def test_a_document_that_is_wrong_anywhere_is_refused_whole_and_the_place_named(
    desk: Desk, document: object, place: str
) -> None:
    before = await desk.trace()
    with pytest.raises(BadRequest, match=place):
        await desk.do.import_(ROOT, document)
    assert await desk.trace() == before


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "a\nb", "n" * 5_000])
@pytest.mark.parametrize("dry_run", [True, False])
async def test_a_name_that_a_database_does_not_take_is_refused_before_it_is_asked(
    desk: Desk, name: str, *, dry_run: bool
) -> None:
    boss = await desk.as_key("boss", role="team_admin", grants=Grants(models=("a/*",)))
    before = await desk.trace()
    for actor in (ROOT, boss):
        with pytest.raises(BadRequest, match="name must be 1 to 100 printable characters"):
            await desk.do.import_(actor, _team({"name": name, "grants": {"models": ["a/x"]}}), dry_run=dry_run)
    assert await desk.trace() == before
    assert not desk.store.is_away


async def test_a_team_admin_exports_and_imports_their_own_team_within_their_own_means(desk: Desk) -> None:
    await desk.do.update_team(ROOT, "research", {"grants": None})
    actor = await desk.as_key("boss", role="team_admin", limits=Limits(parallel=3))
    document = await desk.do.export(actor)
    assert "empty" not in str(document)
    assert (await desk.do.import_(actor, document)).unchanged == 4
    await desk.do.import_(actor, _team({"name": "carol", "limits": {"parallel": 3}}, tags={"c": "d"}))
    before = await desk.trace()
    refused: list[dict[str, Any]] = [
        _team({"name": "dan"}),
        _team({"name": "dan", "role": "admin", "limits": {"parallel": 1}}),
        _team({"name": "bob", "state": "active"}),
        _team({"name": "boss", "limits": {}}),
        _team(state="disabled"),
        _team(limits={"parallel": 5}),
    ]
    for document in refused:
        with pytest.raises(Forbidden):
            await desk.do.import_(actor, document)
    assert await desk.trace() == before


async def test_a_team_admin_learns_of_no_other_team_by_importing(desk: Desk) -> None:
    actor = await desk.as_key("boss", role="team_admin")
    told = []
    for name in ("empty", "there is none"):
        with pytest.raises(GatewayError) as refusal:
            await desk.do.import_(actor, {"teams": [{"name": name, "keys": [{"name": "x"}]}]})
        told.append(refusal.value.body())
    assert told[0] == told[1]


async def test_what_the_settings_declare_is_neither_exported_nor_changed(desk: Desk) -> None:
    async with desk.store.writing() as connection:
        await connection.exec_driver_sql("UPDATE keys SET source = 'settings' WHERE name = 'alice'")
    assert "alice" not in str(await desk.do.export(ROOT))
    with pytest.raises(Conflict):
        await desk.do.import_(ROOT, _team({"name": "alice", "owner": "x"}))


async def test_of_one_team_that_one_alone_is_exported_if_whoever_asks_sees_it(desk: Desk) -> None:
    whole = await desk.do.export(ROOT)
    by_name = [await desk.do.export(ROOT, name) for name in ("empty", "research")]
    assert [team for document in by_name for team in document["teams"]] == whole["teams"]  # type: ignore[attr-defined]
    assert await desk.do.export(ROOT, (await desk.do.team(ROOT, "research")).id) == by_name[1]
    actor = await desk.as_key("boss", role="team_admin")
    assert (await desk.do.export(actor, "research"))["teams"] != []
    for name in ("empty", "there is none"):
        with pytest.raises(NotFound):
            await desk.do.export(actor, name)


async def test_every_name_that_can_be_given_can_be_exported_and_imported_elsewhere(desk: Desk, tmp_path: Path) -> None:
    names = [" a b ", "#x", "null", "007", "- x", "a: b", "\U0001f680", "key_1", "{", "é", "x" * 100, "@", "=", "~"]
    for name in names:
        await desk.team(f"{name}/{name}"[:100])
        await desk.key(name, owner=name, tags={"a b": name})
    async with opened(fresh_sqlite_url(tmp_path / "other")) as other:
        document = await desk.do.export(ROOT)
        made = await other.do.import_(ROOT, read_document(write_document(document)))
        assert len(made.made_teams) == 2 + len(names)
        assert await other.do.export(ROOT) == document


async def test_what_nobody_is_given_any_more_is_refused_elsewhere_and_stays_where_it_is(
    desk: Desk, tmp_path: Path
) -> None:
    await desk.key("old")
    async with desk.store.writing() as connection:
        await connection.exec_driver_sql("UPDATE keys SET name = 'a/b' WHERE name = 'old'")
    document = await desk.do.export(ROOT)
    assert (await desk.do.import_(ROOT, document)).made_keys == ()
    async with opened(fresh_sqlite_url(tmp_path / "other")) as other:
        with pytest.raises(BadRequest, match=r"teams\[1\].keys\[0\]: name must hold no slash"):
            await other.do.import_(ROOT, document)


async def test_what_has_ended_is_not_exported(desk: Desk) -> None:
    desk.now += 500
    assert "alice" not in str(await desk.do.export(ROOT))
