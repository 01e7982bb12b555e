"""What is left of limits, who sees it, and that a reset gives all of it back, once and with a trace."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import URL

from gateway.access.records import Actor
from gateway.errors import StoreUnavailable
from gateway.http.admin import admin_app
from gateway.limits.memory import MemoryLimiter
from gateway.limits.overview import Overview
from gateway.limits.plan import Planner, Policy
from gateway.limits.spend import Spend
from gateway.terms import Limits
from tests.access.desk import ROOT, opened
from tests.faults.face import CHAT, Answer, ask, request
from tests.http.admin_server import AdminServer, Client, assert_refused, made
from tests.limits.servers import shared_server
from tests.support.gateway import RunningGateway, running_gateway
from tests.support.stores import fresh_sqlite_url
from tests.support.wire import WireUpstream, reply

USAGE = {"prompt_tokens": 8, "completion_tokens": 2, "total_tokens": 10}
OK = reply(200, [(b"content-type", b"application/json")], json.dumps({"id": "x", "usage": USAGE}).encode())
BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}).encode()
PRICES = """
unit: microusd_per_million_tokens
models: {m: {looked_up: 2026-11-22, input: 1_000_000, output: 1_000_000}}
"""
DEFAULTS = {"each_key": {"requests_per_hour": 60, "parallel": 4}, "each_team": {"tokens_per_day": 10_000}}
TEAM = {"name": "engines", "model_limits": {"a/b*": {"requests_per_hour": 5}}, "budgets": {"month_microusd": 500}}
KEY = {"team": "engines", "name": "ada", "budgets": {"total_microusd": 1000}}


class World:
    """A gateway with a team, whose key is Ada's, and one more; and who asks."""

    def __init__(self, gateway: RunningGateway) -> None:
        self.gateway = gateway
        self.clients: list[Client] = []
        self.calls = 0
        self.admin = self.as_key(gateway.admin_secret)
        self.team = made(self.admin.post("/teams", TEAM))
        self.key = made(self.admin.post("/keys", KEY))

    def as_key(self, secret: str | None) -> Client:
        self.clients.append(Client(self.gateway.url, secret))
        return self.clients[-1]

    def another(self, **members: Any) -> Client:
        return self.as_key(made(self.admin.post("/keys", {"team": "engines", "name": "bob", **members}))["secret"])

    async def call(self) -> Answer:
        headers = [("Authorization", f"Bearer {self.key['secret']}"), ("Content-Type", "application/json")]
        answer = await ask(self.gateway.port, request("POST", CHAT, BODY, headers))
        self.calls += 1
        await self.gateway.recorded(self.calls)
        return answer

    def left(self) -> dict[str, int]:
        """What is left for Ada's key, by whose, what and how long."""
        told = self.admin.get("/limits", key=self.key["id"]).json()["data"]
        return {"/".join(filter(None, (it["whose"], it["dimension"], it["period"]))): it["remaining"] for it in told}


@contextmanager
def world(upstream: str, folder: Path, **sections: Any) -> Iterator[World]:
    (folder / "prices.yaml").write_text(PRICES)
    sections = {"limits": DEFAULTS, "keys": [], "prices": {"file": str(folder / "prices.yaml")}, **sections}
    with running_gateway(f"{upstream}/v1", **sections) as gateway:
        there = World(gateway)
        try:
            yield there
        finally:
            for client in there.clients:
                client.close()


@pytest.fixture
def idle(tmp_path: Path) -> Iterator[World]:
    """Nobody calls, so there is no upstream."""
    with world("http://127.0.0.1:9", tmp_path) as there:
        yield there


async def test_an_admin_sees_all_that_binds_a_key_and_what_is_left_of_it(tmp_path: Path) -> None:
    async with WireUpstream(OK) as upstream:
        with world(upstream.url, tmp_path) as there:
            assert (await there.call()).status == 200
            told = there.admin.get("/limits", key=there.key["id"]).json()
    assert (told["object"], told["mode"]) == ("limits", "memory")
    shown = {(it["whose"], it["dimension"], it["period"]): it for it in told["data"]}
    assert {name: it["remaining"] for name, it in shown.items()} == {
        ("key", "requests", "hour"): 59,
        ("key", "parallel", None): 4,
        ("key", "budget", "total"): 990,
        ("team", "tokens", "day"): 9_990,
        ("team", "budget", "month"): 490,
        ("model", "requests", "hour"): 5,
    }
    requests = shown["key", "requests", "hour"]
    assert requests["id"] == f"{there.team['id']}/{there.key['id']}/requests/hour"
    assert (requests["limit"], requests["burst"], requests["shadow"]) == (60, 60, False)
    assert 0 < requests["resets_in_ms"] <= 60_000
    assert shown["model", "requests", "hour"]["model"] == "a/b*"
    assert shown["model", "requests", "hour"]["resets_in_ms"] == 0
    assert shown["team", "budget", "month"]["resets_in_ms"] > 0
    assert [shown[name]["resets_in_ms"] for name in shown if name[1:] in {("parallel", None), ("budget", "total")}] == [
        None,
        None,
    ]


