"""What a request to the admin API costs before it is refused: who may not ask is not read, and nobody at length."""

import json
import socket
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from gateway.http.admin.requests import KeyCreate, KeyUpdate, TeamCreate, TeamUpdate
from tests.http.admin_server import AdminServer, assert_refused, made

MOST_BYTES = 64 * 1024
FOR_TEAM_ADMINS = [("POST", "/keys"), ("PATCH", "/keys/x"), ("PATCH", "/teams/x"), ("POST", "/import")]
FOR_ADMINS = [("POST", "/teams"), ("POST", "/limits/reset")]
MANY: dict[str, object] = {
    "models": {"grants": {"models": [1] * 32_000}},
    "routes": {"grants": {"routes": [[]] * 20_000}},
    "networks": {"grants": {"networks": [None] * 13_000}},
    "tags": {"tags": {str(number): number for number in range(250)}},
    "model_limits": {"model_limits": {str(number): {"x": 1, "y": 2} for number in range(250)}},
}


def _first_bytes(server: AdminServer, secret: str, method: str, path: str) -> bytes:
    """Of the reply to a head whose body does not come: what it is, if nobody waits for the body."""
    head = (
        f"{method} /admin/v1{path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {secret}\r\n"
        "Content-Type: application/json\r\nContent-Length: 1000\r\nExpect: 100-continue\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])), timeout=10) as connection:
        connection.sendall(head.encode())
        return connection.recv(12)


def test_who_may_not_ask_is_refused_before_their_body_is_read(server: AdminServer) -> None:
    made(server.admin.post("/teams", {"name": "engines"}))
    member = made(server.admin.post("/keys", {"team": "engines", "name": "ada"}))["secret"]
    lead = made(server.admin.post("/keys", {"team": "engines", "name": "bob", "role": "team_admin"}))["secret"]
    for method, path in (*FOR_TEAM_ADMINS, *FOR_ADMINS):
        assert _first_bytes(server, member, method, path) == b"HTTP/1.1 403", path
    for method, path in FOR_ADMINS:
        assert _first_bytes(server, lead, method, path) == b"HTTP/1.1 403", path
    for method, path in FOR_TEAM_ADMINS:
        assert _first_bytes(server, lead, method, path) == b"HTTP/1.1 100", path


def test_a_body_is_bounded_and_only_an_import_may_be_long(server: AdminServer) -> None:
    for method, path in (("POST", "/keys"), ("PATCH", "/teams/x"), ("POST", "/me/rotate")):
        reply = server.admin.send(method, path, b" " * (MOST_BYTES + 1), content_type="application/json")
        assert str(MOST_BYTES) in assert_refused(reply, 413, "request_too_large")
    document = json.dumps({"teams": []}).encode().ljust(1024 * 1024)
    assert server.admin.send("POST", "/import", document, content_type="application/json").status_code == 200
    reply = server.admin.send("POST", "/import", document + b" ", content_type="application/json")
    assert_refused(reply, 413, "request_too_large")


def test_an_object_of_too_many_members_is_refused_as_one(server: AdminServer) -> None:
    members = {f"member {number}": number for number in range(3000)}
    for path in ("/teams", "/me/rotate"):
        assert "256 members" in assert_refused(server.admin.post(path, members), 400)
    assert "256 members" in assert_refused(server.admin.post("/teams", {"name": "x", "model_limits": members}), 400)


@pytest.mark.parametrize("model", [TeamCreate, TeamUpdate, KeyCreate, KeyUpdate], ids=lambda model: model.__name__)
@pytest.mark.parametrize("body", MANY.values(), ids=MANY)
def test_what_is_wrong_a_thousand_times_costs_no_more_than_what_is_wrong_once(
    model: type[BaseModel], body: dict[str, Any]
) -> None:
    with pytest.raises(ValidationError) as refusal:
        model.model_validate({"name": "x", "team": "x", **body})
    assert refusal.value.error_count() < 5
