"""The schema is made once, however many start at a time; it is what the tables say, and can be taken back."""

import subprocess
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, inspect, text
from sqlalchemy.engine.interfaces import ReflectedIndex
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.errors import StoreUnavailable
from gateway.store import tables
from gateway.store.engine import Store
from gateway.store.migrate import (
    BASE,
    MIGRATIONS,
    SchemaError,
    SchemaIsNewer,
    downgrade,
    head,
    migrate,
    revision,
)
from gateway.store.url import parse
from tests.store.processes import run_at_once
from tests.store.rows import contents, fill
from tests.support.stores import empty_postgres_url, empty_sqlite_url, postgres_server


@asynccontextmanager
async def writing(url: URL) -> AsyncIterator[AsyncConnection]:
    store = Store(url)
    try:
        async with store.writing() as connection:
            yield connection
    finally:
        await store.close()


async def table_names(url: URL) -> set[str]:
    async with writing(url) as connection:
        return set(await connection.run_sync(lambda sync: inspect(sync).get_table_names()))


def test_the_head_is_the_one_that_alembic_finds() -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.set_main_option("path_separator", "os")
    script = ScriptDirectory.from_config(config)
    assert script.get_current_head() == head()
    assert {step.revision for step in script.walk_revisions()} == {
        path.name[1:5] for path in (MIGRATIONS / "versions").glob("v*.py")
    }


async def test_an_empty_database_gets_the_schema(empty_store_url: URL) -> None:
    assert await revision(empty_store_url) is None
    await migrate(empty_store_url)
    assert await revision(empty_store_url) == head()
    assert await table_names(empty_store_url) == {*tables.metadata.tables, "alembic_version"}


async def test_to_ask_for_the_revision_makes_no_file(tmp_path: Path) -> None:
    assert await revision(empty_sqlite_url(tmp_path)) is None
    assert list(tmp_path.iterdir()) == []  # noqa: ASYNC240 - nothing else runs on this loop


async def test_migrations_make_what_the_tables_say(store_url: URL) -> None:
    def differences(connection: Connection) -> Any:
        options = {"compare_type": True, "compare_server_default": True}
        return compare_metadata(MigrationContext.configure(connection, opts=options), tables.metadata)

    async with writing(store_url) as connection:
        assert await connection.run_sync(differences) == []


async def test_an_empty_database_gets_at_once_what_all_migrations_make(empty_store_url: URL) -> None:
    await migrate(empty_store_url)
    async with writing(empty_store_url) as connection:
        at_once = await connection.run_sync(everything)
    await downgrade(empty_store_url, BASE)
    async with writing(empty_store_url) as connection:
        # What is left after it makes the database one that is migrated step by step.
        assert await connection.run_sync(lambda sync: inspect(sync).get_table_names()) == ["alembic_version"]
    await migrate(empty_store_url)
    async with writing(empty_store_url) as connection:
        assert await connection.run_sync(everything) == at_once


