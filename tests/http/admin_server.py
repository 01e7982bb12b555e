"""The admin API alone, on loopback, on a store of its own: a thread, a loop, uvicorn as in production.

Keys are looked up afresh for each request, so that a change is in force for the next one; where it is asked for, they
are remembered instead, and nobody tells of changes: a node that has not heard of them yet.
"""

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx2
import uvicorn
from fastapi import FastAPI, Request
from sqlalchemy import URL

from gateway.access.administration import Administration
from gateway.access.directory import KeyDirectory
from gateway.access.first_start import first_start
from gateway.access.records import Actor
from gateway.http.admin import PREFIX, LedgerDesk, admin_app
from gateway.http.admin.principals import authenticator
from gateway.http.routes import ROUTES
from gateway.http.server import server_config
from gateway.metering.ledger_queries import LedgerQueries
from gateway.metering.rollups import Days
from gateway.settings import Server
from gateway.store.engine import Store

Reply = httpx2.Response


class _Uvicorn(uvicorn.Server):
    """Says when it listens, and waits to be told, where uvicorn looks ten times a second."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening, self.told = threading.Event(), asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    async def main_loop(self) -> None:
        await self.told.wait()


class Client:
    """Asks the admin API with one key."""

    def __init__(self, url: str, secret: str | None) -> None:
        headers = {} if secret is None else {"authorization": f"Bearer {secret}"}
        self._client = httpx2.Client(base_url=url + PREFIX, headers=headers, timeout=10, trust_env=False)

    def get(self, path: str, **parameters: Any) -> Reply:
        return self._client.get(path, params=parameters or None)

    def post(self, path: str, body: object = None, **headers: str) -> Reply:
        return self._send("POST", path, body, headers)

    def patch(self, path: str, body: object, **headers: str) -> Reply:
        return self._send("PATCH", path, body, headers)

    def send(self, method: str, path: str, content: bytes, **headers: str) -> Reply:
        return self._client.request(method, path, content=content, headers=_named(headers))

    def close(self) -> None:
        self._client.close()

    def _send(self, method: str, path: str, body: object, headers: dict[str, str]) -> Reply:
        if body is None:
            return self._client.request(method, path, headers=_named(headers))
        # The client's own encoder refuses what a hostile client would send.
        return self.send(method, path, json.dumps(body).encode(), content_type="application/json", **headers)


def _named(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


class AdminServer:
    """`secret` is the admin key of the first start; `admin` asks with it."""

    def __init__(self, url: URL, listener: socket.socket, *, remembers: bool = False) -> None:
        self.database = url
        self._remembers = remembers
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self.secret = ""
        self.uses: dict[str, int] = {}
        """When each key was used last, Unix time."""
        self._clients: list[Client] = []
        self._listener = listener
        self.uvicorn = _Uvicorn(server_config(self._app(), Server()))
        self.loop: asyncio.AbstractEventLoop | None = None

    def _app(self) -> FastAPI:
        store = Store(self.database)
        groups = frozenset(route.group for route in ROUTES)
        administration = Administration(store, on_change=None, route_groups=groups)
        remembering = KeyDirectory(store)

        async def authenticate(request: Request) -> Actor:
            directory = remembering if self._remembers else KeyDirectory(store)
            return await authenticator(directory, administration, (), self.uses.__setitem__)(request)

        @contextlib.asynccontextmanager
        async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, Any]]:
            self.secret = await first_start(store) or ""
            yield {"limits": Server()}
            await store.close()

        days = Days()
        desk = LedgerDesk(store, days, LedgerQueries(store, days))
        return admin_app(administration, authenticate, desk=desk, lifespan=lifespan)

    def run(self) -> None:
        async def main() -> None:
            self.loop = asyncio.get_running_loop()
            await self.uvicorn.serve(sockets=[self._listener])

        asyncio.run(main())

    def stop(self) -> None:
        for client in self._clients:
            client.close()
        assert self.loop is not None
        self.loop.call_soon_threadsafe(self.uvicorn.told.set)

    def client(self, secret: str | None) -> Client:
        """One that asks with `secret`, or with no key."""
        self._clients.append(Client(self.url, secret))
        return self._clients[-1]

    @property
    def admin(self) -> Client:
        return self.client(self.secret)


@contextlib.contextmanager
def administered(url: URL, *, remembers: bool = False) -> Iterator[AdminServer]:
    """An admin API on the store at `url`, which has the schema; gone at the end.

    `secret` is empty where the store has an admin key already. `remembers`: no key is looked up twice.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = AdminServer(url, listener, remembers=remembers)
        thread = threading.Thread(target=server.run, name="admin")
        thread.start()
        try:
            if not server.uvicorn.listening.wait(10):
                raise AssertionError("the admin API did not start")
            yield server
        finally:
            server.stop()
            thread.join(10)
            assert not thread.is_alive(), "the admin API did not stop"


def made(reply: Reply) -> dict[str, Any]:
    """The object that a create replied with."""
    assert reply.status_code == 201, reply.text
    body: dict[str, Any] = reply.json()
    return body


def assert_refused(reply: Reply, status: int, code: str | None = None, param: str | None = None) -> str:
    """The message, once the rest of the error is in OpenAI's shape and as given."""
    error = reply.json()["error"]
    assert (reply.status_code, error["code"]) == (status, code), error
    assert set(error) == {"message", "type", "param", "code"}
    assert reply.headers["x-request-id"].startswith("req_")
    assert param is None or error["param"] == param, error
    message = str(error["message"])
    assert message.endswith(".")
    return message
