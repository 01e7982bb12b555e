"""Whoever tries keys out learns nothing, costs no query where the checksum is wrong, and takes nothing from the others.

How long valid calls take meanwhile is measured by `python -m bench.wrong_keys`, not here.
"""

import asyncio
import itertools
import re
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg  # type: ignore[import-untyped]
from sqlalchemy import URL

from gateway.access.keys import new_secret
from gateway.store.url import dsn
from tests.faults.face import Answer, ask, connected, request
from tests.faults.nodes import Admin, Made, call, call_with, calling, delay_s, made, nodes
from tests.faults.process import GatewayProcess
from tests.support.stores import fresh_postgres_url, postgres_server

CONNECTIONS = 16
MOST_GROWTH_KIB = 8 * 1024
_REGULAR_A_SECOND = 4
"""Twice a second it looks for changes, and as often the ledger is written, however many calls there are."""

Refusal = tuple[int, bytes, tuple[tuple[str, str], ...]]


def refusal_of(answer: Answer) -> Refusal:
    """All of a reply but its ids."""
    kept = [(name, value) for name, value in answer.headers if name not in ("x-request-id", "x-gateway-request-id")]
    return answer.status, answer.body, tuple(kept)


def bad_checksums(count: int) -> Iterator[str]:
    """Keys that differ from a good one in their checksum alone."""
    right = new_secret()
    return (wrong for number in range(count) if (wrong := f"{right[:-6]}{number:06d}") != right)


async def flood(port: int, secrets: Iterable[str]) -> set[Refusal]:
    """Call with each of them once, on some connections at once; the different answers that came."""
    left = iter(secrets)
    return set().union(*await asyncio.gather(*(_call_with_each(port, left) for _ in range(CONNECTIONS))))


async def _call_with_each(port: int, secrets: Iterator[str]) -> set[Refusal]:
    refusals = set()
    async with connected(port) as client:
        for secret in secrets:
            client.send(call_with(secret))
            refusals.add(refusal_of(await client.answer(within_s=10.0)))
    return refusals


def peak_memory_kib(node: GatewayProcess) -> int:
    """VmHWM: the most that the process has ever had."""
    status = Path(f"/proc/{node.pid}/status").read_text(encoding="ascii")
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    assert found is not None
    return int(found[1])


async def look_ups(node: GatewayProcess) -> dict[str, int]:
    """`key_lookups_total` by result."""
    text = (await ask(node.port, request("GET", "/metrics"))).body.decode()
    found = re.findall(r'^gmi_gateway_key_lookups_total\{result="(\w+)"\} (\d+)$', text, re.MULTILINE)
    return {result: int(count) for result, count in found}


async def transactions(url: URL) -> int:
    """How many the server has counted in a database: each query of the directory's is one."""
    connection = await asyncpg.connect(dsn(postgres_server().url()))
    try:
        query = "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = $1"
        return int(await connection.fetchval(query, url.database))
    finally:
        await connection.close()


async def transactions_of(url: URL, work: Coroutine[Any, Any, object]) -> int:
    """How many `work` takes, but for what one node does regularly; a server writes its counts once a second."""
    await asyncio.sleep(1.5)
    before, started_at_s = await transactions(url), time.monotonic()
    await work
    await asyncio.sleep(1.5)
    return await transactions(url) - before - int((time.monotonic() - started_at_s) * _REGULAR_A_SECOND)


@asynccontextmanager
async def one_node_in_use(url: URL) -> AsyncIterator[tuple[GatewayProcess, Admin, Made]]:
    """A gateway, whose valid traffic goes on meanwhile, all of it answered with 200."""
    async with nodes(url, count=1) as (node,):
        admin = Admin(node.port)
        key = await admin.make_key()
        async with calling([node.port] * 2, key.secret, processes=1) as callers:
            yield node, admin, key
            await asyncio.gather(*(caller.until(200) for caller in callers))
            assert {each.status for caller in callers for each in caller.calls} == {200}


