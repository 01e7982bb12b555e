"""Single calls, for whoever may see them."""

import base64
import json
from typing import Any

import pytest

from gateway.call import Usage
from tests.http.admin_server import Client, assert_refused
from tests.http.ledger_world import MODELS, LedgerWorld
from tests.metering.ledger import NOON_S

SINCE = {"since": "2026-11-21", "until": "2026-11-23"}
NOTHING = dict.fromkeys(Usage.__struct_fields__, 0)


def listed(client: Client, path: str = "/calls", **parameters: Any) -> list[str]:
    reply = client.get(path, **{**SINCE, **parameters})
    assert reply.status_code == 200, reply.text
    return [call["id"] for call in reply.json()["data"]]


def test_a_call_tells_how_it_ended_and_where_its_time_went(both: LedgerWorld) -> None:
    ada = both.keys["ada"]
    assert both.admin.get("/calls/req_1").json() == {
        "object": "call",
        "id": "req_1",
        "started_at_us": int(NOON_S * 1e6),
        "team_id": ada["team_id"],
        "team": "engines",
        "key_id": ada["id"],
        "key": "ada",
        "method": "POST",
        "route": "/v1/chat/completions",
        "model": MODELS[0],
        "endpoint": "upstream",
        "status": 200,
        "outcome": "done",
        "streamed": False,
        "error": None,
        "refused_by": None,
        "upstream_error": None,
        "upstream_request_id": "upstream-1",
        "usage_source": "reported",
        "usage": {**NOTHING, "input_tokens": 5, "output_tokens": 2, "total_tokens": 7},
        "cost_microusd": 12,
        "queue_us": 0,
        "overhead_us": 500,
        "first_byte_us": 125_000,
        "duration_us": 250_000,
        "sent_bytes": 345,
        "tags": {"feature": "search"},
    }


def test_what_nobody_knows_is_null_and_not_0(world: LedgerWorld) -> None:
    unknown = world.admin.get("/calls/req_5").json()
    assert (unknown["usage_source"], unknown["usage"], unknown["cost_microusd"]) == ("unknown", None, None)
    unpriced = world.admin.get("/calls/req_2").json()
    assert (unpriced["usage_source"], unpriced["usage"]["total_tokens"]) == ("reported", 7)
    assert unpriced["cost_microusd"] is None


def test_calls_come_newest_first_page_by_page(both: LedgerWorld) -> None:
    assert listed(both.admin) == ["req_4", "req_5", "req_3", "req_1", "req_2"]
    first = both.admin.get("/calls", **SINCE, limit=2).json()
    assert first["has_more"] is True
    second = both.admin.get("/calls", **SINCE, limit=3, after=first["next"]).json()
    assert [call["id"] for call in second["data"]] == ["req_3", "req_1", "req_2"]
    assert (second["has_more"], second["next"]) == (False, None)


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({"team": "others"}, ["req_4", "req_5"]),
        ({"model": MODELS[1]}, ["req_2"]),
        ({"route": "/v1/responses"}, ["req_3"]),
        ({"outcome": "cut"}, ["req_3"]),
        ({"outcome": "cut,done", "team": "engines"}, ["req_3", "req_1", "req_2"]),
        ({"status": "none"}, ["req_3"]),
        ({"status": "4xx"}, []),
        ({"error": "rate_limit_exceeded"}, []),
        ({"tag": "feature=search"}, ["req_1"]),
        ({"until": "2026-11-22"}, ["req_2"]),
    ],
)
def test_filters_let_through_what_they_name(world: LedgerWorld, filters: dict[str, str], found: list[str]) -> None:
    assert listed(world.admin, **filters) == found


def test_a_team_admin_sees_their_teams_calls_alone_whatever_they_ask(both: LedgerWorld) -> None:
    lea = both.as_key("lea")
    assert listed(lea) == ["req_3", "req_1", "req_2"]
    assert listed(lea, tag="feature==1+1") == []
    assert lea.get("/calls/req_1").json()["id"] == "req_1"
    foreign, unknown = lea.get("/calls/req_4"), lea.get("/calls/req_9")
    assert_refused(foreign, 404, "not_found")
    assert foreign.json() == unknown.json()
    for theirs in ({"team": "others"}, {"key": both.keys["eve"]["id"]}):
        assert_refused(lea.get("/calls", **theirs), 404, "not_found")
    after = both.admin.get("/calls", **SINCE, limit=1).json()["next"]
    assert listed(lea, after=after) == ["req_3", "req_1", "req_2"]


