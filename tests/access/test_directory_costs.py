"""How much a directory may cost: queries, memory, time, and patience with a database that is away."""

import asyncio
import contextlib
import gc
import itertools
import tracemalloc

import pytest
from sqlalchemy import URL

from gateway.access.directory import KeyDirectory
from gateway.access.keys import digest, new_secret
from gateway.call import Principal
from gateway.errors import InvalidKey, StoreUnavailable
from gateway.store.engine import Store
from gateway.store.migrate import migrate
from gateway.store.url import parse
from tests.access.queries import queries
from tests.access.rows import add_key, add_team, bearer
from tests.support.patience import Stopwatch
from tests.support.stores import PostgresServer
from tests.support.yardsticks import times_a_count

CHOSEN = "a-secret-of-my-own-choice"


async def test_many_new_keys_at_once_take_few_queries_and_few_connections(
    store: Store, directory: KeyDirectory
) -> None:
    known = {await add_key(store, f"key_{number}") for number in range(3)}
    secrets = [*known, *(new_secret() for _ in range(3_000))]
    with queries(store) as seen:
        answers = await asyncio.gather(*(directory.look_up(bearer(s)) for s in secrets), return_exceptions=True)
    assert sum(isinstance(answer, Principal) for answer in answers) == 3
    assert sum(isinstance(answer, InvalidKey) for answer in answers) == 3_000
    assert len(seen) <= 12
    assert repr(directory) == "KeyDirectory(known=3, unknown=3000, asked=0)"


async def test_no_query_is_made_for_a_hundred_thousand_keys_with_a_bad_checksum(
    store: Store, directory: KeyDirectory
) -> None:
    right = new_secret()
    tracemalloc.start()
    try:
        with queries(store) as seen:
            for number in range(100_000):
                with pytest.raises(InvalidKey):
                    directory.known(b"Bearer %b%06d" % (right[:-6].encode(), number))
        gc.collect()
        grown, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert seen == []
    assert grown < 1_000_000


async def test_wrong_keys_with_a_good_checksum_are_remembered_up_to_a_bound(store: Store) -> None:
    directory = KeyDirectory(store, max_unknown=50)
    for _ in range(4):
        wrong = [new_secret() for _ in range(40)]
        await asyncio.gather(*(directory.look_up(bearer(s)) for s in wrong), return_exceptions=True)
    assert repr(directory) == "KeyDirectory(known=0, unknown=50, asked=0)"


async def test_calls_whose_keys_are_in_memory_are_counted_and_no_others(store: Store) -> None:
    directory = KeyDirectory(store)
    secret = await add_key(store, "key_1")
    await directory.look_up(bearer(secret))
    assert (directory.hits, directory.look_ups["found"]) == (0, 1)
    directory.known(bearer(secret))
    await directory.look_up(bearer(secret))
    for wrong in ("sk-gw-malformed", new_secret()):
        with pytest.raises(InvalidKey):
            await directory.look_up(bearer(wrong))
    assert (directory.hits, directory.look_ups["found"]) == (2, 1)


async def test_past_the_bound_a_key_that_was_not_used_lately_is_dropped_and_a_pinned_one_never(store: Store) -> None:
    directory = KeyDirectory(store, max_known=3)
    await add_key(store, "key_pinned", secret=CHOSEN)
    directory.pin([digest(CHOSEN.encode())])
    await directory.preload()
    secrets = [await add_key(store, f"key_{number}") for number in range(4)]
    for secret in secrets[:3]:
        await directory.look_up(bearer(secret))
    assert directory.known(bearer(secrets[0])) is not None
    await directory.look_up(bearer(secrets[3]))
    assert [directory.known(bearer(secret)) is not None for secret in secrets] == [True, False, True, True]
    assert directory.known(bearer(CHOSEN)) is not None
    assert len(directory) == 4


