"""Which store commands work on: the one that is there, and none is made by looking for it."""

import re
from pathlib import Path

import pytest

from tests.cli.conftest import answer, call, done, plain
from tests.support.stores import fresh_sqlite_url


@pytest.mark.parametrize(
    "words",
    [
        "keys list",
        "keys create --team engines --name ada",
        "keys export",
        "teams list",
        "teams create --name engines",
        "limits show --team engines",
        "audit",
    ],
)
def test_a_command_where_there_is_no_database_makes_none_and_says_where_it_looked(words: str, tmp_path: Path) -> None:
    result = call(*words.split())
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        f"There is no database at {tmp_path}/data/gateway.db, where server.state_dir says. Run it in the folder where"
        " the gateway was started, or set server.state_dir / GATEWAY_SERVER_STATE_DIR to an absolute path, or ask the"
        " gateway with --url.\n"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("keys create --team engines --name ada --rpm many", "--rpm: must be a whole number"),
        ("keys create --team engines --name ada --max-wait-s long", "--max-wait-s: must be whole seconds"),
        ("keys create --team engines --name ada --expires soon", "--expires: must be never"),
        ("keys update ada --budget-usd 5", "--budget-usd: must be dollars"),
        ("keys rotate ada --grace long", "--grace: must be"),
        ("teams create --name engines --tag a", "--tag: must be a name"),
        ("teams update engines --model-limit a", "--model-limit: must be a model"),
        ("audit --since lately", "--since: must be"),
        ("usage --tag a", "--tag: must be a name"),
        ("calls list --outcome odd", "--outcome: must be"),
        ("calls list --status 7", "--status: must be"),
    ],
)
def test_a_value_that_means_nothing_is_told_before_a_store_is_looked_for(words: str, said: str) -> None:
    result = call(*words.split())
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in plain(result.stderr)


def test_the_setting_that_names_the_missing_database_is_said(tmp_path: Path) -> None:
    result = call("keys", "list", GATEWAY_DATABASE_URL="sqlite:///else/where.db")
    assert result.exit_code == 2
    assert result.stderr.startswith(f"There is no database at {tmp_path}/else/where.db, where database.url says. ")
    assert "Set GATEWAY_DATABASE_URL as" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_doctor_makes_no_database_either_and_says_where_it_would_be(tmp_path: Path) -> None:
    result = call("doctor", "--port", "0")
    assert result.exit_code == 0
    assert f"✓ {tmp_path}/data can be written\n" in result.stdout
    assert f"the database sqlite:///{tmp_path}/data/gateway.db: it will be set up at start\n" in result.stdout
    assert list(tmp_path.iterdir()) == []


def test_migrate_makes_the_database_and_says_where_it_is(tmp_path: Path) -> None:
    said = done(call("migrate"))
    assert re.fullmatch(rf"The schema of sqlite:///{tmp_path}/data/gateway\.db is at revision \d{{4}}\.\n", said)
    assert (tmp_path / "data" / "gateway.db").exists()
    assert set(answer(call("migrate", "--json"))) == {"database", "revision"}


def test_commands_bring_an_old_schema_along_by_themselves(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "gateway.db").touch()
    assert answer(call("keys", "list", "--json")) == []


@pytest.mark.parametrize("words", ["tail", "usage reconcile export.csv"])
def test_what_reads_the_store_alone_says_which_that_is_where_a_gateway_is_named(words: str, tmp_path: Path) -> None:
    where = {"GATEWAY_URL": "http://127.0.0.1:9", "GATEWAY_ADMIN_KEY": "0123456789abcdef"}
    result = call(*words.split(), **where)
    assert result.exit_code == 2
    first, second = result.stderr.splitlines()
    store = f"{tmp_path}/data/gateway.db"
    assert first == f"This reads the store that the settings here name ({store}), and does not ask GATEWAY_URL."
    assert second.startswith(f"There is no database at {store}, ")
    assert "GATEWAY_URL" not in call(*words.split()).stderr
    assert call("calls", "list", **where).stderr.startswith("http://127.0.0.1:9 cannot be reached")


@pytest.mark.parametrize("words", ["teams show nobody", "keys show nobody"])
def test_what_is_not_found_is_said_with_the_store_that_was_looked_in(words: str, tmp_path: Path) -> None:
    fresh_sqlite_url(tmp_path / "data")
    result = call(*words.split())
    assert (result.exit_code, result.stdout) == (1, "")
    assert f" nobody in {tmp_path}/data/gateway.db. See gmi-gateway " in result.stderr