async def test_keys_with_a_wrong_checksum_are_refused_without_a_query_or_memory_and_valid_calls_go_on(
    *, is_long: bool
) -> None:
    url, count = fresh_postgres_url(), 100_000 if is_long else 5_000
    async with one_node_in_use(url) as (node, _, _):
        refusals = await flood(node.port, bad_checksums(1_000))
        before, peak_kib = await look_ups(node), peak_memory_kib(node)
        took = await transactions_of(url, _keep(refusals, flood(node.port, bad_checksums(count))))
        after = await look_ups(node)
        grown_kib = peak_memory_kib(node) - peak_kib
        print(f"{count} keys: {took} transactions beside polling, {grown_kib} KiB more")
        assert len(refusals) == 1
        assert after == {**before, "malformed": before["malformed"] + count}
        assert took <= 20, "what is regular is not exactly so"
        assert grown_kib < MOST_GROWTH_KIB


async def _keep(kept: set[Refusal], flooding: Coroutine[Any, Any, set[Refusal]]) -> None:
    kept |= await flooding


async def test_unknown_keys_take_a_query_at_most_and_bounded_memory_and_none_when_they_come_again(
    *, is_long: bool
) -> None:
    url, count = fresh_postgres_url(), 20_000 if is_long else 3_000
    async with one_node_in_use(url) as (node, _, _):
        refusals = await flood(node.port, [new_secret() for _ in range(1_000)])
        before, peak_kib = await look_ups(node), peak_memory_kib(node)
        unknown = [new_secret() for _ in range(count)]
        took = await transactions_of(url, _keep(refusals, flood(node.port, [*unknown, *unknown[-100:]])))
        after = await look_ups(node)
        grown_kib = peak_memory_kib(node) - peak_kib
        print(f"{count} keys: {took} transactions beside polling, {grown_kib} KiB more")
        assert len(refusals) == 1
        assert after["unknown"] == before["unknown"] + count
        assert after["unknown_again"] == before["unknown_again"] + 100
        assert took <= count + 20
        assert grown_kib < MOST_GROWTH_KIB


async def test_a_key_ends_within_a_second_while_unknown_ones_keep_the_database_busy(store_url: URL) -> None:
    async with nodes(store_url) as (one, two):
        admin = Admin(one.port)
        key = await admin.make_key()
        async with flooded(two.port), calling([one.port, two.port], key.secret, processes=2) as callers:
            delay = await delay_s(callers, await made(admin.do("POST", f"/keys/{key.id}/revoke")), 401)
            print(f"in force after {delay:.3f} s")


@asynccontextmanager
async def flooded(port: int) -> AsyncIterator[None]:
    """Unknown keys come all the time."""
    secrets = (new_secret() for _ in itertools.count())
    tasks = [asyncio.create_task(flood(port, secrets))]
    yield
    assert not tasks[0].done()
    tasks[0].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _ended(admin: Admin, path: str, body: object = None) -> str:
    key = await admin.make_key()
    await admin.do("POST", path.format(id=key.id, team=key.team), body)
    return key.secret


async def _expired(admin: Admin) -> str:
    key = await admin.make_key()
    ends_s = int(time.time()) + 3
    await admin.do("PATCH", f"/keys/{key.id}", {"expires_at": ends_s})
    await asyncio.sleep(ends_s - time.time() + 0.05)  # it ends by the clock
    return key.secret


BAD: dict[str, Callable[[Admin], Coroutine[Any, Any, str]]] = {
    "revoked": lambda admin: _ended(admin, "/keys/{id}/revoke"),
    "disabled": lambda admin: _ended(admin, "/keys/{id}/disable"),
    "rotated": lambda admin: _ended(admin, "/keys/{id}/rotate", {"grace_s": 0}),
    "of a disabled team": lambda admin: _ended(admin, "/teams/{team}/disable"),
    "expired": _expired,
}


async def test_every_kind_of_bad_key_gets_one_same_refusal_from_calls_and_from_administration(store_url: URL) -> None:
    async with nodes(store_url, count=1) as (node,):
        admin = Admin(node.port)
        bad = {kind: await make(admin) for kind, make in BAD.items()}
        bad |= {"unknown": new_secret(), "wrong": next(bad_checksums(1)), "long": "sk-gw-" + "a" * 5_000}
        async with asyncio.timeout(5):
            while (await call(node.port, bad["of a disabled team"])).status != 401:
                pass
        refusal = refusal_of(await call(node.port, "x"))
        assert refusal[0] == 401
        for _ in range(2):
            refusals = {kind: refusal_of(await call(node.port, secret)) for kind, secret in bad.items()}
            assert refusals == dict.fromkeys(bad, refusal)
        answers = [await Admin(node.port, secret).ask("GET", "/me") for secret in bad.values()]
        assert {(answer.status, answer.body) for answer in answers} == {refusal[:2]}
