"""What an admin changes through one process is in force in all others within a second, under load, caches hot.

A round makes each kind of change to a key of its own, all at about the same time, while each key is called with all
the time. The delays are printed: run it with `-s`, and with `--long` for more rounds.
"""

import asyncio
import os
import statistics
import sys
import time
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import Awaitable, Callable

import pytest
from sqlalchemy import URL

from tests.access.conftest import Valkey
from tests.faults.face import connected
from tests.faults.nodes import (
    IN_FORCE_S,
    Admin,
    Caller,
    Made,
    Moment,
    call,
    call_with,
    calling,
    delay_s,
    environment_for,
    made,
    nodes,
)
from tests.faults.process import ROOT
from tests.support.stores import fresh_postgres_url

Ports = list[int]
Change = Callable[[Admin, Made, list[Caller]], Awaitable[list[float]]]


async def _revoke(admin: Admin, key: Made, callers: list[Caller]) -> list[float]:
    return [await delay_s(callers, await made(admin.do("POST", f"/keys/{key.id}/revoke")), 401)]


async def _disable_and_enable(admin: Admin, key: Made, callers: list[Caller]) -> list[float]:
    off = await delay_s(callers, await made(admin.do("POST", f"/keys/{key.id}/disable")), 401)
    return [off, await delay_s(callers, await made(admin.do("POST", f"/keys/{key.id}/enable")), 200)]


async def _disable_and_enable_the_team(admin: Admin, key: Made, callers: list[Caller]) -> list[float]:
    off = await delay_s(callers, await made(admin.do("POST", f"/teams/{key.team}/disable")), 401)
    return [off, await delay_s(callers, await made(admin.do("POST", f"/teams/{key.team}/enable")), 200)]


async def _rotate(admin: Admin, key: Made, callers: list[Caller]) -> list[float]:
    asked_at_s = time.monotonic()
    new = await admin.do("POST", f"/keys/{key.id}/rotate", {"grace_s": 0})
    told = Moment(asked_at_s, time.monotonic())
    statuses = [(await call(port, new["secret"])).status for port in {caller.port for caller in callers}]
    assert set(statuses) == {200}, "the new secret works everywhere at once"
    return [await delay_s(callers, told, 401)]


async def _narrow_grants(admin: Admin, key: Made, callers: list[Caller]) -> list[float]:
    change = admin.do("PATCH", f"/keys/{key.id}", {"grants": {"models": ["zai/*"]}})
    return [await delay_s(callers, await made(change), 403)]


async def _narrow_the_teams_grants(admin: Admin, key: Made, callers: list[Caller]) -> list[float]:
    change = admin.do("PATCH", f"/teams/{key.team}", {"grants": {"routes": ["responses"]}})
    return [await delay_s(callers, await made(change), 403)]


async def _expire(admin: Admin, key: Made, callers: list[Caller]) -> list[float]:
    expires_at = int(time.time()) + 3
    asked_at_s = time.monotonic()
    await admin.do("PATCH", f"/keys/{key.id}", {"expires_at": expires_at})
    ends_at_s = time.monotonic() + expires_at - time.time()
    return [await delay_s(callers, Moment(asked_at_s, max(ends_at_s, time.monotonic())), 401)]


CHANGES: list[Change] = [
    _revoke,
    _disable_and_enable,
    _disable_and_enable_the_team,
    _rotate,
    _narrow_grants,
    _narrow_the_teams_grants,
    _expire,
]


async def _hold(change: Change, ports: Ports, processes: int) -> list[float]:
    """Make a change by way of the first port, while its key is called with on all; how long it took each time."""
    admin = Admin(ports[0])
    key = await admin.make_key()
    async with calling(ports, key.secret, processes=processes) as callers:
        return await change(admin, key, callers)


async def _round(ports: Ports, what: str, *, processes: int = 2) -> None:
    delays = await asyncio.gather(*(_hold(change, ports, processes) for change in CHANGES))
    all_s = [delay for own in delays for delay in own]
    print(f"{what}: {len(all_s)} changes, in force after {statistics.median(all_s):.3f} s, at most {max(all_s):.3f} s")


@pytest.mark.parametrize("has_redis", [False, True], ids=["polling", "redis"])
async def test_a_change_by_one_process_holds_in_the_others_within_a_second(
    store_url: URL, valkey: Valkey, *, has_redis: bool, is_long: bool
) -> None:
    redis_url = valkey.url if has_redis else None
    count = 3 if is_long else 2
    async with nodes(store_url, count=count, redis_url=redis_url) as running:
        for _ in range(8 if is_long else 1):
            what = f"{store_url.get_backend_name()}, redis {has_redis}"
            await _round([node.port for node in running], what, processes=count)


