"""The admin API from without: objects, lists, conditions, repeats and refusals."""

import time
from collections.abc import Iterator

import pytest
from sqlalchemy import URL

from gateway.access.keys import is_well_formed
from tests.http.admin_server import AdminServer, Client, administered, assert_refused, made

TEAM = {"name": "engines"}
KEY = {"team": "engines", "name": "ada"}
ROUTES = [
    ("GET", "/teams"),
    ("POST", "/teams"),
    ("GET", "/teams/x"),
    ("PATCH", "/teams/x"),
    ("POST", "/teams/x/disable"),
    ("POST", "/teams/x/enable"),
    ("GET", "/keys"),
    ("POST", "/keys"),
    ("GET", "/keys/x"),
    ("PATCH", "/keys/x"),
    ("POST", "/keys/x/rotate"),
    ("POST", "/keys/x/disable"),
    ("POST", "/keys/x/enable"),
    ("POST", "/keys/x/revoke"),
    ("GET", "/limits"),
    ("POST", "/limits/reset"),
    ("GET", "/me/limits"),
    ("GET", "/audit"),
    ("GET", "/usage"),
    ("GET", "/me/usage"),
    ("GET", "/calls"),
    ("GET", "/calls/x"),
    ("GET", "/me/calls"),
    ("GET", "/me/calls/x"),
    ("GET", "/me"),
    ("POST", "/me/rotate"),
    ("GET", "/export"),
    ("POST", "/import"),
]


@pytest.fixture
def admin(server: AdminServer) -> Client:
    return server.admin


@pytest.fixture
def team_id(admin: Client) -> str:
    return str(made(admin.post("/teams", TEAM))["id"])


@pytest.fixture
def both(store_url: URL) -> Iterator[Client]:
    with administered(store_url) as running:
        yield running.admin


# --- who may


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_without_a_key_nothing_is_read_and_nothing_is_told(server: AdminServer, method: str, path: str) -> None:
    for content in (b"", b"{", b"x" * 2_000_000):
        reply = server.client(None).send(method, f"{path}?what=1", content, content_type="application/json")
        assert_refused(reply, 401)
    assert_refused(server.client("sk-gw-nobody").send(method, path, b""), 401, "invalid_api_key")


def test_a_member_sees_and_rotates_their_own_key_and_nothing_else(server: AdminServer, team_id: str) -> None:
    key = made(server.admin.post("/keys", KEY))
    member = server.client(key["secret"])
    assert member.get("/me").json()["key"]["id"] == key["id"]
    assert member.get("/me").json()["team"]["id"] == team_id
    assert member.get(f"/keys/{key['id']}").json()["name"] == "ada"
    assert_refused(member.post("/keys", {"team": "engines", "name": "x"}), 403, "forbidden")
    assert_refused(member.get("/keys/key_00000000000000000000"), 404, "not_found")
    rotated = member.post("/me/rotate").json()
    assert is_well_formed(rotated["secret"])
    assert_refused(member.get("/me"), 401, "invalid_api_key")
    assert server.client(rotated["secret"]).get("/me").status_code == 200


@pytest.mark.usefixtures("team_id")
@pytest.mark.parametrize("role", ["member", "team_admin", "admin"])
def test_a_secret_that_ends_with_its_grace_administers_nothing(server: AdminServer, role: str) -> None:
    key = made(server.admin.post("/keys", {**KEY, "role": role}))
    old, path = server.client(key["secret"]), f"/keys/{key['id']}"
    new = server.client(server.admin.post(f"{path}/rotate", {"grace_s": 60}).json()["secret"])
    for method, at in ROUTES:
        message = assert_refused(old.send(method, at.replace("/keys/x", path), b""), 403, "forbidden")
        assert "newest" in message
    assert new.get("/me").json()["key"]["version"] == 2
    assert new.post("/me/rotate").status_code == 200


@pytest.mark.usefixtures("team_id")
def test_a_key_that_administers_is_in_use(server: AdminServer) -> None:
    before = int(time.time())
    key = made(server.admin.post("/keys", KEY))
    assert key["id"] not in server.uses
    assert server.client(key["secret"]).get("/me").status_code == 200
    assert before <= server.uses[key["id"]] <= time.time()