async def test_a_database_that_is_away_leaves_known_keys_alone_and_heals_by_itself(
    stoppable_postgres: PostgresServer, stoppable_url: URL
) -> None:
    store = Store(stoppable_url, timeout_s=2.0)
    await add_team(store)
    known, unknown = await add_key(store), await add_key(store, "key_2")
    directory = KeyDirectory(store)
    await directory.preload()
    await directory.look_up(bearer(known))
    await asyncio.to_thread(stoppable_postgres.stop)
    for _ in range(2):
        assert directory.known(bearer(known)) is not None
        with pytest.raises(StoreUnavailable):
            await directory.look_up(bearer(unknown))
        with pytest.raises(InvalidKey):
            await directory.look_up(b"Bearer junk")
    await asyncio.to_thread(stoppable_postgres.start)
    assert (await _until_there(directory, unknown)).key_id == "key_2"
    await store.close()


async def test_while_a_database_hangs_only_the_first_callers_wait_for_it() -> None:
    server = await asyncio.start_server(_say_nothing, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    store = Store(parse(f"postgresql://postgres@127.0.0.1:{port}/gateway"), timeout_s=0.3)
    directory = KeyDirectory(store)
    first = [asyncio.ensure_future(directory.look_up(bearer(new_secret()))) for _ in range(20)]
    answers = await asyncio.gather(*first, return_exceptions=True)
    assert all(isinstance(answer, StoreUnavailable) for answer in answers)
    watch = Stopwatch()
    for _ in range(100):
        with pytest.raises(StoreUnavailable):
            await directory.look_up(bearer(new_secret()))
    assert watch.took().running_s < 0.25
    await store.close()
    server.close()


async def _say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()
    writer.close()


async def test_whoever_waits_when_a_directory_closes_is_let_go(directory: KeyDirectory) -> None:
    call = asyncio.ensure_future(directory.look_up(bearer(new_secret())))
    await asyncio.sleep(0)
    await directory.close()
    with pytest.raises(StoreUnavailable):
        await call
    assert repr(directory) == "KeyDirectory(known=0, unknown=0, asked=0)"


async def _until_there(directory: KeyDirectory, secret: str) -> Principal:
    async with asyncio.timeout(5):
        while True:
            with contextlib.suppress(StoreUnavailable):
                return await directory.look_up(bearer(secret))
            await asyncio.sleep(0.05)


async def test_a_key_that_is_known_costs_a_call_next_to_nothing(store: Store, directory: KeyDirectory) -> None:
    authorization = bearer(await add_key(store, expires_at=4_000_000_000))
    await directory.look_up(authorization)
    assert times_a_count(lambda: directory.known(authorization)) < 50


async def test_where_the_tables_are_not_there_nobody_is_told_that_a_key_is_bad(empty_store_url: URL) -> None:
    store = Store(empty_store_url)
    directory = KeyDirectory(store, clock=itertools.count().__next__)
    for _ in range(3):
        with pytest.raises(StoreUnavailable):
            await directory.look_up(bearer(new_secret()))
    assert directory.look_ups["unavailable"] == 3
    await migrate(empty_store_url)
    with pytest.raises(InvalidKey):
        await directory.look_up(bearer(new_secret()))
    await store.close()


async def test_where_the_tables_are_others_nobody_is_told_that_a_key_is_bad_and_the_log_says_it_once(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    directory = KeyDirectory(store)
    await run(store, "ALTER TABLE teams RENAME COLUMN budgets TO purse")
    for _ in range(3):
        with pytest.raises(StoreUnavailable):
            await directory.look_up(bearer(new_secret()))
    assert caplog.text.count("Keys cannot be looked up") == 1
    assert directory.look_ups["unavailable"] == 3
    await run(store, "ALTER TABLE teams RENAME COLUMN purse TO budgets")
    with pytest.raises(InvalidKey):
        await directory.look_up(bearer(new_secret()))


async def run(store: Store, statement: str) -> None:
    async with store.writing() as connection:
        await connection.exec_driver_sql(statement)
