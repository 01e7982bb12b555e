"""Who a bearer token stands for, and how many queries it takes to know."""

import asyncio

import pytest
from sqlalchemy import URL, event, update
from sqlalchemy.util import await_only

from gateway.access.directory import KeyDirectory
from gateway.access.keys import digest, new_secret
from gateway.call import Principal
from gateway.errors import GatewayError, InvalidKey, MissingKey, StoreUnavailable
from gateway.store.changes import Change, current_revision
from gateway.store.engine import Store
from gateway.store.tables import keys, secrets
from gateway.terms import Grants, Quota
from tests.access.queries import queries
from tests.access.rows import add_key, add_team, bearer, change_key, change_team, rotate
from tests.support.stores import PostgresServer

CHOSEN = "a-secret-of-my-own-choice"


class Clock:
    """Unix time that stands still until it is set."""

    def __init__(self, at: float) -> None:
        self.at = at

    def __call__(self) -> float:
        return self.at


async def test_a_new_key_takes_one_query_and_one_that_was_seen_takes_none(
    store: Store, directory: KeyDirectory
) -> None:
    secret = await add_key(store, role="team_admin", expires_at=4_000_000_000)
    with queries(store) as seen:
        assert directory.known(bearer(secret)) is None
        principal = await directory.look_up(bearer(secret))
        assert directory.known(bearer(secret)) is principal
        assert await directory.look_up(bearer(secret)) is principal
    assert len(seen) == 1
    quota = Quota("team_1", "key_1")
    assert principal == Principal("KEY_1", "TEAM_1", "key_1", "team_1", "team_admin", (), quota, 4_000_000_000)


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "Bearer  "])
async def test_a_key_stands_for_its_owner_however_the_scheme_is_spelled(
    store: Store, directory: KeyDirectory, scheme: str
) -> None:
    authorization = f"{scheme} {await add_key(store)}".encode()
    assert (await directory.look_up(authorization)).key_id == "key_1"
    assert directory.known(authorization) is not None


@pytest.mark.parametrize(
    "authorization",
    [None, b"", b"Bearer", b"Bearer ", b"Basic abc", pytest.param(new_secret().encode(), id="without a scheme")],
)
async def test_without_a_bearer_token_the_key_is_missing(directory: KeyDirectory, authorization: bytes | None) -> None:
    with pytest.raises(MissingKey):
        directory.known(authorization)
    with pytest.raises(MissingKey):
        await directory.look_up(authorization)


async def test_every_wrong_key_gets_one_same_refusal_that_does_not_repeat_it(
    store: Store, directory: KeyDirectory
) -> None:
    revoked = await add_key(store, "key_2", state="revoked")
    expired = await add_key(store, "key_3", expires_at=1)
    mistyped = new_secret()[:-1] + "!"
    tokens = [b"x", b"\xff\x00", b"a" * 100_000, mistyped.encode(), new_secret().encode(), revoked.encode()]
    bodies = set()
    for token in [*tokens, expired.encode()]:
        for _ in range(2):
            refusal = await _refusal(directory, b"Bearer " + token)
            assert token.decode("latin-1") not in refusal.message or token == b"x"
            bodies.add((refusal.status, repr(refusal.body()), tuple(refusal.headers)))
    assert len(bodies) == 1


async def _refusal(directory: KeyDirectory, authorization: bytes) -> GatewayError:
    with pytest.raises(InvalidKey) as caught:
        await directory.look_up(authorization)
    return caught.value


@pytest.mark.parametrize("state", ["disabled", "revoked"])
@pytest.mark.parametrize("holder", ["key", "team"])
async def test_only_active_keys_of_active_teams_work_and_no_others_are_asked_for_twice(
    store: Store, directory: KeyDirectory, state: str, holder: str
) -> None:
    secret = await add_key(store)
    await (change_key if holder == "key" else change_team)(store, state=state)
    with queries(store) as seen:
        for _ in range(3):
            await _refusal(directory, bearer(secret))
    assert len(seen) == 1


async def test_a_key_that_is_enabled_again_works_though_it_was_remembered_as_wrong(
    store: Store, directory: KeyDirectory
) -> None:
    secret = await add_key(store, state="disabled")
    await _refusal(directory, bearer(secret))
    revision = await change_key(store, state="active")
    await directory.apply([Change(revision, None, "key_1")])
    assert (await directory.look_up(bearer(secret))).key_id == "key_1"