def test_what_is_another_teams_is_refused_as_what_is_not_there(server: AdminServer, team_id: str) -> None:
    other = made(server.admin.post("/teams", {"name": "other"}))
    foreign = made(server.admin.post("/keys", {"team": "other", "name": "eve"}))
    lead = made(server.admin.post("/keys", {**KEY, "role": "team_admin"}))
    client = server.client(lead["secret"])
    assert client.get(f"/teams/{team_id}").status_code == 200
    for path, nowhere in (
        (f"/keys/{foreign['id']}", "/keys/key_00000000000000000000"),
        (f"/teams/{other['id']}", "/teams/team_00000000000000000000"),
    ):
        for method, suffix in (("GET", ""), ("POST", "/disable"), ("POST", "/enable")):
            refusals = [client.send(method, at + suffix, b"").json() for at in (path, nowhere)]
            if refusals[0]["error"]["code"] == "forbidden":
                continue
            assert refusals[0] == refusals[1]
            assert refusals[0]["error"]["code"] == "not_found"
    assert [key["name"] for key in client.get("/keys").json()["data"]] == ["ada"]
    assert [team["name"] for team in client.get("/teams").json()["data"]] == ["engines"]


# --- objects


def test_a_team_and_a_key_live_through_all_that_can_happen_to_them(both: Client) -> None:
    reply = both.post("/teams", {"name": "engines", "grants": {"models": ["openai/*"]}, "limits": {"parallel": 4}})
    team = made(reply)
    assert reply.headers["location"] == f"/admin/v1/teams/{team['id']}"
    assert (team["state"], team["version"], team["grants"]["models"]) == ("active", 1, ["openai/*"])
    key = made(both.post("/keys", {"team": team["id"], "name": "ada", "budgets": {"day_microusd": 5_000_000}}))
    path = f"/keys/{key['id']}"
    assert is_well_formed(key["secret"])
    changed = both.patch(
        path, {"owner": "ada@example.com", "budgets": {"day_microusd": None, "week_microusd": 7}}
    ).json()
    assert changed["budgets"]["day_microusd"] is None
    assert (changed["budgets"]["week_microusd"], changed["owner"], changed["version"]) == (7, "ada@example.com", 2)
    assert both.post(f"{path}/disable").json()["state"] == "disabled"
    assert both.post(f"{path}/enable").json()["state"] == "active"
    rotated = both.post(f"{path}/rotate", {"grace_s": 3600}).json()
    assert rotated["secret"] != key["secret"]
    assert rotated["grace_until"] > rotated["rotated_at"]
    assert both.post(f"{path}/revoke").json()["state"] == "revoked"
    assert_refused(both.post(f"{path}/enable"), 409, "conflict")
    assert both.post(f"/teams/{team['id']}/disable").json()["state"] == "disabled"
    assert both.post(f"/teams/{team['id']}/enable").json()["state"] == "active"
    actions = [entry["action"] for entry in both.get("/audit").json()["data"]]
    assert actions[:9] == [
        "team.enable",
        "team.disable",
        "key.revoke",
        "key.rotate",
        "key.enable",
        "key.disable",
        "key.update",
        "key.create",
        "team.create",
    ]


def test_the_audit_log_says_who_from_where_and_what_before_and_after(admin: Client, team_id: str) -> None:
    me = admin.get("/me").json()["key"]["id"]
    admin.patch(f"/teams/{team_id}", {"limits": {"parallel": 3}})
    entry = admin.get("/audit", object_id=team_id, action="team.update").json()["data"][0]
    assert (entry["actor"], entry["address"], entry["object_id"]) == (me, "127.0.0.1", team_id)
    assert entry["before"]["limits"] == {}
    assert entry["after"]["limits"] == {"parallel": 3}


# --- conditions and repeats


def test_a_change_that_is_based_on_an_older_version_is_refused(admin: Client, team_id: str) -> None:
    path = f"/teams/{team_id}"
    tag = admin.get(path).headers["etag"]
    assert tag == '"1"'
    first = admin.patch(path, {"tags": {"a": "1"}}, if_match=tag)
    assert (first.status_code, first.headers["etag"]) == (200, '"2"')
    assert_refused(admin.patch(path, {"tags": {"a": "2"}}, if_match=tag), 412, "version_mismatch")
    assert_refused(admin.post(f"{path}/disable", if_match=tag), 412, "version_mismatch")
    assert_refused(admin.patch(path, {"tags": {"a": "2"}}, if_match='W/"2"'), 412, "version_mismatch")
    assert_refused(admin.patch(path, {"tags": {"a": "2"}}, if_match="2"), 400, param="if-match")
    assert admin.patch(path, {"tags": {"a": "3"}}, if_match="*").json()["tags"] == {"a": "3"}


