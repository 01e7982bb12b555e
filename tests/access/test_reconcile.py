"""The store holds what the settings declare, however often and by however many nodes it is told."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import URL

from gateway.access.drafts import KeyFilters
from gateway.access.first_start import first_start
from gateway.access.keys import digest, new_secret
from gateway.access.reconcile import SettingsConflict, reconcile
from gateway.access.records import Key
from gateway.errors import Conflict
from gateway.settings import Key as DeclaredKey
from gateway.store.engine import Store
from gateway.terms import Grants
from tests.access.desk import GROUPS, NOW, ROOT, Desk, opened, secret_of

ONE, TWO = "secret-number-one", "secret-number-two"


@pytest.fixture
async def desk(store_url: URL) -> AsyncIterator[Desk]:
    async with opened(store_url) as desk:
        yield desk


def declared(name: str = "alice", team: str = "research", secret: str = ONE, **members: Any) -> DeclaredKey:
    return DeclaredKey(name=name, team=team, secret=SecretStr(secret), **members)


async def bring(desk: Desk, *declared: DeclaredKey, admin: str | None = None) -> frozenset[bytes]:
    key = None if admin is None else SecretStr(admin)
    return await reconcile(desk.store, declared, key, route_groups=GROUPS, now=lambda: desk.now)


async def keys_of(desk: Desk, team: str = "research") -> dict[str, Key]:
    return {key.name: key for key in (await desk.do.keys(ROOT, KeyFilters(team=team))).items}


async def actions(desk: Desk) -> list[str]:
    entries = (await desk.do.audit(ROOT)).items
    assert {entry.actor for entry in entries} <= {"settings", "cli"}
    return [entry.action for entry in reversed(entries)]


async def test_a_declared_key_is_made_with_its_team_and_marked_as_the_settings(desk: Desk) -> None:
    end = datetime.fromtimestamp(NOW + 5, UTC)
    terms: dict[str, Any] = {"models": ("a/*",), "routes": ("chat",), "networks": ("10.0.0.0/8",), "role": "team_admin"}
    digests = await bring(desk, declared(expires_at=end, **terms))
    key = (await keys_of(desk))["alice"]
    assert (key.source, key.role, key.expires_at) == ("settings", "team_admin", NOW + 5)
    assert key.grants == Grants(("a/*",), ("chat",), ("10.0.0.0/8",))
    assert (await desk.do.team(ROOT, "research")).source == "settings"
    assert digests == {digest(ONE.encode())}
    assert await desk.works(ONE)
    assert await actions(desk) == ["team.create", "key.create"]


async def test_telling_it_again_changes_nothing(desk: Desk) -> None:
    wanted = (declared(), declared("bob", secret=TWO, models=("a", "b")), declared("carol", "sales", new_secret()))
    first = await bring(desk, *wanted, admin="the-admins-own-key")
    before = await desk.trace()
    desk.now += 100
    assert await bring(desk, *wanted, admin="the-admins-own-key") == first
    assert await desk.trace() == before


async def test_a_secret_may_be_declared_as_its_digest(desk: Desk) -> None:
    sha256 = digest(ONE.encode()).hex()
    assert await bring(desk, DeclaredKey(name="alice", team="research", secret_sha256=sha256)) == {digest(ONE.encode())}
    assert await desk.works(ONE)
    await bring(desk, declared())
    assert (await keys_of(desk))["alice"].version == 1


async def test_no_part_of_a_short_secret_is_shown(desk: Desk) -> None:
    long = new_secret()
    await bring(desk, declared(), declared("bob", secret=long))
    assert {name: key.hint for name, key in (await keys_of(desk)).items()} == {"alice": "", "bob": long[-4:]}
    assert ONE not in await desk.everything()


async def test_what_changed_in_the_settings_changes_in_the_store(desk: Desk) -> None:
    await bring(desk, declared(models=("a",)))
    await bring(desk, declared(models=("b",), role="admin"))
    key = (await keys_of(desk))["alice"]
    assert (key.grants.models, key.role, key.version) == (("b",), "admin", 2)
    assert (await actions(desk))[-1] == "key.update"


async def test_a_new_secret_replaces_the_old_one_at_once(desk: Desk) -> None:
    await bring(desk, declared())
    key = (await keys_of(desk))["alice"]
    desk.now += 9
    await bring(desk, declared(secret=TWO))
    after = (await keys_of(desk))["alice"]
    assert (after.id, after.rotated_at) == (key.id, NOW + 9)
    assert (await desk.works(ONE), await desk.works(TWO)) == (False, True)
    assert (await actions(desk))[-1] == "key.rotate"


async def test_two_keys_may_swap_their_secrets_and_one_may_take_a_renamed_ones(desk: Desk) -> None:
    await bring(desk, declared(), declared("bob", secret=TWO))
    await bring(desk, declared(secret=TWO), declared("bob"))
    assert await desk.works(ONE)
    assert await desk.works(TWO)
    await bring(desk, declared("carol"))
    assert {name: key.state for name, key in (await keys_of(desk)).items()} == {
        "alice": "disabled",
        "bob": "disabled",
        "carol": "active",
    }
    assert (await desk.works(ONE), await desk.works(TWO)) == (True, False)


async def test_a_key_that_vanished_is_disabled_and_itself_again_when_it_is_back(desk: Desk) -> None:
    await bring(desk, declared())
    key = (await keys_of(desk))["alice"]
    await bring(desk)
    assert (await keys_of(desk))["alice"].state == "disabled"
    assert not await desk.works(ONE)
    before = await desk.trace()
    await bring(desk)
    assert await desk.trace() == before
    await bring(desk, declared())
    assert ((await keys_of(desk))["alice"].id, await desk.works(ONE)) == (key.id, True)
    assert (await actions(desk))[-1] == "key.enable"


async def test_a_team_that_the_settings_name_no_more_is_left_to_those_who_administer(desk: Desk) -> None:
    await bring(desk, declared())
    with pytest.raises(Conflict):
        await desk.do.update_team(ROOT, "research", {"name": "x"})
    await bring(desk)
    assert (await desk.do.update_team(ROOT, "research", {"name": "x"})).source == "api"


async def test_a_team_that_was_made_by_hand_stays_so_but_keeps_the_name_that_the_settings_use(desk: Desk) -> None:
    await desk.team()
    await bring(desk, declared())
    assert (await desk.do.team(ROOT, "research")).source == "api"
    await desk.do.update_team(ROOT, "research", {"limits": {"parallel": 3}})
    with pytest.raises(Conflict):
        await desk.do.update_team(ROOT, "research", {"name": "x"})


@pytest.mark.parametrize("clash", ["name", "secret", "routes"])
async def test_settings_that_do_not_fit_are_refused_whole_with_the_cure(desk: Desk, clash: str) -> None:
    await desk.team()
    issued = await desk.key()
    wanted = {
        "name": declared(),
        "secret": declared("bob", secret=secret_of(issued)),
        "routes": declared("bob", routes=("audio",)),
    }
    before = await desk.trace()
    with pytest.raises(SettingsConflict, match="alice" if clash != "routes" else "audio") as refusal:
        await bring(desk, declared("zed", "sales", TWO), wanted[clash])
    assert secret_of(issued) not in str(refusal.value)
    assert await desk.trace() == before


async def test_a_revoked_keys_name_is_free_for_the_settings(desk: Desk) -> None:
    await desk.team()
    await desk.do.revoke_key(ROOT, (await desk.key()).key.id)
    await bring(desk, declared())
    assert await desk.works(ONE)


async def test_the_admin_key_of_the_settings_is_in_the_team_admins(desk: Desk) -> None:
    assert await bring(desk, admin=ONE) == {digest(ONE.encode())}
    key = (await keys_of(desk, "admins"))["admin"]
    assert (key.role, key.source) == ("admin", "settings")
    await bring(desk, admin=TWO)
    assert (await desk.works(ONE), await desk.works(TWO)) == (False, True)


async def test_the_admin_key_of_the_settings_and_that_of_the_first_start_both_work(desk: Desk) -> None:
    first = await first_start(desk.store)
    assert first is not None
    await bring(desk, admin=ONE)
    assert await desk.works(first)
    assert await desk.works(ONE)
    before = await desk.trace()
    await bring(desk, admin=ONE)
    assert await desk.trace() == before
    await desk.do.revoke_key(ROOT, (await keys_of(desk, "admins"))["admin"].id)
    await bring(desk, admin=ONE)
    assert await desk.works(ONE)


async def test_several_nodes_may_tell_it_at_once(store_url: URL) -> None:
    stores = [Store(store_url) for _ in range(4)]
    wanted = (declared(), declared("bob", secret=TWO))
    await asyncio.gather(
        *(reconcile(store, wanted, SecretStr("an-admin-key-of-ours"), route_groups=GROUPS) for store in stores)
    )
    for store in stores:
        await store.close()
    async with opened(store_url) as desk:
        assert {key.version for key in (await desk.do.keys(ROOT)).items} == {1}
        assert sorted(await actions(desk)) == ["key.create"] * 3 + ["team.create"] * 2


async def test_an_admin_key_that_was_made_here_may_be_named_by_the_settings_too(desk: Desk) -> None:
    secret = await first_start(desk.store)
    assert secret is not None
    await bring(desk, admin=secret)
    assert [(key.name, key.source) for key in (await keys_of(desk, "admins")).values()] == [("admin", "api")]
    assert await desk.works(secret)


async def test_no_other_key_that_a_gateway_made_becomes_the_admins_by_being_in_that_variable(desk: Desk) -> None:
    await desk.team()
    member, old = await desk.key("m"), await desk.key("old", role="admin")
    await desk.do.rotate_key(ROOT, old.key.id)
    for secret in (secret_of(member), secret_of(old), new_secret()):
        with pytest.raises(SettingsConflict, match=r"GATEWAY_ADMIN_KEY.* unset it"):
            await bring(desk, admin=secret)


async def test_an_admin_key_of_the_gateways_own_form_may_begin_a_new_store_and_go_on(desk: Desk) -> None:
    secret = new_secret()
    for _ in range(2):
        await bring(desk, admin=secret)
    assert await desk.works(secret)
