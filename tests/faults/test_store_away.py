"""The database goes away and comes back: known keys go on, nobody is told that a key is bad, all heals by itself."""

import asyncio
import contextlib
import os
import signal
import sys
import time
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from sqlalchemy import URL

from gateway.access.keys import new_secret
from tests.faults.face import Answer, ask, request
from tests.faults.nodes import Admin, Caller, Made, Moment, call, calling, delay_s, environment_for, node, nodes
from tests.faults.process import GatewayProcess
from tests.faults.test_wrong_keys import bad_checksums
from tests.support.link import Faults, FaultyLink
from tests.support.stores import PostgresServer

PASSWORD = "password-canary-51c7"
HEALS_S = 5.0
LOGGING = {"GATEWAY_LOG_CALLS": "all"}
IMPATIENT = {"GATEWAY_DATABASE_TIMEOUT_S": "1", **LOGGING}


def with_password(url: URL) -> URL:
    """The server trusts everyone, so that any will do."""
    return url.set(password=PASSWORD)


async def up(node: GatewayProcess) -> bool:
    """Whether /metrics says that the database is there."""
    text = (await ask(node.port, request("GET", "/metrics"))).body.decode()
    return "gmi_gateway_database_up 1.0" in text


async def until_up(node: GatewayProcess, *, wanted: bool, within_s: float) -> None:
    async with asyncio.timeout(within_s):
        while await up(node) != wanted:  # noqa: ASYNC110 - /metrics is asked for it
            await asyncio.sleep(0.02)


def assert_is_503(answer: Answer) -> None:
    assert answer.status == 503, answer.body
    assert answer.error["code"] == "store_unavailable"
    assert answer.header("retry-after") is not None
    assert PASSWORD.encode() not in answer.body
    assert b"postgres" not in answer.body


async def assert_is_away(node: GatewayProcess, admin: Admin, unseen: Made) -> None:
    """All that a node must do while its database is away but for going on with known keys."""
    for secret in (unseen.secret, new_secret()):
        assert_is_503(await call(node.port, secret))
    assert (await call(node.port, next(bad_checksums(1)))).status == 401
    assert_is_503(await admin.ask("GET", "/keys"))
    assert_is_503(await admin.ask("POST", f"/keys/{unseen.id}/revoke"))
    assert (await ask(node.port, request("GET", "/readyz"))).status == 200
    assert not await up(node)


async def assert_heals(node: GatewayProcess, admin: Admin, unseen: Made) -> None:
    """From now on within `HEALS_S`."""
    async with asyncio.timeout(HEALS_S):
        while (await call(node.port, unseen.secret)).status != 200:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.02)
        while (await admin.ask("GET", "/keys")).status != 200:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.02)
        await until_up(node, wanted=True, within_s=HEALS_S)
    assert (await call(node.port, new_secret())).status == 401
    assert (await admin.ask("POST", f"/keys/{unseen.id}/disable")).status == 200


def assert_log_is_clean(node: GatewayProcess) -> None:
    """One line each way, and nothing that should not be in a log."""
    output = node.output.decode()
    assert output.count("The database is away") == 1, output
    assert output.count("The database is back") == 1, output
    assert PASSWORD not in output, output
    log = [line for line in output.splitlines() if not line.startswith("All that it keeps is in ")]
    for word in ("Traceback", "postgresql://", "sqlite://", "asyncpg", "sqlalchemy"):
        assert word not in "\n".join(log), output


@contextlib.asynccontextmanager
async def in_use(node: GatewayProcess, admin: Admin) -> AsyncIterator[list[Caller]]:
    """A key that is known goes on being called with, and is never refused."""
    key = await admin.make_key()
    async with calling([node.port] * 2, key.secret, processes=1) as callers:
        yield callers
        await asyncio.gather(*(caller.until(200) for caller in callers))
        assert {each.status for caller in callers for each in caller.calls} == {200}


async def test_a_stopped_database_is_done_without_and_found_again(
    stoppable_postgres: PostgresServer, stoppable_url: URL, *, is_long: bool
) -> None:
    async with nodes(with_password(stoppable_url), count=1, **LOGGING) as (node,):
        admin = Admin(node.port)
        unseen = await admin.make_key()
        async with in_use(node, admin):
            await asyncio.to_thread(stoppable_postgres.stop)
            try:
                await until_up(node, wanted=False, within_s=HEALS_S)
                await assert_is_away(node, admin, unseen)
                await asyncio.sleep(60 if is_long else 0)
            finally:
                await asyncio.to_thread(stoppable_postgres.start)
            await assert_heals(node, admin, unseen)
        assert_log_is_clean(node)


async def test_a_database_that_hangs_is_done_without_and_found_again(
    stoppable_postgres: PostgresServer, stoppable_url: URL
) -> None:
    async with nodes(with_password(stoppable_url), count=1, **IMPATIENT) as (node,):
        admin = Admin(node.port)
        unseen = await admin.make_key()
        async with in_use(node, admin):
            with frozen(stoppable_postgres):
                await until_up(node, wanted=False, within_s=HEALS_S)
                await assert_is_away(node, admin, unseen)
            await assert_heals(node, admin, unseen)
        assert_log_is_clean(node)


