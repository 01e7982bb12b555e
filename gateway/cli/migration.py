"""`gmi-gateway migrate`: the database's schema, brought to where this version needs it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.api import NoStore, Refused
from gateway.cli.options import ConfigOption
from gateway.cli.printing import program, runnable
from gateway.errors import StoreUnavailable

if TYPE_CHECKING:
    from sqlalchemy import URL

    from gateway.settings import Settings


@contextmanager
def unusable(settings: "Settings") -> Iterator[None]:
    """Raises `Refused` for a database that cannot be used, with the reason."""
    # SQLAlchemy takes longer to import than all that other commands need.
    from gateway.store.migrate import SchemaError  # noqa: PLC0415
    from gateway.store.url import BadDatabaseUrl, database_url, shown  # noqa: PLC0415

    try:
        yield
    except BadDatabaseUrl as error:
        raise Refused(f"database.url {error}.") from None
    except StoreUnavailable as error:
        detail, name = f" ({error.detail})" if error.detail else "", shown(database_url(settings))
        raise Refused(f"The database {name} cannot be used{detail}. Run {program()} doctor.") from None
    except SchemaError as error:
        raise Refused(str(error)) from None


def place_of(settings: "Settings") -> str:
    """Where the database is, or would be, for people: of SQLite the file, else the URL. Raises `Refused`."""
    from gateway.store.url import database_url, file_of, is_sqlite, shown  # noqa: PLC0415 - as above

    with unusable(settings):
        url = database_url(settings)
    return str(file_of(url)) if is_sqlite(url) else shown(url)


def existing(settings: "Settings") -> str:
    """Where the database is that there is already, for people. Raises `Refused`."""
    from gateway.store.url import database_url, file_of, is_sqlite  # noqa: PLC0415 - as above

    where = place_of(settings)
    url = database_url(settings)
    if is_sqlite(url) and not file_of(url).exists():
        place = ("server", "state_dir") if settings.database.url is None else ("database", "url")
        raise NoStore(f"There is no database at {where}, where {'.'.join(place)} says. {_cure(settings, place)}")
    return where


def _cure(settings: "Settings", place: tuple[str, str]) -> str:
    from gateway.configuration import variable_of  # noqa: PLC0415 - as above

    setting, variable = ".".join(place), variable_of(place)
    if settings.database.url is None and not Path(settings.server.state_dir).is_absolute():
        here = "Run it in the folder where the gateway was started"
        return f"{here}, or set {setting} / {variable} to an absolute path, or ask the gateway with --url."
    return (
        f"Set {variable} as the gateway's start printed it, or ask it with --url; {program()} migrate makes a new one."
    )


async def migrated(settings: "Settings") -> "URL":
    """The URL of the database, once its schema is the newest. Raises `Refused`."""
    from gateway.store.migrate import migrate  # noqa: PLC0415 - as above
    from gateway.store.url import database_url  # noqa: PLC0415

    with unusable(settings):
        url = database_url(settings)
        await migrate(url)
    return url


def migrate(
    config: ConfigOption = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", metavar="", help="Print JSON, for scripts.")] = False,
) -> None:
    """Bring the database's schema to where this version needs it; `serve` does so too."""
    import asyncio  # noqa: PLC0415 - as above

    from gateway.cli.settings import load_or_exit  # noqa: PLC0415
    from gateway.store.migrate import head  # noqa: PLC0415
    from gateway.store.url import shown  # noqa: PLC0415

    settings = load_or_exit(config, {}, code=2).settings
    try:
        url = asyncio.run(migrated(settings))
    except Refused as refusal:
        typer.echo(runnable(refusal.message), err=True)
        raise typer.Exit(1) from None
    if as_json:
        typer.echo(json.dumps({"database": shown(url), "revision": head()}))
        return
    typer.echo(f"The schema of {shown(url)} is at revision {head()}.")
