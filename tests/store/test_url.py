"""Settings name a database in the words of libpq and SQLAlchemy; the driver gets what it takes."""

from pathlib import Path

import pytest

from gateway.settings import Settings
from gateway.store.url import BadDatabaseUrl, database_url, dsn, parse, shown

PASSWORD = "p@ss/w:rd"
QUOTED = "p%40ss%2Fw%3Ard"


def test_the_default_is_a_file_in_the_state_folder() -> None:
    settings = Settings.model_validate({"server": {"state_dir": "/var/lib/gateway"}})
    assert str(database_url(settings)) == "sqlite+aiosqlite:////var/lib/gateway/gateway.db"


def test_the_settings_url_is_taken_where_there_is_one() -> None:
    settings = Settings.model_validate({"database": {"url": "postgres://a@db/gateway"}})
    assert str(database_url(settings)) == "postgresql+asyncpg://a@db/gateway"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sqlite:///a/b.db", "sqlite+aiosqlite:///a/b.db"),
        ("sqlite:////a/b.db", "sqlite+aiosqlite:////a/b.db"),
        ("postgresql://h/n", "postgresql+asyncpg://h/n"),
        ("postgresql+psycopg://h/n", "postgresql+asyncpg://h/n"),
        ("postgres://u@h:5433/n?sslmode=require", "postgresql+asyncpg://u@h:5433/n?sslmode=require"),
        ("postgresql://h/n?ssl=true", "postgresql+asyncpg://h/n?sslmode=require"),
        ("postgresql://h/n?ssl=verify-full", "postgresql+asyncpg://h/n?sslmode=verify-full"),
        ("postgresql://h/n?ssl=0&sslmode=verify-ca", "postgresql+asyncpg://h/n?sslmode=verify-ca"),
        ("postgresql://h/n?connect_timeout=3&channel_binding=prefer", "postgresql+asyncpg://h/n"),
        ("postgresql:///n?host=/run/postgresql", "postgresql+asyncpg:///n?host=%2Frun%2Fpostgresql"),
    ],
)
def test_the_driver_is_filled_in_and_tls_is_asked_for_in_one_way(text: str, expected: str) -> None:
    assert parse(text).render_as_string(hide_password=False) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "mysql://h/n",
        "postgresql://h",
        "postgresql://h:port/n",
        "postgresql://h/n?sslmode=on",
        "postgresql://h/n?channel_binding=require",
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite://host/a.db",
        "sqlite:///a.db?mode=ro",
    ],
)
def test_what_cannot_be_used_is_refused(text: str) -> None:
    with pytest.raises(BadDatabaseUrl):
        parse(text)


@pytest.mark.parametrize(
    "text",
    ["mysql://u:{}@h/n", "postgresql://u:{}@h", "postgresql://u:{}@h:port/n", "postgresql://u:{}@h/n?sslmode=x"],
)
def test_a_refusal_never_holds_the_password(text: str) -> None:
    with pytest.raises(BadDatabaseUrl) as refusal:
        parse(text.format("canary"))
    assert "canary" not in str(refusal.value)
    assert refusal.value.__cause__ is None


def test_what_is_shown_has_neither_password_nor_parameters_nor_driver() -> None:
    url = parse(f"postgresql://u:{QUOTED}@h:5433/n?sslmode=require&sslpassword=canary")
    assert shown(url) == "postgresql://u:***@h:5433/n"
    assert shown(parse("sqlite:////a/gateway.db")) == "sqlite:////a/gateway.db"


def test_a_relative_file_is_shown_in_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert shown(parse("sqlite:///data/gateway.db")) == f"sqlite:///{tmp_path}/data/gateway.db"


def test_the_driver_reads_the_password_as_it_was_meant() -> None:
    url = parse(f"postgresql://u:{QUOTED}@h/n")
    assert url.password == PASSWORD
    assert dsn(url) == f"postgresql://u:{QUOTED}@h/n"