@pytest.mark.usefixtures("team_id")
def test_ones_own_secret_is_replaced_on_condition_too(server: AdminServer) -> None:
    key = made(server.admin.post("/keys", KEY))
    mine = server.client(key["secret"])
    assert_refused(mine.post("/me/rotate", if_match='"77"'), 412, "version_mismatch")
    assert mine.get(f"/keys/{key['id']}").headers["etag"] == '"1"'
    assert mine.post("/me/rotate", if_match='"1"').json()["version"] == 2


@pytest.mark.parametrize(("path", "body"), [("/teams", {"name": "new"}), ("/keys", {"team": "engines", "name": "new"})])
def test_a_create_that_is_sent_again_makes_nothing_new(admin: Client, path: str, body: dict[str, str]) -> None:
    made(admin.post("/teams", TEAM))
    first, second = (admin.post(path, body, idempotency_key="one") for _ in range(2))
    assert "idempotent-replayed" not in first.headers
    assert second.headers["idempotent-replayed"] == "true"
    assert (second.status_code, second.headers["location"]) == (201, first.headers["location"])
    assert first.json()["id"] == second.json()["id"]
    assert second.json().get("secret") is None
    assert_refused(admin.post(path, {**body, "name": "other"}, idempotency_key="one"), 409, "conflict")
    assert_refused(admin.post(path, body, idempotency_key="a b"), 400, param="idempotency-key")
    assert_refused(admin.post(path, body), 409, "conflict")


# --- lists


def test_lists_are_filtered_sorted_and_paged(admin: Client, team_id: str) -> None:
    for name in ("c", "a", "b"):
        admin.post("/keys", {"team": team_id, "name": name, "tags": {"stage": name}})
    first = admin.get("/keys", team="engines", limit=2).json()
    assert (first["object"], first["has_more"], [key["name"] for key in first["data"]]) == ("list", True, ["a", "b"])
    rest = admin.get("/keys", team=team_id, limit=2, after=first["next"]).json()
    assert (rest["has_more"], rest["next"], [key["name"] for key in rest["data"]]) == (False, None, ["c"])
    assert [key["name"] for key in admin.get("/keys", team=team_id, sort="-name").json()["data"]] == ["c", "b", "a"]
    assert [key["name"] for key in admin.get("/keys", tag="stage=b").json()["data"]] == ["b"]
    assert [key["name"] for key in admin.get("/keys", role="admin").json()["data"]] == ["admin"]
    assert admin.get("/keys", expired="true").json()["data"] == []
    assert [team["name"] for team in admin.get("/teams", name="ENG").json()["data"]] == ["engines"]


@pytest.mark.parametrize("path", ["/teams", "/keys", "/audit"])
@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("limti=1", "limti"),
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("limit=x", "limit"),
        ("limit=1&limit=1", "limit"),
    ],
)
def test_a_bad_query_parameter_of_a_list_is_named(admin: Client, path: str, query: str, param: str) -> None:
    assert_refused(admin.send("GET", f"{path}?{query}", b""), 400, param=param)


def test_a_cursor_that_was_made_up_is_refused(admin: Client) -> None:
    for path in ("/teams", "/keys", "/audit"):
        assert_refused(admin.get(path, after="made up"), 400)


@pytest.mark.parametrize(("method", "path"), [row for row in ROUTES if row[1] not in ("/teams", "/keys", "/audit")])
def test_where_there_are_no_query_parameters_none_is_taken(admin: Client, method: str, path: str) -> None:
    reply = admin.send(method, f"{path}?what=1", b"{}", content_type="application/json")
    assert_refused(reply, 400, param="what")


