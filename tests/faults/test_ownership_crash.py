"""A gateway that is killed right after it handed out an id: others still know whose the object is, or say nothing."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy import URL, text

from gateway.store.engine import Store
from tests.faults.face import Answer, Client, ask, connected, request
from tests.faults.process import GatewayProcess, serving
from tests.support.stores import fresh_postgres_url, fresh_sqlite_url
from tests.support.wire import Stall, Step, reply, sse

ADA, BOB, EVE = ("sk-test-ada-0123456789", "sk-test-bob-0123456789", "sk-test-eve-0123456789")
KEYS = [
    {"name": "ada", "team": "engines", "secret": ADA},
    {"name": "bob", "team": "engines", "secret": BOB},
    {"name": "eve", "team": "others", "secret": EVE},
]
JSON = [(b"Content-Type", b"application/json")]
STORED = reply(200, JSON, b'{"id":"resp_1","stored":true}')
PLAIN = reply(200, JSON, b'{"id":"resp_1"}')
CREATED = b'event: response.created\ndata: {"type":"response.created","response":{"id":"resp_1"}}\n\n'
STREAM: list[Step] = [*sse([CREATED], end=False), Stall()]
FOUND_WITHIN_S = 10.0


def own(key: str, method: str, path: str, body: bytes = b"") -> bytes:
    headers = [("Authorization", f"Bearer {key}"), ("Content-Type", "application/json")]
    return request(method, path, body, headers)


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> URL:
    return fresh_sqlite_url(tmp_path / "database") if request.param == "sqlite" else fresh_postgres_url()


@asynccontextmanager
async def node(database: URL, tmp_path: Path, *scripts: bytes | list[Step]) -> AsyncIterator[GatewayProcess]:
    """A process on the shared store and state, in front of an upstream of its own."""
    async with serving(
        *scripts,
        directory=tmp_path,
        GATEWAY_KEYS=json.dumps(KEYS),
        GATEWAY_DATABASE_URL=database.set(drivername=database.get_backend_name()).render_as_string(False),
        GATEWAY_SERVER_STATE_DIR=str(tmp_path / "state"),
    ) as process:
        yield process


@asynccontextmanager
async def nothing_written(database: URL) -> AsyncIterator[None]:
    """Meanwhile nobody else can write down in the database whose an object is."""
    store = Store(database)
    async with store.writing() as connection:
        if store.dialect == "postgresql":
            await connection.execute(text("LOCK TABLE owners IN EXCLUSIVE MODE"))
        yield
    await store.close()


async def kill(process: GatewayProcess) -> None:
    os.kill(process.pid, 9)
    await process.status()


async def until_found(process: GatewayProcess, key: str) -> Answer:
    """The object, for its owner; others are refused all the while."""
    async with asyncio.timeout(FOUND_WITHIN_S):
        while True:
            others, owners = await asyncio.gather(
                ask(process.port, own(EVE, "GET", "/v1/responses/resp_1")),
                ask(process.port, own(key, "GET", "/v1/responses/resp_1")),
            )
            assert (others.status, others.error["code"]) in ((404, "not_found"), (503, "store_unavailable"))
            if owners.status not in (404, 503):  # whose it is may have become known between the two
                assert (await ask(process.port, own(EVE, "GET", "/v1/responses/resp_1"))).status == 404
                return owners


async def made_by(client: Client, script: bytes | list[Step]) -> None:
    """Ask for a response, and wait until its id is here."""
    body = {"model": "m", "input": "a", "stream": script is STREAM}
    client.send(own(ADA, "POST", "/v1/responses", json.dumps(body).encode()))
    await client.head()
    await client.reader.readuntil(b"resp_1")


@pytest.mark.parametrize("script", [PLAIN, STREAM], ids=["plain", "stream"])
async def test_the_next_process_knows_what_the_killed_one_made(
    database: URL, tmp_path: Path, script: bytes | list[Step]
) -> None:
    async with (
        node(database, tmp_path, script) as first,
        connected(first.port) as client,
        nothing_written(database),
    ):
        await made_by(client, script)
        await kill(first)
    async with node(database, tmp_path, STORED) as second:
        assert (await until_found(second, BOB)).body == b'{"id":"resp_1","stored":true}'


async def test_a_process_that_was_there_all_the_time_takes_over(database: URL, tmp_path: Path) -> None:
    async with node(database, tmp_path, STORED) as other, node(database, tmp_path, PLAIN) as first:
        async with connected(first.port) as client, nothing_written(database):
            await made_by(client, PLAIN)
            await kill(first)
        assert (await until_found(other, ADA)).status == 200


async def test_two_processes_see_what_either_makes_at_once(database: URL, tmp_path: Path) -> None:
    async with node(database, tmp_path, STORED) as other, node(database, tmp_path, PLAIN) as first:
        async with connected(first.port) as client:
            await made_by(client, PLAIN)
        owners = await ask(other.port, own(BOB, "GET", "/v1/responses/resp_1"))
        others = await ask(other.port, own(EVE, "GET", "/v1/responses/resp_1"))
    assert (owners.status, others.status) == (200, 404)
