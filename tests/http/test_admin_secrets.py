"""A secret is in the one reply that makes it; its digest is in none, nor in a log, a page or an error."""

import base64
import io
import json
import logging
import re
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx2
import pytest

from gateway.access.keys import PREFIX
from tests.http.admin_server import AdminServer, made

_SECRET = re.compile(PREFIX + r"[0-9A-Za-z]{10,}")


def spellings(secret: str) -> list[str]:
    """The secret and its digest, in whatever way they may be written."""
    digest = sha256(secret.encode()).digest()
    return [secret, secret[len(PREFIX) : -6], digest.hex(), base64.b64encode(digest).decode(), repr(digest)]


def assert_free(text: str, secrets: list[str], where: str) -> None:
    for secret in secrets:
        for spelling in spellings(secret):
            assert spelling not in text, where


def test_no_other_reply_holds_a_secret_or_a_digest(
    server: AdminServer, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.DEBUG)
    admin = server.admin
    admin.post("/teams", {"name": "engines"})
    created = made(admin.post("/keys", {"team": "engines", "name": "ada"}, idempotency_key="one"))
    rotated = admin.post(f"/keys/{created['id']}/rotate", {"grace_s": 60}).json()
    imported = admin.send(
        "POST", "/import", b"teams: [{name: engines, keys: [{name: eve}]}]", content_type="application/yaml"
    ).json()
    secrets = [server.secret, created["secret"], rotated["secret"], imported["made_keys"][0]["secret"]]
    assert all(map(_SECRET.fullmatch, secrets))
    replies = [
        admin.post("/keys", {"team": "engines", "name": "ada"}, idempotency_key="one"),
        admin.post("/keys", {"team": "engines", "name": "ada"}),
        *(admin.get(path) for path in ("/keys", "/teams", "/audit", "/me", "/export", f"/keys/{created['id']}")),
        admin.patch(f"/keys/{created['id']}", {"secret": secrets[1]}),
        admin.post(f"/keys/{created['id']}/revoke"),
        server.client(secrets[1] + "x").get("/me"),
        server.client(secrets[1]).get("/keys"),
    ]
    for reply in replies:
        assert_free(reply.text + str(reply.headers), secrets, str(reply.request.url))
    assert_free(caplog.text, secrets, "log")
    assert_free(repr(server.uvicorn.config.loaded_app), secrets, "repr")
    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir()).decode("latin-1")
    for secret in secrets:
        assert secret not in stored


def test_the_description_of_the_api_holds_no_secret(server: AdminServer) -> None:
    for path in ("/openapi.json", "/docs"):
        page = httpx2.get(server.url + path, trust_env=False)
        assert page.status_code == 200
        assert _SECRET.search(page.text) is None
        assert_free(page.text, [server.secret], path)


def test_a_bug_shows_nothing_of_a_request(server: AdminServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: Any) -> None:
        raise KeyError("something")

    monkeypatch.setattr("gateway.http.admin.keys.show_issued", fails)
    log = io.StringIO()
    handler = logging.StreamHandler(log)
    logging.getLogger().addHandler(handler)
    try:
        reply = server.admin.post("/me/rotate")
    finally:
        logging.getLogger().removeHandler(handler)
    assert reply.status_code == 500
    assert reply.json()["error"]["code"] == "internal_error"
    assert "something" not in reply.text
    assert_free(log.getvalue(), [server.secret], "traceback")
    assert _SECRET.search(log.getvalue()) is None


def test_the_reply_of_a_dry_run_holds_no_secret(server: AdminServer) -> None:
    document = json.dumps({"teams": [{"name": "engines", "keys": [{"name": "eve"}]}]}).encode()
    reply = server.admin.send("POST", "/import?dry_run=true", document, content_type="application/json")
    assert reply.json()["made_keys"][0]["secret"] is None
    assert server.admin.get("/teams", name="engines").json()["data"] == []
