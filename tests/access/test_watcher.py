"""What changes on one node is in force on the others within a second."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from sqlalchemy import URL

from gateway.access.announcements import CHANNEL, Announcements
from gateway.access.directory import KeyDirectory
from gateway.access.keys import digest, new_secret
from gateway.access.watcher import ChangeWatcher
from gateway.call import Principal
from gateway.errors import InvalidKey, StoreUnavailable
from gateway.store.changes import prune_changes
from gateway.store.engine import Store
from gateway.terms import Grants
from tests.access.conftest import Valkey
from tests.access.queries import queries
from tests.access.rows import add_key, add_team, bearer, change_key, change_team, rotate
from tests.support.stores import PostgresServer

NEVER_S = 60.0
"""A poll that no test waits for: what is noticed is noticed over Redis."""


class Node:
    """One gateway's share of it: a store, a directory and a watcher of its own."""

    def __init__(self, url: URL, *, redis_url: str | None = None, poll_s: float = 0.5) -> None:
        self.store = Store(url, timeout_s=2.0)
        self.directory = KeyDirectory(self.store)
        self.watcher = ChangeWatcher(self.store, self.directory, redis_url=redis_url, poll_s=poll_s)

    async def look_up(self, secret: str) -> Principal:
        return await self.directory.look_up(bearer(secret))

    def is_known(self, secret: str) -> bool:
        return self.directory.known(bearer(secret)) is not None

    def is_refused(self, secret: str) -> bool:
        """Out of memory, so that a call would not wait for it."""
        try:
            self.directory.known(bearer(secret))
        except InvalidKey:
            return True
        return False


@contextlib.asynccontextmanager
async def node(url: URL, *, redis_url: str | None = None, poll_s: float = 0.5) -> AsyncIterator[Node]:
    started = Node(url, redis_url=redis_url, poll_s=poll_s)
    await started.watcher.start()
    try:
        if redis_url is not None:
            await until(lambda: started.watcher.is_announced, within_s=5)
        yield started
    finally:
        await started.watcher.close()
        await started.directory.close()
        await started.store.close()


async def until(holds: Callable[[], bool], *, within_s: float = 1.0) -> None:
    """Look often enough to tell a second from more of them; TimeoutError if it does not come to hold."""
    async with asyncio.timeout(within_s):
        while not holds():  # noqa: ASYNC110 - what is waited for says nothing when it happens
            await asyncio.sleep(0.005)


async def _revoke(store: Store) -> int:
    return await change_key(store, state="revoked")


async def _disable(store: Store) -> int:
    return await change_key(store, state="disabled")


async def _disable_team(store: Store) -> int:
    return await change_team(store, state="disabled")


async def _expire(store: Store) -> int:
    return await change_key(store, expires_at=1)


async def _rotate(store: Store) -> int:
    await rotate(store, valid_until=1)
    return 2


ENDINGS = [_revoke, _disable, _disable_team, _expire, _rotate]


@pytest.mark.parametrize("end", ENDINGS)
@pytest.mark.parametrize("has_redis", [False, True], ids=["polling", "redis"])
async def test_a_key_that_ends_on_one_node_is_refused_on_another_within_a_second(
    store_url: URL, valkey: Valkey, *, has_redis: bool, end: Callable[[Store], Awaitable[int]]
) -> None:
    redis_url = valkey.url if has_redis else None
    poll_s = NEVER_S if has_redis else 0.5
    async with (
        node(store_url, redis_url=redis_url, poll_s=poll_s) as one,
        node(store_url, redis_url=redis_url, poll_s=poll_s) as two,
    ):
        await add_team(one.store)
        secret = await add_key(one.store)
        for each in (one, two):
            await each.look_up(secret)
        await until(lambda: two.is_known(secret))
        one.watcher.notify(await end(one.store))
        await until(lambda: one.is_refused(secret) and two.is_refused(secret))