def test_a_member_sees_no_calls_but_those_of_their_own_key(both: LedgerWorld) -> None:
    ada = both.as_key("ada")
    for path in ("/calls", "/calls/req_1", "/calls/req_9"):
        assert_refused(ada.get(path), 403, "forbidden")
    assert listed(ada, "/me/calls") == ["req_1", "req_2"]
    assert ada.get("/me/calls/req_1").json() == both.admin.get("/calls/req_1").json()
    unknown = ada.get("/me/calls/req_9")
    assert_refused(unknown, 404, "not_found")
    for foreign in ("req_3", "req_4"):  # of the same team, and of another
        assert ada.get(f"/me/calls/{foreign}").json() == unknown.json()


@pytest.mark.parametrize("name", ["ada", "lea"])
def test_whoever_asks_for_their_own_calls_gets_these_alone_whatever_they_may_see(world: LedgerWorld, name: str) -> None:
    key = world.as_key(name)
    own = {"ada": ["req_1", "req_2"], "lea": ["req_3"]}[name]
    assert listed(key, "/me/calls") == own
    assert listed(world.admin, "/me/calls") == []
    assert_refused(world.admin.get("/me/calls/req_1"), 404, "not_found")
    after = world.admin.get("/calls", **SINCE, limit=1).json()["next"]
    assert listed(key, "/me/calls", after=after) == own
    for more in ({"team": "others"}, {"team": "engines"}, {"key": world.keys["eve"]["id"]}):
        assert_refused(key.get("/me/calls", **SINCE, **more), 400, None, next(iter(more)))


def test_ones_own_calls_are_filtered_and_come_page_by_page(world: LedgerWorld) -> None:
    ada = world.as_key("ada")
    assert listed(ada, "/me/calls", model=MODELS[1]) == ["req_2"]
    assert listed(ada, "/me/calls", tag="feature=search", outcome="done", status="2xx") == ["req_1"]
    assert listed(ada, "/me/calls", error="rate_limit_exceeded") == []
    first = ada.get("/me/calls", **SINCE, limit=1).json()
    assert ([call["id"] for call in first["data"]], first["has_more"]) == (["req_1"], True)
    assert listed(ada, "/me/calls", after=first["next"]) == ["req_2"]


@pytest.mark.parametrize("parts", [[10**30, "x"], [-1, "x"], [1, "\0"], [1, "\ud800"], [1], {}])
def test_a_cursor_that_was_made_up_is_400(both: LedgerWorld, parts: object) -> None:
    after = base64.urlsafe_b64encode(json.dumps(parts).encode()).decode().rstrip("=")
    assert_refused(both.admin.get("/calls", **SINCE, after=after), 400, None, "after")


def test_a_cursor_of_what_is_not_utf_8_is_400(both: LedgerWorld) -> None:
    after = base64.urlsafe_b64encode(b'[1,"\xff"]').decode().rstrip("=")
    for client, path in ((both.admin, "/calls"), (both.as_key("ada"), "/me/calls")):
        assert_refused(client.get(path, **SINCE, after=after), 400, None, "after")


@pytest.mark.parametrize("call_id", ["%00", "x" * 101, "%F0%9F%98%80", "late_%ff"])
def test_an_id_that_no_call_can_have_is_404(both: LedgerWorld, call_id: str) -> None:
    for path in ("/calls", "/me/calls"):
        assert both.admin.get(f"{path}/{call_id}").status_code in (400, 404)


@pytest.mark.parametrize(
    "wrong",
    [
        {"outcome": "well"},
        {"outcome": ""},
        {"status": "200"},
        {"error": "\0"},
        {"limit": "201"},
        {"after": "WzFd"},
        {"since": "tomorrow"},
        {"group_by": "team"},
    ],
)
def test_what_makes_no_sense_is_400_and_names_the_parameter(world: LedgerWorld, wrong: dict[str, str]) -> None:
    for client, path in ((world.admin, "/calls"), (world.as_key("ada"), "/me/calls")):
        assert_refused(client.get(path, **{**SINCE, **wrong}), 400, None, *wrong)