def test_a_team_is_shown_without_its_keys_and_the_endpoint_to_admins_alone(tmp_path: Path) -> None:
    limits = {**DEFAULTS, "endpoint": {"requests_per_minute": 600}, "shadow": ["endpoint"]}
    with world("http://127.0.0.1:9", tmp_path, limits=limits) as there:
        by_name, by_id = (there.admin.get("/limits", team=it).json() for it in ("engines", there.team["id"]))
        assert {it["whose"] for it in by_name["data"]} == {"team", "model"}
        assert [it["id"] for it in by_id["data"]] == [it["id"] for it in by_name["data"]]
        (it,) = there.admin.get("/limits", endpoint="upstream").json()["data"]
        assert (it["whose"], it["remaining"], it["shadow"]) == ("endpoint", 600, True)
        assert_refused(there.admin.get("/limits", endpoint="elsewhere"), 404, "not_found", "endpoint")
        lead = there.another(role="team_admin")
        assert_refused(lead.get("/limits", endpoint="upstream"), 403, "forbidden")


def test_whoever_asks_sees_what_their_role_lets_them_see(idle: World) -> None:
    other = made(idle.admin.post("/teams", {"name": "others"}))
    eve = made(idle.admin.post("/keys", {"team": "others", "name": "eve"}))
    member, lead = idle.as_key(idle.key["secret"]), idle.another(role="team_admin")
    own = member.get("/me/limits").json()
    asked = member.get("/limits", key=idle.key["id"]).json()
    assert [it["id"] for it in own["data"]] == [it["id"] for it in asked["data"]]
    assert {it["whose"] for it in own["data"]} == {"key", "team", "model"}
    assert lead.get("/limits", key=idle.key["id"]).status_code == 200
    assert lead.get("/limits", team="engines").status_code == 200
    for client in (member, lead):
        assert_refused(client.get("/limits", key=eve["id"]), 404, "not_found")
        for whose in (eve, idle.key):
            assert_refused(client.post("/limits/reset", {"key": whose["id"]}), 403, "forbidden")
    assert_refused(member.get("/limits", team="engines"), 403, "forbidden")
    assert_refused(lead.get("/limits", team=other["id"]), 404, "not_found")
    assert idle.admin.get("/audit", action="limits").json()["data"] == []


def test_a_team_admin_frees_nobody_of_the_defaults_by_a_limit_that_takes_their_place(idle: World) -> None:
    boss = made(idle.admin.post("/keys", {"team": "engines", "name": "boss", "role": "team_admin"}))
    lead, free = idle.as_key(boss["secret"]), {"limits": {"requests_per_day": 10**9}}
    document = json.dumps({"teams": [{"name": "engines", "keys": [{"name": "new", **free}]}]}).encode()
    for refused in (
        lead.patch(f"/keys/{boss['id']}", free),
        lead.patch(f"/keys/{idle.key['id']}", free),
        lead.post("/keys", {"team": "engines", "name": "new", **free}),
        lead.send("POST", "/import", document, content_type="application/json"),
    ):
        assert "requests_per_hour must be set, to 60 at most" in assert_refused(refused, 403, "forbidden")
    waits = lead.patch(f"/keys/{boss['id']}", {"limits": {"max_wait_s": 600}})
    assert_refused(waits, 403, "forbidden", "limits.max_wait_s")
    assert lead.patch(f"/keys/{boss['id']}", {"limits": {"requests_per_hour": 59}}).status_code == 200
    assert lead.post("/keys", {"team": "engines", "name": "new"}).status_code == 403
    assert idle.admin.patch(f"/keys/{boss['id']}", free).status_code == 200


@pytest.mark.parametrize("named", [{}, {"key": "k", "team": "t"}, {"team": "t", "endpoint": "upstream"}])
def test_one_owner_of_limits_is_named_no_less_and_no_more(idle: World, named: dict[str, str]) -> None:
    assert "one of key and team" in assert_refused(idle.admin.get("/limits", **named), 400)
    assert_refused(idle.admin.post("/limits/reset", named), 400)


def test_a_reset_of_what_there_is_not_is_refused_by_its_name(idle: World) -> None:
    body = {"key": idle.key["id"], "dimension": "money"}
    assert_refused(idle.admin.post("/limits/reset", body), 400, param="dimension")