@pytest.mark.parametrize("has_redis", [False, True], ids=["polling", "redis"])
async def test_new_grants_and_a_new_secret_hold_on_another_node_within_a_second(
    store_url: URL, valkey: Valkey, *, has_redis: bool
) -> None:
    redis_url = valkey.url if has_redis else None
    async with node(store_url, redis_url=redis_url) as one, node(store_url, redis_url=redis_url) as two:
        await add_team(one.store)
        old = await add_key(one.store)
        await two.look_up(old)
        one.watcher.notify(await change_key(one.store, grants={"models": ["zai/*"]}))
        await until(lambda: _grants(two, old) == (Grants(models=("zai/*",)),))
        ends_at = int(time.time()) + 1000
        new = await rotate(one.store, valid_until=ends_at)
        one.watcher.notify(3)
        await until(lambda: _ends_at(two, old) == ends_at)
        assert (await two.look_up(new)).expires_at_s is None


def _grants(node: Node, secret: str) -> tuple[Grants, ...] | None:
    principal = node.directory.known(bearer(secret))
    return None if principal is None else principal.grants


def _ends_at(node: Node, secret: str) -> int | None:
    principal = node.directory.known(bearer(secret))
    return None if principal is None else principal.expires_at_s


async def test_a_change_is_in_force_in_its_own_process_once_it_is_applied(store_url: URL) -> None:
    async with node(store_url, poll_s=NEVER_S) as one:
        await add_team(one.store)
        secret = await add_key(one.store)
        await one.look_up(secret)
        await one.watcher.publish(await change_key(one.store, state="revoked"))
        assert one.is_refused(secret)


async def test_whoever_waits_for_a_change_that_never_comes_waits_for_a_second_only(store_url: URL) -> None:
    async with node(store_url, poll_s=NEVER_S) as one, asyncio.timeout(2):
        await one.watcher.applied(1_000)


async def test_polling_that_finds_nothing_new_takes_one_query_and_leaves_keys_alone(store: Store) -> None:
    directory = KeyDirectory(store)
    secret = await add_key(store)
    watcher = ChangeWatcher(store, directory, poll_s=0.01)
    await watcher.start()
    await directory.look_up(bearer(secret))
    with queries(store) as seen:
        await until(lambda: len(seen) >= 5)
    assert len(set(seen)) == 1
    assert directory.known(bearer(secret)) is not None
    await watcher.close()


async def test_changes_that_were_pruned_before_they_were_seen_make_everything_forgotten(store_url: URL) -> None:
    async with node(store_url, poll_s=NEVER_S) as one:
        await add_team(one.store)
        secret, other = await add_key(one.store), await add_key(one.store, "key_2")
        one.watcher.notify(2)
        await one.watcher.applied(2)
        for each in (secret, other):
            await one.look_up(each)
        await change_key(one.store, state="revoked")
        async with one.store.writing() as connection:
            await prune_changes(connection, int(time.time()) + 1)
        revision = await change_key(one.store, "key_2", owner="ada")
        one.watcher.notify(revision)
        await one.watcher.applied(revision)
        assert not one.is_known(secret)
        with pytest.raises(InvalidKey):
            await one.look_up(secret)
        assert (await one.look_up(other)).key_id == "key_2"