@contextlib.contextmanager
def frozen(server: PostgresServer) -> Iterator[None]:
    """None of its processes does anything; connections stay open, and new ones are taken by the kernel."""
    pid = int((server._folder / "data" / "postmaster.pid").read_text().split()[0])
    os.kill(pid, signal.SIGSTOP)
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    for child in children:
        os.kill(int(child), signal.SIGSTOP)
    try:
        yield
    finally:
        for each in (*map(int, children), pid):
            os.kill(each, signal.SIGCONT)


async def test_a_gateway_whose_database_is_away_stops_when_it_is_told_to(
    stoppable_postgres: PostgresServer, stoppable_url: URL
) -> None:
    async with nodes(with_password(stoppable_url), count=1, **LOGGING) as (node,):
        key = await Admin(node.port).make_key()
        assert (await call(node.port, key.secret)).status == 200
        await asyncio.to_thread(stoppable_postgres.stop)
        try:
            node.terminate()
            assert await node.status() == 0
        finally:
            await asyncio.to_thread(stoppable_postgres.start)
        assert b"Traceback" not in node.output


async def _cut(link: FaultyLink) -> None:
    """From now on, until `link.up` is set anew."""
    link.up = Faults(reset_after=0)
    tasks = list(link._tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("how", ["revoke", "disable", "rotate"])
async def test_a_key_that_ended_while_a_node_could_not_see_the_database_is_refused_once_it_can(
    stoppable_postgres: PostgresServer, stoppable_url: URL, how: str
) -> None:
    async with FaultyLink("127.0.0.1", stoppable_postgres.port) as link, nodes(stoppable_url, count=1) as (sees,):
        blind_url = with_password(stoppable_url).set(port=link.port)
        async with node(environment_for(blind_url, **LOGGING)) as blind:
            admin = Admin(sees.port)
            ended, kept = await admin.make_key(), await admin.make_key()
            async with (
                calling([blind.port], ended.secret, processes=1) as callers,
                calling([blind.port], kept.secret, processes=1) as others,
            ):
                await _cut(link)
                await until_up(blind, wanted=False, within_s=HEALS_S)
                await admin.do("POST", f"/keys/{ended.id}/{how}")
                await callers[0].past(time.monotonic() + 1.0)
                asked_at_s = time.monotonic()
                link.up = Faults()
                await until_up(blind, wanted=True, within_s=HEALS_S)
                print(
                    f"refused {await delay_s(callers, Moment(asked_at_s, time.monotonic()), 401):.3f} s after it is up"
                )
                assert {each.status for each in others[0].calls} == {200}
            assert_log_is_clean(blind)


_LOCKS = """
import fcntl, sqlite3, sys
if sys.argv[2] == "writing":
    holder = sqlite3.connect(sys.argv[1], isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
else:  # what recovery does: the locks of https://www.sqlite.org/walformat.html, section 2.3
    holder = open(sys.argv[1] + "-shm", "r+b")
    fcntl.lockf(holder, fcntl.LOCK_EX, 8, 120)
print("locked", flush=True)
sys.stdin.read()
"""


@contextlib.asynccontextmanager
async def locked(url: URL, what: str) -> AsyncIterator[None]:
    """Another process has the lock for `writing`, or for `everything`."""
    command = (sys.executable, "-c", _LOCKS, str(url.database), what)
    process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE)
    assert process.stdout is not None
    assert await process.stdout.readline() == b"locked\n"
    try:
        yield
    finally:
        process.kill()
        await process.wait()


only_sqlite = pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)


@only_sqlite
async def test_a_file_that_another_process_writes_to_is_read_all_the_same(store_url: URL) -> None:
    async with nodes(store_url, count=1, **IMPATIENT) as (node,):
        admin = Admin(node.port)
        unseen = await admin.make_key()
        async with in_use(node, admin):
            async with locked(store_url, "writing"):
                assert_is_503(await admin.ask("POST", f"/keys/{unseen.id}/disable"))
                assert (await call(node.port, unseen.secret)).status == 200
                assert (await call(node.port, new_secret())).status == 401
                await admin.do("GET", "/keys")
            await admin.do("POST", f"/keys/{unseen.id}/disable")
        assert b"Traceback" not in node.output


@only_sqlite
async def test_a_file_that_another_process_has_locked_is_done_without_and_found_again(store_url: URL) -> None:
    """SQLite itself tries for ten seconds to read such a file, whatever the timeout is."""
    async with nodes(store_url, count=1, **IMPATIENT) as (node,):
        admin = Admin(node.port)
        unseen = await admin.make_key()
        async with in_use(node, admin):
            async with locked(store_url, "everything"):
                await until_up(node, wanted=False, within_s=15.0)
                answers = asyncio.gather(call(node.port, unseen.secret), admin.ask("GET", "/keys"))
                for answer in await answers:
                    assert_is_503(answer)
            await assert_heals(node, admin, unseen)
        assert_log_is_clean(node)
