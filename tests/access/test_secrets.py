"""What the secrets of a key are good for, from the one that makes it to the end of their grace."""

from collections.abc import AsyncIterator

import msgspec
import pytest
from sqlalchemy import URL

from gateway.access.directory import KeyDirectory
from gateway.access.drafts import TeamDraft
from gateway.errors import Forbidden, InvalidKey
from gateway.terms import Limits
from tests.access.desk import NOW, ROOT, Desk, actor_of, opened, secret_of


@pytest.fixture
async def desk(store_url: URL) -> AsyncIterator[Desk]:
    async with opened(store_url) as desk:
        yield desk


@pytest.mark.parametrize("grace_s", [0, 60])
async def test_after_a_rotation_the_old_secret_works_for_its_grace_alone(desk: Desk, grace_s: int) -> None:
    await desk.team()
    issued = await desk.key(limits=Limits(parallel=3))
    rotated = await desk.do.rotate_key(ROOT, issued.key.id, grace_s=grace_s)
    assert rotated.key.id == issued.key.id
    assert rotated.key.limits == issued.key.limits
    assert rotated.key.hint == secret_of(rotated)[-4:]
    assert (rotated.key.rotated_at, rotated.key.grace_until) == (NOW, NOW + grace_s if grace_s else None)
    assert await desk.works(secret_of(rotated))
    assert await desk.works(secret_of(issued)) is (grace_s > 0)
    desk.now += grace_s
    assert not await desk.works(secret_of(issued))
    assert (await desk.do.key(ROOT, issued.key.id)).grace_until is None


async def test_at_most_two_secrets_work_however_often_a_key_is_rotated(desk: Desk) -> None:
    await desk.team()
    issued = [await desk.key()]
    for _ in range(3):
        issued.append(await desk.do.rotate_key(ROOT, issued[0].key.id, grace_s=60))
    assert [await desk.works(secret_of(each)) for each in issued] == [False, False, True, True]
    issued.append(await desk.do.rotate_key(ROOT, issued[0].key.id))
    assert [await desk.works(secret_of(each)) for each in issued] == [False, False, False, False, True]


async def test_whoever_has_lost_their_key_meanwhile_does_nothing_more(desk: Desk) -> None:
    await desk.team()
    for end in (desk.do.disable_key, desk.do.revoke_key):
        admin = await desk.as_key(f"admin {end.__name__}", role="admin")
        await desk.key(f"other {end.__name__}", role="admin")
        await end(ROOT, admin.name)
        with pytest.raises(InvalidKey):
            await desk.do.create_team(admin, TeamDraft("x"))
    demoted = await desk.as_key("demoted", role="admin")
    await desk.do.update_key(ROOT, demoted.name, {"role": "member"})
    with pytest.raises(Forbidden):
        await desk.do.create_team(demoted, TeamDraft("x"))


async def test_a_key_that_died_meanwhile_is_refused_as_every_bad_key_is(desk: Desk) -> None:
    await desk.team()
    admin = await desk.as_key(role="admin", expires_at=NOW + 1)
    desk.now += 1
    with pytest.raises(InvalidKey) as dead:
        await desk.do.teams(admin)
    directory = KeyDirectory(desk.store)
    with pytest.raises(InvalidKey) as junk:
        await directory.look_up(b"Bearer junk")
    await directory.close()
    assert dead.value.body() == junk.value.body()


async def test_of_a_key_only_the_newest_secret_administers(desk: Desk) -> None:
    await desk.team()
    issued = await desk.key(role="admin")
    old = actor_of(issued)
    assert await desk.do.check_lives(old) == "admin"
    for grace_s, refusal in ((60, Forbidden), (0, InvalidKey)):
        new = actor_of(await desk.do.rotate_key(ROOT, issued.key.id, grace_s=grace_s))
        before = await desk.trace()
        for asked in (
            desk.do.check_lives(old),
            desk.do.me(old),
            desk.do.rotate_me(old),
            desk.do.create_team(old, TeamDraft("x")),
            desk.do.import_(old, {"teams": []}, dry_run=True),
        ):
            with pytest.raises(refusal):
                await asked
        assert await desk.trace() == before
        assert await desk.do.check_lives(new) == "admin"
        old = new


async def test_a_secret_is_believed_for_its_own_key_alone(desk: Desk) -> None:
    await desk.team()
    alice, root = await desk.as_key("alice"), await desk.as_key("root", role="admin")
    for digest in (None, b"", alice.digest):
        with pytest.raises(InvalidKey):
            await desk.do.teams(msgspec.structs.replace(root, digest=digest))
    assert str(alice.digest) not in repr(alice)


async def test_what_is_stored_holds_no_secret(desk: Desk) -> None:
    await desk.team()
    issued = await desk.key()
    rotated = await desk.do.rotate_key(ROOT, issued.key.id, grace_s=60)
    stored = await desk.everything()
    for each in (issued, rotated):
        body = secret_of(each).removeprefix("sk-gw-")
        assert all(body[at : at + 8] not in stored for at in range(len(body) - 8))
        assert secret_of(each) not in repr(each)
