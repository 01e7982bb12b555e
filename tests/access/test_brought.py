"""Keys that move with the secrets they have: out as digests, in as digests, and for admins alone."""

from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL, update

from gateway.access.directory import KeyDirectory
from gateway.access.drafts import AuditFilters, KeyFilters
from gateway.access.records import Key
from gateway.access.transfer import MOST_ENTRIES
from gateway.errors import BadRequest, Conflict, Forbidden, InvalidKey
from gateway.http.admin.document import read_document, write_document
from gateway.store.changes import changes_since, current_revision
from gateway.store.tables import audit, secrets
from gateway.terms import Budgets, Grants, Limits
from tests.access.desk import NOW, ROOT, Desk, opened, secret_of
from tests.access.queries import queries
from tests.support.stores import fresh_postgres_url, fresh_sqlite_url

OLD = "sk-of-another-make"
OTHER = "sk-and-one-more"


@pytest.fixture
async def desk(store_url: URL) -> AsyncIterator[Desk]:
    async with opened(store_url) as desk:
        await desk.team()
        yield desk


def _hex(secret: str) -> str:
    return sha256(secret.encode()).hexdigest()


def _team(*keys: dict[str, Any]) -> dict[str, Any]:
    return {"version": 1, "teams": [{"name": "research", "keys": list(keys)}]}


def _brought(name: str = "alice", secret: str = OLD, **members: Any) -> dict[str, Any]:
    return {"name": name, "secret_sha256": _hex(secret), **members}


async def _named(desk: Desk, name: str) -> Key:
    key: Key = (await desk.do.keys(ROOT, KeyFilters(name=name))).items[0]
    return key


async def test_a_key_keeps_the_secret_that_its_digest_is_of_and_no_other_is_made(desk: Desk) -> None:
    (issued,) = (await desk.do.import_(ROOT, _team(_brought(hint="make", owner="Al")))).made_keys
    assert (issued.secret, issued.key.hint, issued.key.owner) == (None, "make", "Al")
    assert await desk.works(OLD)
    assert [bytes(row["digest"]).hex() for row in await desk.rows(secrets)] == [_hex(OLD)]
    assert OLD not in await desk.everything()


async def test_importing_it_again_changes_nothing_and_with_another_secret_is_refused(desk: Desk) -> None:
    await desk.do.import_(ROOT, _team(_brought()))
    before = await desk.trace()
    assert (await desk.do.import_(ROOT, _team(_brought()))).unchanged == 2
    assert await desk.trace() == before
    with pytest.raises(Conflict, match=r"teams\[0\].keys\[0\]: There is a key of this name already, with another"):
        await desk.do.import_(ROOT, _team(_brought(secret=OTHER)))
    await desk.do.rotate_key(ROOT, (await _named(desk, "alice")).id, grace_s=60)
    with pytest.raises(Conflict, match="with another secret"):
        await desk.do.import_(ROOT, _team(_brought()))
    assert await desk.works(OLD)


async def test_a_key_that_is_there_keeps_its_hint(desk: Desk) -> None:
    await desk.do.import_(ROOT, _team(_brought(hint="make")))
    before = await desk.trace()
    for hint in ("", "MAKE"):
        with pytest.raises(Conflict, match=r"teams\[0\].keys\[0\]: This key is there already, and its hint is another"):
            await desk.do.import_(ROOT, _team(_brought(hint=hint)))
    assert (await desk.do.import_(ROOT, _team(_brought(hint="make")))).unchanged == 2
    assert await desk.trace() == before


async def test_a_secret_whose_mark_a_downgrade_took_works_again_once_it_is_imported_again(desk: Desk) -> None:
    await desk.do.import_(ROOT, _team(_brought()))
    async with desk.store.writing() as connection:
        await connection.execute(update(secrets).values(is_imported=False))
    directory = KeyDirectory(desk.store)
    await directory.preload()
    with pytest.raises(InvalidKey):
        await directory.look_up(f"Bearer {OLD}".encode())
    async with desk.store.reading() as connection:
        number = await current_revision(connection)
    assert (await desk.do.import_(ROOT, _team(_brought()), dry_run=True)).unchanged == 2
    assert (await desk.do.import_(ROOT, _team(_brought()))).unchanged == 2
    async with desk.store.reading() as connection:
        await directory.apply(await changes_since(connection, number))
    assert (await directory.look_up(f"Bearer {OLD}".encode())).key == "alice"
    await directory.close()


async def test_the_audit_log_tells_of_secrets_that_come_and_of_digests_that_go(desk: Desk) -> None:
    await desk.do.import_(ROOT, _team(_brought(), {"name": "bob"}))
    made = {
        entry["after"]["name"]: entry["after"] for entry in await desk.rows(audit) if entry["action"] == "key.create"
    }
    assert [made[name].get("imported") for name in ("alice", "bob")] == [True, None]
    count = len(await desk.rows(audit))
    await desk.do.export(ROOT)
    assert len(await desk.rows(audit)) == count
    team = await desk.do.team(ROOT, "research")
    await desk.do.export(ROOT, "research", with_digests=True)
    await desk.do.export(ROOT, with_digests=True)
    entries = (await desk.do.audit(ROOT, AuditFilters(action="key.export"))).items
    told = [(entry.actor, entry.object_id, entry.team_id, entry.after) for entry in entries]
    assert told == [
        ("cli", "all", None, {"with_digests": True}),
        ("cli", team.id, team.id, {"name": "research", "with_digests": True}),
    ]
    assert _hex(OLD) not in str(await desk.rows(audit))


