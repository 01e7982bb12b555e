"""A store without an admin key gets one, once, whoever starts."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from pydantic import SecretStr
from sqlalchemy import URL

from gateway.access.first_start import first_start
from gateway.access.keys import is_well_formed
from gateway.access.reconcile import reconcile
from gateway.access.records import Key
from gateway.settings import Key as DeclaredKey
from gateway.store.engine import Store
from tests.access.desk import GROUPS, ROOT, Desk, opened


@pytest.fixture
async def desk(store_url: URL) -> AsyncIterator[Desk]:
    async with opened(store_url) as desk:
        yield desk


async def _keys(desk: Desk) -> list[Key]:
    return list((await desk.do.keys(ROOT)).items)


async def test_the_first_start_makes_an_admin_key_and_gives_its_secret_once(desk: Desk) -> None:
    secret = await first_start(desk.store)
    assert secret is not None
    assert is_well_formed(secret)
    assert await desk.works(secret)
    assert [(key.team, key.name, key.role, key.source) for key in await _keys(desk)] == [
        ("admins", "admin", "admin", "api")
    ]
    assert {entry.actor for entry in (await desk.do.audit(ROOT)).items} == {"first_start"}
    before = await desk.trace()
    assert await first_start(desk.store) is None
    assert await desk.trace() == before


async def test_a_revoked_admin_key_is_not_followed_by_another_one(desk: Desk) -> None:
    await desk.team()
    first = await desk.key("a", role="admin")
    await desk.key("b", role="admin")
    await desk.do.revoke_key(ROOT, first.key.id)
    assert await first_start(desk.store) is None


async def test_of_several_nodes_that_start_at_once_one_gets_the_secret(store_url: URL) -> None:
    stores = [Store(store_url) for _ in range(4)]
    secrets = await asyncio.gather(*(first_start(store) for store in stores))
    assert sum(secret is not None for secret in secrets) == 1
    for store in stores:
        await store.close()


async def test_an_admin_key_of_the_settings_is_all_that_is_needed(desk: Desk) -> None:
    await reconcile(desk.store, (), SecretStr("an-admin-key-from-outside"), route_groups=GROUPS)
    assert await first_start(desk.store) is None


async def test_a_key_of_the_settings_may_have_the_name_that_the_first_admin_key_would_get(desk: Desk) -> None:
    declared = DeclaredKey(name="admin", team="admins", secret=SecretStr("0123456789abcdef"))
    await reconcile(desk.store, (declared,), route_groups=GROUPS)
    assert await first_start(desk.store) is not None
    assert {key.name: key.role for key in await _keys(desk)} == {"admin": "member", "admin 2": "admin"}