async def test_a_reset_gives_a_key_all_of_its_own_back_and_nothing_of_its_teams(tmp_path: Path) -> None:
    async with WireUpstream(OK) as upstream:
        with world(upstream.url, tmp_path, limits={"each_key": {"requests_per_hour": 2}}) as there:
            assert [(await there.call()).status for _ in range(3)] == [200, 200, 429]
            told = there.admin.post("/limits/reset", {"key": there.key["id"]}).json()["data"]
            assert {(it["whose"], it["remaining"]) for it in told} == {("key", 2), ("key", 1000)}
            assert there.left()["team/budget/month"] == 480
            assert [(await there.call()).status for _ in range(3)] == [200, 200, 429]
            (entry,) = there.admin.get("/audit", action="limits.reset").json()["data"]
    ids = {name: f"{there.team['id']}/{there.key['id']}/{name}" for name in ("requests/hour", "budget/total")}
    assert entry["object_id"] == there.key["id"]
    assert entry["team_id"] == there.team["id"]
    assert entry["before"] == {"name": "ada", "remaining": {ids["requests/hour"]: 0, ids["budget/total"]: 980}}
    assert entry["after"] == {"name": "ada", "remaining": {ids["requests/hour"]: 2, ids["budget/total"]: 1000}}


async def test_a_reset_of_one_kind_leaves_the_others_and_holds_for_the_next_process_too(tmp_path: Path) -> None:
    database = {"url": _text(fresh_sqlite_url(tmp_path))}
    async with WireUpstream(OK) as upstream:
        with world(upstream.url, tmp_path, database=database) as there:
            await there.call()
            told = there.admin.post("/limits/reset", {"team": "engines", "dimension": "budget"}).json()["data"]
            assert [(it["whose"], it["dimension"], it["remaining"]) for it in told] == [("team", "budget", 500)]
            left = there.left()
            assert (left["team/budget/month"], left["key/budget/total"], left["team/tokens/day"]) == (500, 990, 9_990)
            key, secret = there.key["id"], there.gateway.admin_secret
        with running_gateway(f"{upstream.url}/v1", keys=[], database=database) as gateway:
            client = Client(gateway.url, secret)
            told = client.get("/limits", key=key).json()["data"]
            client.close()
    assert {(it["whose"], it["remaining"]) for it in told if it["dimension"] == "budget"} == {
        ("team", 500),
        ("key", 990),
    }


async def test_in_redis_all_gateways_see_the_same_and_a_flush_forgets_no_spending(tmp_path: Path) -> None:
    server = shared_server("valkey")
    async with WireUpstream(OK) as upstream:
        with world(upstream.url, tmp_path, redis={"url": server.url}) as there:
            assert (await there.call()).status == 200
            assert there.admin.get("/limits", key=there.key["id"]).json()["mode"] == "exact"
            before = there.left()
            assert (before["key/requests/hour"], before["key/budget/total"]) == (59, 990)
            server.command("FLUSHALL")
            after = there.left()
            assert (after["key/requests/hour"], after["key/budget/total"]) == (60, 990)
            there.admin.post("/limits/reset", {"key": there.key["id"]})
            assert there.left()["key/budget/total"] == 1000


def test_on_a_store_by_itself_limits_cannot_be_seen_and_the_cure_is_told(server: AdminServer) -> None:
    key = server.admin.get("/me").json()["key"]["id"]
    for refused in (server.admin.get("/me/limits"), server.admin.post("/limits/reset", {"key": key})):
        message = assert_refused(refused, 409, "conflict")
        assert "--url http://127.0.0.1:8080" in message
        assert "redis.url" in message


class _AwayAtTheReset(Overview):
    """Can be asked; when it is told to reset, what counts is away."""

    async def reset(self, _: object) -> None:
        raise StoreUnavailable("Redis is away.")


async def test_a_reset_that_fails_is_in_the_audit_log_as_one(tmp_path: Path) -> None:
    async def authenticate(_: object) -> Actor:
        return ROOT

    async with opened(fresh_sqlite_url(tmp_path)) as desk:
        team = await desk.team("engines", limits=Limits(requests_per_hour=5))
        overview = _AwayAtTheReset(Planner(Policy()), MemoryLimiter(), Spend(desk.store), endpoints=())
        transport = httpx2.ASGITransport(admin_app(desk.do, authenticate, overview))
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost/admin/v1") as client:
            reply = await client.post("/limits/reset", json={"team": "engines"})
        assert_refused(reply, 503, "store_unavailable")
        told = (await desk.do.audit(ROOT)).items[:2]
    assert [(entry.action, entry.object_id) for entry in told] == [
        ("limits.reset_failed", team.id),
        ("limits.reset", team.id),
    ]


def _text(url: URL) -> str:
    return url.render_as_string(hide_password=False).replace("+aiosqlite", "")
