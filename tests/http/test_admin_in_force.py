"""What an admin is told is done, is in force where it was asked for."""

from collections.abc import Callable, Iterator
from hashlib import sha256
from typing import Any

import httpx2
import pytest

from gateway.simulator import running_simulator
from tests.http.admin_server import Client, made
from tests.support.gateway import UPSTREAM_KEY, RunningGateway, running_gateway

TIMES = 10
ENDS: dict[str, Callable[[Client, dict[str, Any]], object]] = {
    "revoke": lambda admin, key: admin.post(f"/keys/{key['id']}/revoke"),
    "disable": lambda admin, key: admin.post(f"/keys/{key['id']}/disable"),
    "rotate": lambda admin, key: admin.post(f"/keys/{key['id']}/rotate"),
    "narrow": lambda admin, key: admin.patch(f"/keys/{key['id']}", {"grants": {"routes": ["chat"]}}),
    "disable the team": lambda admin, key: admin.post(f"/teams/{key['team_id']}/disable"),
}


@pytest.fixture(scope="module")
def gateway() -> Iterator[RunningGateway]:
    with running_simulator(api_key=UPSTREAM_KEY) as base_url, running_gateway(base_url, keys=[]) as running:
        yield running


@pytest.mark.parametrize("end", ENDS)
def test_the_first_call_after_the_admin_was_told_is_refused(gateway: RunningGateway, end: str) -> None:
    admin = Client(gateway.url, gateway.admin_secret)
    statuses = []
    with httpx2.Client(base_url=gateway.api, timeout=10) as caller:
        for number in range(TIMES):
            team = made(admin.post("/teams", {"name": f"{end} {number}"}))
            key = made(admin.post("/keys", {"team": team["id"], "name": "ada"}))
            headers = {"authorization": f"Bearer {key['secret']}"}
            assert caller.get("/models", headers=headers).status_code == 200
            ENDS[end](admin, key)
            statuses.append(caller.get("/models", headers=headers).status_code)
    admin.close()
    assert statuses == [403 if end == "narrow" else 401] * TIMES


def test_a_secret_of_any_form_that_was_imported_works_in_the_first_call_after(gateway: RunningGateway) -> None:
    admin, secret = Client(gateway.url, gateway.admin_secret), "sk-of-another-make"
    with httpx2.Client(base_url=gateway.api, timeout=10, headers={"authorization": f"Bearer {secret}"}) as caller:
        assert caller.get("/models").status_code == 401
        key = f"{{name: ada, secret_sha256: {sha256(secret.encode()).hexdigest()}}}"
        document = f"teams: [{{name: movers, keys: [{key}]}}]".encode()
        reply = admin.send("POST", "/import", document, content_type="application/yaml")
        assert [made["secret"] for made in reply.json()["made_keys"]] == [None]
        assert caller.get("/models").status_code == 200
    exported = admin.get("/export", with_digests="true").text
    assert sha256(secret.encode()).hexdigest() in exported
    assert "sha256" not in admin.get("/export").text
    admin.close()