async def test_with_redis_stopped_in_between_changes_go_on_holding_within_a_second(
    store_url: URL, valkey: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with node(store_url, redis_url=valkey.url) as one, node(store_url, redis_url=valkey.url) as two:
        await add_team(one.store)
        secrets = [await add_key(one.store, f"key_{number}") for number in range(3)]
        for secret in secrets:
            await two.look_up(secret)
        one.watcher.notify(await change_key(one.store, "key_0", state="revoked"))
        await until(lambda: two.is_refused(secrets[0]))
        await asyncio.to_thread(valkey.stop)
        one.watcher.notify(await change_key(one.store, "key_1", state="revoked"))
        await until(lambda: two.is_refused(secrets[1]))
        await until(lambda: not two.watcher.is_announced)
        await asyncio.to_thread(valkey.start)
        await until(lambda: one.watcher.is_announced and two.watcher.is_announced, within_s=10)
        one.watcher.notify(await change_key(one.store, "key_2", state="revoked"))
        await until(lambda: two.is_refused(secrets[2]))
    assert caplog.text.count("Redis is away") == 2
    assert caplog.text.count("Redis is back") == 2


async def test_a_gateway_starts_without_its_redis_and_finds_it_later(store_url: URL, valkey: Valkey) -> None:
    await asyncio.to_thread(valkey.stop)
    one = Node(store_url, redis_url=valkey.url, poll_s=NEVER_S)
    async with asyncio.timeout(5):
        await one.watcher.start()
    assert not one.watcher.is_announced
    await asyncio.to_thread(valkey.start)
    await until(lambda: one.watcher.is_announced, within_s=10)
    await one.watcher.close()
    await one.store.close()


async def test_a_redis_that_hangs_is_noticed_and_found_again(valkey: Valkey) -> None:
    heard: list[int] = []
    announcements = Announcements(valkey.url, heard.append, quiet_s=0.1)
    announcements.start()
    await until(lambda: announcements.is_heard, within_s=5)
    with valkey.frozen():
        announcements.announce(1)
        await until(lambda: not announcements.is_heard, within_s=5)
    await until(lambda: announcements.is_heard, within_s=10)
    announcements.announce(2)
    await until(lambda: 2 in heard)
    await announcements.close()


async def test_what_others_say_on_the_channel_does_no_harm(store_url: URL, valkey: Valkey) -> None:
    async with node(store_url, redis_url=valkey.url, poll_s=NEVER_S) as one:
        await add_team(one.store)
        secret = await add_key(one.store)
        await one.look_up(secret)
        for said in (b"junk", b"", b"-1", b"\xff", b"9" * 5_000):
            await _publish(valkey, said)
        await change_key(one.store, state="revoked")
        await _publish(valkey, b"99")
        await until(lambda: one.is_refused(secret))


async def _publish(valkey: Valkey, said: bytes) -> None:
    command = (b"PUBLISH", CHANNEL.encode(), said)
    reader, writer = await asyncio.open_connection("127.0.0.1", valkey.port)
    writer.write(b"*3\r\n" + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in command))
    assert await reader.readline() == b":1\r\n"
    writer.close()


async def test_while_the_database_is_away_known_keys_go_on_and_afterwards_what_changed_holds(
    stoppable_postgres: PostgresServer, stoppable_url: URL, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with node(stoppable_url, poll_s=0.05) as one:
        await add_team(one.store)
        secret, chosen = await add_key(one.store), "a-secret-of-my-own-choice"
        await add_key(one.store, "key_2", secret=chosen)
        await one.watcher.applied(2)  # or else it may be about to read the keys again when the database goes
        one.directory.pin([digest(chosen.encode())])
        await one.directory.preload()
        await one.look_up(secret)
        await asyncio.to_thread(stoppable_postgres.stop)
        await until(lambda: "The database is away" in caplog.text)
        assert one.is_known(secret)
        assert one.is_known(chosen)
        with pytest.raises(StoreUnavailable):
            await one.look_up(new_secret())
        await asyncio.to_thread(stoppable_postgres.start)
        await until(lambda: "The database is back" in caplog.text, within_s=5)
        await change_key(one.store, state="revoked")
        await until(lambda: one.is_refused(secret))
        assert one.is_known(chosen)
    assert caplog.text.count("The database is away") == 1


async def test_a_database_that_is_away_at_the_start_is_waited_for(
    stoppable_postgres: PostgresServer, stoppable_url: URL
) -> None:
    await asyncio.to_thread(stoppable_postgres.stop)
    async with node(stoppable_url, poll_s=0.05) as one:
        await asyncio.to_thread(stoppable_postgres.start)
        await until(lambda: not one.store.is_away, within_s=5)
        await add_team(one.store)
        secret = await add_key(one.store)
        await one.look_up(secret)
        await change_key(one.store, state="revoked")
        await until(lambda: one.is_refused(secret))


async def test_what_could_not_be_read_is_tried_again_before_the_next_poll(
    stoppable_postgres: PostgresServer, stoppable_url: URL
) -> None:
    async with node(stoppable_url, poll_s=NEVER_S) as one:
        await add_team(one.store)
        secret = await add_key(one.store)
        one.watcher.notify(1)
        await one.watcher.applied(1)
        await one.look_up(secret)
        await asyncio.to_thread(stoppable_postgres.stop)
        one.watcher.notify(2)
        await until(lambda: one.watcher.is_away)
        await asyncio.to_thread(stoppable_postgres.start)
        await until(lambda: not one.watcher.is_away, within_s=5)
        assert one.is_known(secret)
