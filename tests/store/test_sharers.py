"""Gateways on one PostgreSQL database know of each other by the names of their connections."""

import contextlib
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import URL, text

from gateway.store.engine import Store
from gateway.store.sharers import Sharers, name_of, named, others
from gateway.store.url import parse
from tests.support.stores import fresh_postgres_url, fresh_sqlite_url


@contextlib.asynccontextmanager
async def serving_from(folder: str, url: URL) -> AsyncIterator[Store]:
    """A store as a gateway on this folder has it, which has just been asked something."""
    store = Store(named(url, name_of(folder)))
    try:
        async with store.reading() as connection:
            await connection.execute(text("SELECT 1"))
        yield store
    finally:
        await store.close()


def seen_from(folder: str) -> str:
    return name_of(folder).removeprefix("gmi-gateway serve ")


async def until_alone(store: Store) -> None:
    """Connections that were closed are gone when the server has noticed."""
    async with store.reading() as connection:
        await connection.execute(
            text(
                "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        )


async def test_gateways_on_folders_of_their_own_see_each_other_and_no_command() -> None:
    url = fresh_postgres_url()
    async with serving_from("a", url) as first, serving_from("b", url), serving_from("b", url):
        command = Store(url)
        async with command.reading():
            assert await others(first, name_of("a")) == [seen_from("b")]
            assert sorted(await others(command, name_of("c"))) == sorted([seen_from("a"), seen_from("b")])
        await command.close()


async def test_workers_of_one_gateway_are_one_and_other_databases_are_no_matter() -> None:
    url = fresh_postgres_url()
    async with serving_from("a", url) as first, serving_from("a", url), serving_from("b", fresh_postgres_url()):
        assert await others(first, name_of("a")) == []


async def test_one_that_has_said_nothing_for_long_is_there_no_more() -> None:
    url = fresh_postgres_url()
    async with serving_from("a", url) as first, serving_from("b", url):
        assert await others(first, name_of("a"), alive_s=0) == []


async def test_on_sqlite_nobody_is_asked_for(tmp_path: Path) -> None:
    async with serving_from("a", fresh_sqlite_url(tmp_path)) as store:
        assert await others(store, name_of("b")) == []


async def test_whoever_comes_is_told_once_and_so_is_that_all_have_left(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gateway")
    url = fresh_postgres_url()

    def told() -> list[str]:
        messages = [record.getMessage() for record in caplog.records]
        caplog.clear()
        return messages

    async with serving_from("a", url) as first:
        sharers = Sharers(first, name_of("a"))
        await sharers.look()
        assert told() == []
        async with serving_from("b", url):
            await sharers.look()
            await sharers.look()
            (line,) = told()
            assert line == (
                f"Another gateway uses this database ({seen_from('b')}): without redis.url each admits all that limits"
                " allow. Set redis.url for each, or stop all but one."
            )
            async with serving_from("c", url):
                await sharers.look()
                assert [seen_from("c") in line for line in told()] == [True]
        await until_alone(first)
        await sharers.look()
        assert told() == ["No other gateway uses this database any more."]


def test_a_name_fits_into_what_postgresql_keeps_and_one_in_the_url_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "h\u00f6\udcff" * 30)
    assert len(name_of("a").encode("ascii")) == 63
    assert name_of("a") != name_of("b")
    url = parse("postgresql://gateway@db/gateway?application_name=mine")
    assert named(url, name_of("a")) == url
