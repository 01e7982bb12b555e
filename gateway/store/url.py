"""Which database: the settings' URL in the form that SQLAlchemy takes, and in a form that can be shown.

Knows the schemes, and what of a libpq URL the driver does not take (PostgreSQL's manual, section 34.1.1). Opens
nothing.
"""

from pathlib import Path

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from gateway.settings import Settings

FILE_NAME = "gateway.db"

_SQLITE, _POSTGRESQL = "sqlite+aiosqlite", "postgresql+asyncpg"
_DRIVERS = {"sqlite": _SQLITE, "postgresql": _POSTGRESQL, "postgres": _POSTGRESQL}

_SSL_MODES = frozenset({"disable", "allow", "prefer", "require", "verify-ca", "verify-full"})
_SWITCHES = {"true": "require", "1": "require", "on": "require", "false": "disable", "0": "disable", "off": "disable"}
_DRIVERS_OWN = frozenset(
    {
        "connect_timeout",
        "gssencmode",
        "keepalives",
        "keepalives_count",
        "keepalives_idle",
        "keepalives_interval",
        "tcp_user_timeout",
    }
)
"""What libpq would obey and asyncpg would send to the server as a setting, which refuses it."""


class BadDatabaseUrl(ValueError):
    """`database.url` cannot be used. The message never quotes it, since it may hold a password."""


def database_url(settings: Settings) -> URL:
    """The database of `settings`: `database.url`, or by default `gateway.db` in `server.state_dir`.

    Raises BadDatabaseUrl.
    """
    if settings.database.url is None:
        return URL.create(_SQLITE, database=str(Path(settings.server.state_dir) / FILE_NAME))
    return parse(settings.database.url)


def parse(text: str) -> URL:
    """`postgresql://…`, `postgres://…` or `sqlite:///path` with the driver filled in. Raises BadDatabaseUrl."""
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise BadDatabaseUrl("the database URL cannot be read; write postgresql://user:password@host/name") from None
    scheme = url.drivername.partition("+")[0]
    if scheme not in _DRIVERS:
        raise BadDatabaseUrl("the database URL must start with postgresql:// or sqlite:///")
    url = url.set(drivername=_DRIVERS[scheme])
    return _checked_sqlite(url) if is_sqlite(url) else _checked_postgresql(url)


def shown(url: URL) -> str:
    """The URL for people: without password, parameters and driver, and with a file's full path."""
    if is_sqlite(url):
        url = url.set(database=str(file_of(url)))
    return url.set(drivername=url.get_backend_name(), query={}).render_as_string(hide_password=True)


def is_sqlite(url: URL) -> bool:
    """Whether it is a file; it is a PostgreSQL server otherwise."""
    return url.drivername == _SQLITE


def file_of(url: URL) -> Path:
    """The full path of a SQLite database."""
    return Path(url.database or "").absolute()


def dsn(url: URL) -> str:
    """The URL as asyncpg reads it, password included."""
    return url.set(drivername="postgresql").render_as_string(hide_password=False)


def _checked_sqlite(url: URL) -> URL:
    if not url.database or url.database == ":memory:" or url.host:
        raise BadDatabaseUrl("a SQLite URL must name a file: sqlite:///relative/path or sqlite:////absolute/path")
    if url.query:
        raise BadDatabaseUrl("a SQLite URL takes no parameters after `?`")
    return url


def _checked_postgresql(url: URL) -> URL:
    if not url.database:
        raise BadDatabaseUrl("the database URL must name a database: postgresql://user:password@host/name")
    query = {name: value for name, value in url.query.items() if name not in _DRIVERS_OWN}
    if query.pop("channel_binding", "prefer") == "require":
        raise BadDatabaseUrl("channel_binding=require is more than the driver can do; sslmode=verify-full is as safe")
    mode = query.pop("ssl", None)
    if mode is not None:
        query.setdefault("sslmode", _SWITCHES.get(str(mode).lower(), mode))
    if query.get("sslmode", "prefer") not in _SSL_MODES:
        raise BadDatabaseUrl(f"sslmode must be one of {', '.join(sorted(_SSL_MODES))}")
    return url.set(query=query)