async def test_that_a_key_is_wrong_is_remembered_for_seconds_only(store: Store) -> None:
    clock = Clock(0)
    directory = KeyDirectory(store, clock=clock)
    secret = new_secret()
    await _refusal(directory, bearer(secret))
    await add_key(store, secret=secret)
    clock.at = 4.9
    await _refusal(directory, bearer(secret))
    clock.at = 5.0
    assert (await directory.look_up(bearer(secret))).key_id == "key_1"


async def test_a_key_ends_at_its_second_without_a_query(store: Store) -> None:
    now = Clock(99.9)
    directory = KeyDirectory(store, now=now)
    secret = await add_key(store, expires_at=100)
    await directory.look_up(bearer(secret))
    assert directory.known(bearer(secret)) is not None
    now.at = 100.0
    with queries(store) as seen, pytest.raises(InvalidKey) as refusal:
        directory.known(bearer(secret))
    assert seen == []
    assert refusal.value.detail == "the key TEAM_1/KEY_1 has expired", "for the log"


@pytest.mark.parametrize(("expires_at", "grace_until", "ends_at"), [(100, 200, 100), (200, 100, 100), (None, 100, 100)])
async def test_an_old_secret_ends_with_its_grace_or_with_its_key_whichever_is_first(
    store: Store, expires_at: int | None, grace_until: int, ends_at: int
) -> None:
    now = Clock(ends_at - 1)
    directory = KeyDirectory(store, now=now)
    old = await add_key(store, expires_at=expires_at)
    new = await rotate(store, valid_until=grace_until)
    ending, newest = await directory.look_up(bearer(old)), await directory.look_up(bearer(new))
    assert (ending.expires_at_s, ending.is_in_grace) == (ends_at, True)
    assert (newest.expires_at_s, newest.is_in_grace) == (expires_at, False)
    now.at = ends_at
    await _refusal(directory, bearer(old))


async def test_a_principal_carries_the_grants_that_withhold_something(store: Store, directory: KeyDirectory) -> None:
    of_key, of_team = Grants(models=("openai/*",)), Grants(networks=("10.0.0.0/8",), routes=())
    await add_team(store, "team_2", of_team)
    both = await add_key(store, "key_2", team_id="team_2", grants=of_key)
    team_alone = await add_key(store, "key_3", team_id="team_2")
    neither = await add_key(store, "key_4")
    assert (await directory.look_up(bearer(both))).grants == (of_key, of_team)
    assert (await directory.look_up(bearer(team_alone))).grants == (of_team,)
    assert (await directory.look_up(bearer(neither))).grants == ()


async def test_grants_that_cannot_be_read_give_nothing_and_harm_no_other_key(
    store: Store, directory: KeyDirectory, caplog: pytest.LogCaptureFixture
) -> None:
    broken, whole = await add_key(store), await add_key(store, "key_2")
    async with store.writing() as connection:
        await connection.execute(update(keys).where(keys.c.id == "key_1").values(grants={"models": 5}))
    found = await asyncio.gather(
        directory.look_up(bearer(broken)), directory.look_up(bearer(whole)), return_exceptions=True
    )
    assert isinstance(found[0], InvalidKey)
    assert isinstance(found[1], Principal)
    assert "key_1" in caplog.text


async def test_many_who_ask_for_one_new_key_share_a_query_and_one_who_leaves_takes_it_from_nobody(
    store: Store, directory: KeyDirectory
) -> None:
    secret = await add_key(store)
    with queries(store) as seen:
        calls = [asyncio.ensure_future(directory.look_up(bearer(secret))) for _ in range(100)]
        await asyncio.sleep(0)
        calls[0].cancel()
        principals = await asyncio.gather(*calls[1:])
    assert {principal.key_id for principal in principals} == {"key_1"}
    assert len(seen) == 1


async def test_a_secret_of_ones_own_choice_works_only_if_it_is_pinned(store: Store, directory: KeyDirectory) -> None:
    await add_key(store, secret=CHOSEN)
    with queries(store) as seen:
        await _refusal(directory, bearer(CHOSEN))
    assert seen == []
    directory.pin([digest(CHOSEN.encode())])
    assert directory.known(bearer(CHOSEN)) is None
    await directory.preload()
    principal = directory.known(bearer(CHOSEN))
    assert principal is not None
    assert principal.key_id == "key_1"


async def test_a_change_is_in_force_at_once_and_leaves_other_keys_alone(store: Store, directory: KeyDirectory) -> None:
    touched, other = await add_key(store), await add_key(store, "key_2")
    for secret in (touched, other):
        await directory.look_up(bearer(secret))
    revision = await change_key(store, grants={"models": ["zai/*"]})
    with queries(store) as seen:
        await directory.apply([Change(revision, "team_1", "key_1")])
        principal = directory.known(bearer(touched))
    assert principal is not None
    assert principal.grants == (Grants(models=("zai/*",)),)
    assert directory.known(bearer(other)) is not None
    assert len(seen) == 1