# --- refusals


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "name"),
        ({"name": 1}, "name"),
        ({"name": ""}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"name": "a\x00b"}, "name"),
        ({"name": "x", "limits": 3}, "limits"),
        ({"name": "x", "limits": {"parallel": "3"}}, "limits.parallel"),
        ({"name": "x", "limits": {"parallel": True}}, "limits.parallel"),
        ({"name": "x", "limits": {"parallel": 1.5}}, "limits.parallel"),
        ({"name": "x", "limits": {"parallel": 0}}, "limits.parallel"),
        ({"name": "x", "limits": {"parallel": 2**53}}, "limits.parallel"),
        ({"name": "x", "limits": {"paralel": 3}}, "limits.paralel"),
        ({"name": "x", "budgets": {"day_usd": 3}}, "budgets.day_usd"),
        ({"name": "x", "grants": {"models": "openai/*"}}, "grants.models"),
        ({"name": "x", "grants": {"routes": ["caht"]}}, "grants.routes"),
        ({"name": "x", "grants": {"networks": ["10.0.0.1/8"]}}, "grants.networks"),
        ({"name": "x", "tags": {"a": 1}}, "tags.a"),
        ({"name": "x", "tags": {"a": "\ud800"}}, None),
        ({"name": "x", "model_limits": {"m": {"paralel": 3}}}, "model_limits.m.paralel"),
        ([], "body"),
        ("x", "body"),
    ],
)
def test_a_bad_member_is_400_and_named(admin: Client, body: object, param: str | None) -> None:
    assert_refused(admin.post("/teams", body), 400, param=param)


@pytest.mark.parametrize(
    ("content", "kind", "status", "code"),
    [
        (b"{", "application/json", 400, None),
        (b'{"name": "x"', "application/json", 400, None),
        (b"\xff", "application/json", 400, None),
        (b"[" * 60_000, "application/json", 400, None),
        (b'{"name": 1e400}', "application/json", 400, None),
        (b'{"name": ' + b"9" * 5000 + b"}", "application/json", 400, None),
        (b'{"name": "x"}', "text/plain", 415, "unsupported_media_type"),
        (b'{"name": "x"}', "", 415, "unsupported_media_type"),
        (b" " * 65_537, "application/json", 413, "request_too_large"),
    ],
)
def test_a_body_that_cannot_be_read_is_refused(
    admin: Client, content: bytes, kind: str, status: int, code: str | None
) -> None:
    headers = {"content_type": kind} if kind else {}
    assert_refused(admin.send("POST", "/teams", content, **headers), status, code)


@pytest.mark.parametrize(
    ("content", "member"),
    [
        (b'{"team": "engines", "name": "x", "role": "member", "role": "admin"}', "role"),
        (b'{"team": "engines", "name": "x", "limits": {"parallel": 1, "parallel": 2}}', "parallel"),
        (b'{"team": "engines", "name": "x", "tags": {"a": "1", "\\u0061": "2"}}', "a"),
        (b'{"team": "engines", "name": "x", "tags": {"\\ud800": "1", "\\ud800": "2"}}', "\\ud800"),
    ],
)
@pytest.mark.usefixtures("team_id")
def test_a_member_that_comes_twice_is_refused_whichever_would_count(admin: Client, content: bytes, member: str) -> None:
    message = assert_refused(admin.send("POST", "/keys", content, content_type="application/json"), 400)
    assert message.startswith(f"{member}: ")
    assert [key["name"] for key in admin.get("/keys", team="engines").json()["data"]] == []


def test_a_route_without_a_body_takes_none(admin: Client, team_id: str) -> None:
    assert_refused(admin.post(f"/teams/{team_id}/disable", {"reason": "x"}), 400)
    assert admin.post(f"/teams/{team_id}/disable", {}).status_code == 200


def test_unknown_routes_and_methods_are_told_in_the_same_shape(admin: Client) -> None:
    assert_refused(admin.get("/nowhere"), 404)
    assert_refused(admin.send("DELETE", "/teams", b""), 405)
    assert_refused(admin.send("GET", "/keys/..%2fteams", b""), 400)


def test_no_reply_is_kept_by_anyone_on_the_way(admin: Client) -> None:
    made(admin.post("/teams", TEAM))
    issued = admin.post("/keys", KEY)
    for reply in (issued, admin.get("/keys"), admin.post(f"/keys/{issued.json()['id']}/rotate")):
        assert reply.headers["cache-control"] == "no-store"
