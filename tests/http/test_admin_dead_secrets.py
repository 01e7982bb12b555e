"""A secret that was replaced administers nothing, however early its request began and wherever it is sent."""

import contextlib
import json
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import URL

from tests.http.admin_server import AdminServer, administered, made

PATIENCE_S = 10
BACKDOOR = {"team": "engines", "name": "backdoor", "role": "admin"}


@pytest.fixture
def server(store_url: URL) -> Iterator[AdminServer]:
    with administered(store_url) as running:
        made(running.admin.post("/teams", {"name": "engines"}))
        yield running


def _key(server: AdminServer, **members: Any) -> dict[str, Any]:
    return made(server.admin.post("/keys", {"team": "engines", "name": "ada", **members}))


class HeldRequest:
    """A request whose head has come, and whose key was looked at; its body comes when `finish` is called."""

    def __init__(self, connection: socket.socket, body: bytes) -> None:
        self._connection = connection
        self._body = body

    def finish(self) -> tuple[int, dict[str, Any]]:
        """Status and JSON of the reply."""
        self._connection.sendall(self._body)
        with self._connection.makefile("rb") as replies:
            status = _head(replies)[0]
            return status, json.loads(replies.read())


def _head(replies: Any) -> tuple[int, list[bytes]]:
    lines = list(iter(replies.readline, b"\r\n"))
    return int(lines[0].split()[1]), lines


@contextlib.contextmanager
def held(server: AdminServer, path: str, secret: str, body: object = None) -> Iterator[HeldRequest]:
    """POST `path` up to its body: that the server asks for it says that it has looked at the key."""
    content = json.dumps({} if body is None else body).encode()
    head = (
        f"POST /admin/v1{path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {secret}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n"
        "Expect: 100-continue\r\nConnection: close\r\n\r\n"
    )
    port = int(server.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as connection:
        connection.sendall(head.encode())
        assert connection.recv(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
        yield HeldRequest(connection, content)


def test_a_rotation_that_was_begun_with_a_secret_that_died_since_takes_nobodys_key(server: AdminServer) -> None:
    key = _key(server)
    with held(server, "/me/rotate", key["secret"]) as request:
        new = server.admin.post(f"/keys/{key['id']}/rotate").json()["secret"]
        status, told = request.finish()
    assert (status, told["error"]["code"]) == (401, "invalid_api_key")
    assert server.client(new).get("/me").status_code == 200


def test_a_rotation_that_was_begun_with_a_secret_that_is_in_grace_since_takes_nobodys_key(server: AdminServer) -> None:
    key = _key(server)
    with held(server, "/me/rotate", key["secret"]) as request:
        new = server.admin.post(f"/keys/{key['id']}/rotate", {"grace_s": 600}).json()["secret"]
        status, told = request.finish()
    assert (status, told["error"]["code"]) == (403, "forbidden")
    assert "Send the newest secret" in told["error"]["message"]
    assert server.client(new).get("/me").status_code == 200


ENDS: dict[str, Callable[[AdminServer, str], Any]] = {
    "rotate": lambda server, path: server.admin.post(f"{path}/rotate"),
    "disable": lambda server, path: server.admin.post(f"{path}/disable"),
    "revoke": lambda server, path: server.admin.post(f"{path}/revoke"),
    "demote": lambda server, path: server.admin.patch(path, {"role": "member"}),
}


@pytest.mark.parametrize("end", ENDS)
def test_what_an_admin_began_before_their_key_ended_is_not_done(server: AdminServer, end: str) -> None:
    key = _key(server, role="admin")
    with held(server, "/keys", key["secret"], BACKDOOR) as request:
        assert ENDS[end](server, f"/keys/{key['id']}").status_code == 200
        status, _ = request.finish()
    assert status == (403 if end == "demote" else 401)
    assert server.admin.get("/keys", name="backdoor").json()["data"] == []


def test_what_was_begun_from_where_a_key_may_no_longer_be_used_is_not_done(server: AdminServer) -> None:
    key = _key(server)
    with held(server, "/me/rotate", key["secret"]) as request:
        server.admin.patch(f"/keys/{key['id']}", {"grants": {"networks": ["192.0.2.0/24"]}})
        status, told = request.finish()
    assert (status, told["error"]["code"]) == (403, "network_not_allowed")


@pytest.mark.parametrize("grace_s", [0, 600])
def test_a_node_that_has_not_heard_of_a_rotation_obeys_the_old_secret_no_more(
    server: AdminServer, store_url: URL, grace_s: int
) -> None:
    key = _key(server, role="admin")
    refusal = (401, "invalid_api_key") if grace_s == 0 else (403, "forbidden")
    with administered(store_url, remembers=True) as elsewhere:
        old = elsewhere.client(key["secret"])
        assert old.get("/me").status_code == 200
        new = server.admin.post(f"/keys/{key['id']}/rotate", {"grace_s": grace_s}).json()["secret"]
        for reply in (
            old.post("/me/rotate"),
            old.post("/keys", BACKDOOR),
            old.get("/keys"),
            old.get("/me"),
            old.get("/export"),
        ):
            assert (reply.status_code, reply.json()["error"]["code"]) == refusal
        assert elsewhere.client(new).get("/me").status_code == 200
    assert server.admin.get("/keys", name="backdoor").json()["data"] == []