async def test_a_digest_and_what_is_shown_of_its_secret_are_read_at_once(desk: Desk) -> None:
    await desk.key()
    with queries(desk.store) as seen:
        await desk.do.export(ROOT, with_digests=True)
    assert len([query for query in seen if ".digest" in query]) == 1
    assert all(".hint" in query for query in seen if ".digest" in query)


@pytest.mark.parametrize("dry_run", [True, False])
async def test_a_secret_that_another_key_has_is_refused_and_the_key_named(desk: Desk, *, dry_run: bool) -> None:
    secret = secret_of(await desk.key())
    before = await desk.trace()
    for taken in (_team(_brought("bob", secret)), _team(_brought("bob"), _brought("carol", secret))):
        with pytest.raises(Conflict, match="The key research/alice has this secret already"):
            await desk.do.import_(ROOT, taken, dry_run=dry_run)
    with pytest.raises(BadRequest, match=r"keys\[1\]: Another key of this document"):
        await desk.do.import_(ROOT, _team(_brought("bob"), _brought("carol")), dry_run=dry_run)
    assert await desk.trace() == before


@pytest.mark.parametrize(
    "members",
    [
        {"secret_sha256": OLD},
        {"secret_sha256": _hex(OLD).upper()},
        {"secret_sha256": _hex(OLD)[:-1]},
        {"secret_sha256": _hex(OLD) + "\n"},
        {"secret_sha256": 5},
        {"secret_sha256": _hex(OLD), "hint": "abcde"},
        {"secret_sha256": _hex(OLD), "hint": 1234},
        {"hint": "abcd"},
        {"secret_sha256": None, "hint": "abcd"},
    ],
)
async def test_what_is_no_digest_is_refused(desk: Desk, members: dict[str, Any]) -> None:
    before = await desk.trace()
    with pytest.raises(BadRequest, match=r"teams\[0\].keys\[0\]: (secret_sha256|hint) "):
        await desk.do.import_(ROOT, _team({"name": "alice", **members}))
    assert await desk.trace() == before


async def test_a_team_admin_neither_brings_digests_nor_learns_of_any(desk: Desk) -> None:
    boss = await desk.as_key("boss", role="team_admin")
    taken = secret_of(await desk.key("carol"))
    before = await desk.trace()
    said = set()
    for document in (_team(_brought()), _team(_brought("bob", taken)), _team(_brought("carol", taken))):
        for dry_run in (True, False):
            with pytest.raises(Forbidden) as refusal:
                await desk.do.import_(boss, document, dry_run=dry_run)
            said.add(refusal.value.message)
    assert len(said) == 1
    with pytest.raises(Forbidden):
        await desk.do.export(boss, with_digests=True)
    assert await desk.trace() == before
    assert "sha256" not in str(await desk.do.export(boss))
    assert "sha256" not in str(await desk.do.export(ROOT))


async def test_many_keys_are_brought_in_few_statements(desk: Desk) -> None:
    many = [_brought(f"key {number}", f"secret {number}") for number in range(MOST_ENTRIES - 1)]
    with queries(desk.store) as seen:
        made = await desk.do.import_(ROOT, _team(*many))
    assert (len(made.made_keys), len(seen) < 50) == (MOST_ENTRIES - 1, True)
    assert await desk.works("secret 7")


async def test_keys_move_from_sqlite_to_postgresql_with_all_that_they_are(tmp_path: Path) -> None:
    async with opened(fresh_sqlite_url(tmp_path)) as here, opened(fresh_postgres_url()) as there:
        made = await _fill(here)
        document = await here.do.export(ROOT, with_digests=True)
        imported = await there.do.import_(ROOT, read_document(write_document(document)))
        assert [issued.secret for issued in imported.made_keys] == [None] * len(made)
        assert await there.do.export(ROOT, with_digests=True) == document
        for name, secret in made.items():
            before, after = await _named(here, name), await _named(there, name)
            for member in ("hint", "owner", "role", "state", "expires_at", "grants", "limits", "budgets", "tags"):
                assert getattr(after, member) == getattr(before, member)
            assert (await here.works(secret), await there.works(secret)) == (name != "bob",) * 2
        again = await there.do.import_(ROOT, document)
        assert (again.made_keys, again.changed_keys, again.unchanged) == ((), (), 3 + len(made))


async def _fill(desk: Desk) -> dict[str, str]:
    """Three teams; the secrets of their keys by name, of one key the second and of one an imported one."""
    await desk.team(grants=Grants(models=("a/*",)), model_limits={"a/x": Limits(parallel=1)}, tags={"a": "b"})
    await desk.team("empty", budgets=Budgets(month_microusd=5_000_000))
    await desk.team("admins")
    alice = await desk.key(limits=Limits(parallel=3), budgets=Budgets(day_microusd=5), expires_at=NOW + 500, owner="Al")
    bob = await desk.key("bob", role="team_admin", grants=Grants(networks=("10.0.0.0/8",)), tags={"job": "x"})
    root = await desk.key("root", "admins", role="admin")
    await desk.do.disable_key(ROOT, bob.key.id)
    rotated = await desk.do.rotate_key(ROOT, alice.key.id, grace_s=60)
    await desk.do.import_(ROOT, _team(_brought("old", OLD)))
    return {"alice": secret_of(rotated), "bob": secret_of(bob), "root": secret_of(root), "old": OLD}