async def test_with_redis_stopped_in_between_changes_hold_within_a_second(
    store_url: URL, valkey: Valkey, *, is_long: bool
) -> None:
    async with nodes(store_url, redis_url=valkey.url) as running:
        ports = [node.port for node in running]
        for _ in range(3 if is_long else 1):
            stopped = asyncio.create_task(asyncio.to_thread(valkey.stop))
            await _round(ports, "redis stopped meanwhile")
            await stopped
            started = asyncio.create_task(asyncio.to_thread(valkey.start))
            await _round(ports, "redis started meanwhile")
            await started
        assert all(node.output.count(b"Redis is away") >= 1 for node in running)


async def test_with_a_redis_that_hangs_changes_hold_within_a_second(valkey: Valkey) -> None:
    async with nodes(fresh_postgres_url(), redis_url=valkey.url) as running:
        with valkey.frozen():
            await _round([node.port for node in running], "redis frozen")


async def test_a_change_by_one_worker_holds_in_the_others_within_a_second(
    store_url: URL, valkey: Valkey, *, is_long: bool
) -> None:
    async with nodes(store_url, count=1, redis_url=valkey.url, GATEWAY_SERVER_WORKERS="2") as (node,):
        for _ in range(8 if is_long else 1):
            await _round([node.port], "workers")
        node.terminate()
        await node.status()


async def _command(environment: dict[str, str], *arguments: str) -> None:
    """`gmi-gateway …`, in a process of its own."""
    command = (sys.executable, "-m", "gateway", *arguments)
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **environment}
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, env=env, stdout=PIPE, stderr=STDOUT)
    output, _ = await process.communicate()
    assert process.returncode == 0, output


async def test_a_change_by_the_command_line_holds_in_running_gateways_within_a_second(
    store_url: URL, valkey: Valkey
) -> None:
    async with nodes(store_url, redis_url=valkey.url) as running:
        environment = environment_for(store_url, valkey.url)
        key = await Admin(running[0].port).make_key()
        name = f"{key.team}/{key.name}"
        async with calling([node.port for node in running], key.secret, processes=2) as callers:
            for command, status in (("disable", 401), ("enable", 200), ("revoke", 401)):
                moment = await made(_command(environment, "keys", command, name))
                print(f"keys {command}: in force after {await delay_s(callers, moment, status):.3f} s")


@pytest.mark.parametrize("end", ["revoke", "disable", "rotate"])
async def test_a_head_that_was_accepted_before_is_refused_on_its_own_connection_once_its_key_has_ended(
    store_url: URL, end: str
) -> None:
    async with nodes(store_url, count=1) as (node,):
        admin = Admin(node.port)
        key = await admin.make_key()
        data = call_with(key.secret)
        async with connected(node.port) as client:
            for _ in range(10):
                client.send(data)
                assert (await client.answer()).status == 200
            await admin.do("POST", f"/keys/{key.id}/{end}")
            told_at_s = time.monotonic()
            statuses: list[int] = []
            while not statuses or statuses[-1] == 200:
                client.send(data)
                statuses.append((await client.answer()).status)
                assert time.monotonic() < told_at_s + IN_FORCE_S
            print(f"{end}: {len(statuses) - 1} calls were accepted after the admin was told")
            for _ in range(10):
                client.send(data)
                assert (await client.answer()).status == 401


async def test_when_a_key_was_last_used_is_shown_by_another_node_once_the_one_that_saw_it_has_stopped(
    store_url: URL, *, is_long: bool
) -> None:
    async with nodes(store_url) as (one, two):
        admin = Admin(two.port)
        key = await admin.make_key()
        assert (await admin.do("GET", f"/keys/{key.id}"))["last_used_at"] is None
        before_s = int(time.time())
        assert (await call(one.port, key.secret)).status == 200
        if is_long:
            async with asyncio.timeout(15):
                while (await admin.do("GET", f"/keys/{key.id}"))["last_used_at"] is None:  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
            before_s = int(time.time())
            assert (await call(one.port, key.secret)).status == 200
        of_an_admin = await admin.make_key()
        await Admin(one.port, of_an_admin.secret).do("GET", "/me")
        one.terminate()
        assert await one.status() == 0
        for used in (key, of_an_admin):
            last_used_at = (await admin.do("GET", f"/keys/{used.id}"))["last_used_at"]
            assert before_s <= last_used_at <= time.time()