def test_a_first_start_loads_no_alembic(tmp_path: Path) -> None:
    program = (
        "import asyncio, sys; from gateway.store.migrate import migrate; from gateway.store.url import parse;"
        f"asyncio.run(migrate(parse('sqlite:///{tmp_path}/gateway.db'))); print('alembic' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout == "False\n"


def everything(connection: Connection) -> dict[str, Any]:
    """The schema, what is in it, and what watches over it."""
    names = inspect(connection).get_table_names()
    watched = {
        "sqlite": "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' ORDER BY name",
        "postgresql": "SELECT tgname, pg_get_triggerdef(oid), pg_get_functiondef(tgfoid) FROM pg_trigger"
        " WHERE NOT tgisinternal ORDER BY tgname",
    }[connection.dialect.name]
    return {
        "details": details(connection, names),
        "rows": {name: connection.exec_driver_sql(f"SELECT * FROM {name}").all() for name in names},
        "triggers": connection.exec_driver_sql(watched).all(),
    }


def details(connection: Connection, names: Iterable[str]) -> dict[str, Any]:
    of = inspect(connection)
    return {
        name: (
            of.get_pk_constraint(name),
            of.get_foreign_keys(name),
            sorted(of.get_unique_constraints(name), key=str),
            sorted(map(in_words, of.get_indexes(name))),
            [(column["name"], str(column["type"]), column["nullable"]) for column in of.get_columns(name)],
        )
        for name in names
    }


def in_words(index: ReflectedIndex) -> str:
    options = {name: str(value) for name, value in index.get("dialect_options", {}).items()}
    return f"{index['name']} {index['column_names']} {index['unique']} {options}"


@pytest.mark.parametrize(
    ("to", "lost"),
    [
        ("0001", {"spend", "spend_batches", "alerts", "calls", "call_tags", "due_responses", "usage_days"}),
        ("0002", {"calls", "call_tags", "due_responses", "usage_days"}),
        ("0003", {"due_responses"}),
        ("0004", {"due_responses"}),
    ],
)
async def test_nothing_is_lost_on_the_way_down_and_up_again_but_what_came_later(
    empty_store_url: URL, to: str, lost: set[str]
) -> None:
    await migrate(empty_store_url)
    async with writing(empty_store_url) as connection:
        await fill(connection)
        before = await contents(connection)
    await downgrade(empty_store_url, to)
    await migrate(empty_store_url)
    async with writing(empty_store_url) as connection:
        assert await contents(connection) == before | {name: [] for name in lost}


async def test_base_is_an_empty_database_from_which_all_can_be_made_again(empty_store_url: URL) -> None:
    await migrate(empty_store_url)
    async with writing(empty_store_url) as connection:
        await fill(connection)
    await downgrade(empty_store_url, BASE)
    assert await table_names(empty_store_url) == {"alembic_version"}
    assert await revision(empty_store_url) is None
    await migrate(empty_store_url)
    async with writing(empty_store_url) as connection:
        assert set(map(len, (await contents(connection)).values())) == {0, 1}
        await fill(connection)


async def test_four_processes_that_start_at_once_make_one_schema(empty_store_url: URL) -> None:
    assert run_at_once(4, empty_store_url, "migrate") == [(0, "")] * 4
    async with writing(empty_store_url) as connection:
        assert (await connection.execute(text("SELECT id, value FROM revision"))).all() == [(1, 0)]


async def test_a_run_that_fails_leaves_nothing_behind(empty_store_url: URL) -> None:
    async with writing(empty_store_url) as connection:
        await connection.execute(text("CREATE TABLE owners (id INTEGER)"))
    with pytest.raises(Exception, match="owners"):
        await migrate(empty_store_url)
    assert await table_names(empty_store_url) == {"owners"}


async def test_a_database_of_a_newer_gateway_is_refused_and_left_alone(store_url: URL) -> None:
    async with writing(store_url) as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    for attempt in (migrate(store_url), downgrade(store_url, BASE)):
        with pytest.raises(SchemaIsNewer, match=f"its schema is 9999, and this one knows {head()} at most"):
            await attempt
    assert await revision(store_url) == "9999"


async def test_there_is_no_way_to_a_revision_that_nobody_knows(store_url: URL) -> None:
    with pytest.raises(SchemaError, match="no revision 0815"):
        await downgrade(store_url, "0815")


async def test_a_user_who_may_not_create_tables_is_told_so() -> None:
    url = empty_postgres_url()
    async with writing(url) as connection:
        await connection.execute(text("DROP ROLE IF EXISTS guest"))
        await connection.execute(text("CREATE ROLE guest LOGIN"))
    with pytest.raises(SchemaError, match="permission denied for schema public"):
        await migrate(url.set(username="guest"))


async def test_a_server_that_is_not_there_is_unavailable() -> None:
    url = parse("postgresql://postgres:canary@127.0.0.1:1/gateway")
    with pytest.raises(StoreUnavailable) as refusal:
        await migrate(url)
    assert "canary" not in refusal.value.message + refusal.value.detail


async def test_a_database_that_does_not_exist_is_unavailable() -> None:
    with pytest.raises(StoreUnavailable) as refusal:
        await migrate(postgres_server().url("nowhere"))
    assert refusal.value.detail == 'database "nowhere" does not exist'


async def test_a_file_that_is_no_database_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "gateway.db").write_bytes(b"not a database" * 100)
    with pytest.raises(StoreUnavailable) as refusal:
        await migrate(parse(f"sqlite:///{tmp_path}/gateway.db"))
    assert refusal.value.detail == "file is not a database"


async def test_a_folder_with_a_percent_sign_will_do(tmp_path: Path) -> None:
    await migrate(url := parse(f"sqlite:///{tmp_path}/100%25/gateway.db"))
    assert await revision(url) == head()