async def test_a_change_of_a_team_is_one_of_all_its_keys(store: Store, directory: KeyDirectory) -> None:
    await add_team(store, "team_2")
    mine, theirs = await add_key(store), await add_key(store, "key_2", team_id="team_2")
    for secret in (mine, theirs):
        await directory.look_up(bearer(secret))
    revision = await change_team(store, state="disabled")
    await directory.apply([Change(revision, "team_1", None)])
    with pytest.raises(InvalidKey):
        directory.known(bearer(mine))
    assert directory.known(bearer(theirs)) is not None


@pytest.mark.parametrize("change", [Change(9, None, None), None])
async def test_a_change_of_who_knows_what_is_one_of_everything(
    store: Store, directory: KeyDirectory, change: Change | None
) -> None:
    secret = await add_key(store)
    await add_key(store, "key_2", secret=CHOSEN)
    directory.pin([digest(CHOSEN.encode())])
    await directory.look_up(bearer(secret))
    await (directory.apply_unknown() if change is None else directory.apply([change]))
    assert directory.known(bearer(secret)) is None
    assert directory.known(bearer(CHOSEN)) is not None


async def test_an_answer_that_a_change_overtakes_is_asked_for_again(
    store_url: URL, store: Store, directory: KeyDirectory
) -> None:
    secret = await add_key(store)
    was_read, may_go_on = asyncio.Event(), asyncio.Event()

    def hold(*_: object) -> None:
        if not was_read.is_set():
            was_read.set()
            await_only(may_go_on.wait())

    event.listen(store.engine.sync_engine, "after_cursor_execute", hold)
    call = asyncio.ensure_future(directory.look_up(bearer(secret)))
    await was_read.wait()
    other = Store(store_url)
    revision = await change_key(other, state="revoked")
    await other.close()
    await directory.apply([Change(revision, "team_1", "key_1")])
    may_go_on.set()
    with pytest.raises(InvalidKey):
        await call
    assert len(directory) == 0


@pytest.mark.parametrize("secret", ["sk-1234567890abcdefghijkl", "sk-gw-of-another-make", "schlüssel"])
async def test_an_imported_secret_works_whatever_its_form_and_no_stranger_costs_a_query(
    store: Store, directory: KeyDirectory, secret: str
) -> None:
    revision = await _import(store, secret)
    with queries(store) as seen:
        await _refusal(directory, bearer(secret))
        await directory.apply([Change(revision, "team_1", "key_1")])
        assert (await directory.look_up(bearer(secret))).key_id == "key_1"
        for junk in (b"Bearer sk-gw-junk", b"Bearer sk-junk", bearer(secret) + b"x"):
            await _refusal(directory, junk)
    assert len(seen) == 2, "one for which secrets were imported, one for whose this is"
    assert directory.look_ups["malformed"] == 4


async def test_which_secrets_were_imported_is_read_at_the_start_and_when_changes_were_missed(
    store: Store, directory: KeyDirectory
) -> None:
    await _import(store, CHOSEN)
    await directory.apply_unknown()
    assert (await directory.look_up(bearer(CHOSEN))).key_id == "key_1"
    later = KeyDirectory(store)
    await later.preload()
    with queries(store) as seen:
        assert (await later.look_up(bearer(CHOSEN))).key_id == "key_1"
        await _refusal(later, b"Bearer sk-junk")
    assert len(seen) == 1


async def test_before_imported_secrets_could_be_read_whoever_may_have_one_is_not_told_that_it_is_bad(
    stoppable_postgres: PostgresServer, stoppable_url: URL
) -> None:
    store = Store(stoppable_url, timeout_s=2.0)
    directory = KeyDirectory(store)
    await asyncio.to_thread(stoppable_postgres.stop)
    try:
        with pytest.raises(StoreUnavailable):
            await directory.preload()
        with pytest.raises(StoreUnavailable):
            await directory.look_up(bearer(CHOSEN))
        await _refusal(directory, b"Bearer sk-gw-junk")
    finally:
        await asyncio.to_thread(stoppable_postgres.start)
        await store.close()


async def _import(store: Store, secret: str) -> int:
    """A key whose secret came with an import; the revision of that."""
    await add_key(store, secret=secret)
    async with store.writing() as connection:
        await connection.execute(update(secrets).values(is_imported=True))
        return await current_revision(connection)
