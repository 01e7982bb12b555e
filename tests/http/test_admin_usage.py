"""What calls used, summed up for whoever may see it."""

import base64
import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.http.admin_server import Client, assert_refused
from tests.http.ledger_world import DAY, MODELS, RESPONSES, LedgerWorld
from tests.metering.ledger import NOON_S

PAGE = Path(__file__).parents[2] / "docs" / "usage.md"
BOTH_DAYS = {"since": "2026-11-21", "until": "2026-11-23"}


def asked(client: Client, path: str = "/usage", **parameters: Any) -> Any:
    reply = client.get(path, **{**BOTH_DAYS, **parameters})
    assert reply.status_code == 200, reply.text
    return reply.json()


def calls_by(reply: Any, member: str) -> dict[Any, int]:
    return {row["group"][member]: row["calls"] for row in reply["data"]}


def test_usage_is_summed_up_by_whatever_is_asked_for(both: LedgerWorld) -> None:
    engines, others = both.teams["engines"], both.teams["others"]
    by_team = asked(both.admin, group_by="team")
    assert [row["group"] for row in by_team["data"]] == [
        {"team_id": engines, "team": "engines"},
        {"team_id": others, "team": "others"},
    ]
    assert calls_by(by_team, "team") == {"engines": 3, "others": 2}
    assert (by_team["object"], by_team["source"], by_team["time_zone"]) == ("list", "days", "UTC")
    assert calls_by(asked(both.admin, group_by="key"), "key") == {"ada": 2, "lea": 1, "eve": 2}
    assert calls_by(asked(both.admin, group_by="model"), "model") == {MODELS[0]: 3, MODELS[1]: 1, None: 1}
    assert calls_by(asked(both.admin, group_by="route"), "route") == {"/v1/chat/completions": 4, "/v1/responses": 1}
    assert calls_by(asked(both.admin), "day") == {"2026-11-21": 1, "2026-11-22": 4}
    by_hour = asked(both.admin, group_by="hour", since="2026-11-22")
    assert (calls_by(by_hour, "hour"), by_hour["source"]) == ({int(NOON_S): 3, int(NOON_S) + 3600: 1}, "calls")
    by_tag = asked(both.admin, group_by="tag:feature")
    assert {row["group"]["tags"]["feature"]: row["calls"] for row in by_tag["data"]} == {
        "search": 1,
        "=1+1": 1,
        None: 3,
    }


def test_what_is_unknown_unpriced_or_estimated_is_counted_as_such(both: LedgerWorld) -> None:
    totals = asked(both.admin, group_by="")["totals"]
    counts = ("calls", "failed_calls", "estimated_calls", "unknown_calls", "unpriced_calls")
    assert {name: totals[name] for name in counts} == dict(zip(counts, (5, 1, 1, 1, 1), strict=True))
    assert (totals["cost_microusd"], totals["input_tokens"], totals["total_tokens"]) == (36, 20, 28)
    assert asked(both.admin, group_by="")["data"] == []


@pytest.mark.parametrize(
    ("filters", "calls"),
    [
        ({"team": "engines"}, 3),
        ({"model": MODELS[1]}, 1),
        ({"route": "/v1/responses"}, 1),
        ({"tag": "feature=search"}, 1),
        ({"tag": "feature=nothing"}, 0),
        ({"since": str(int(NOON_S)), "until": str(int(NOON_S) + 1)}, 3),
        ({"team": "engines", "model": MODELS[0]}, 2),
    ],
)
def test_filters_let_through_what_they_name(world: LedgerWorld, filters: dict[str, str], calls: int) -> None:
    assert asked(world.admin, **filters)["totals"]["calls"] == calls


@pytest.mark.parametrize("name", ["model", "route"])
def test_a_filter_without_a_value_is_refused(world: LedgerWorld, name: str) -> None:
    for path, grouped in (("/usage", {"group_by": "day"}), ("/usage", {"group_by": "hour"}), ("/calls", {})):
        refused = world.admin.get(path, **BOTH_DAYS, **grouped, **{name: ""})
        assert assert_refused(refused, 400, param=name) == f"{name} must not be empty. Leave it out to ask for all."


def test_a_key_is_named_by_its_id_and_must_fit_its_team(world: LedgerWorld) -> None:
    ada = world.keys["ada"]["id"]
    assert asked(world.admin, key=ada)["totals"]["calls"] == 2
    assert asked(world.admin, key=ada, team="others")["totals"]["calls"] == 0
    assert_refused(world.admin.get("/usage", key="key_none"), 404, "not_found")
    assert_refused(world.admin.get("/usage", team="none"), 404, "not_found")


def test_pages_hold_each_group_once_and_all_tell_the_totals(both: LedgerWorld) -> None:
    found: list[str] = []
    after: dict[str, str] = {}
    while True:
        page = asked(both.admin, group_by="key,day", sort="key", limit=1, **after)
        assert page["totals"]["calls"] == 5
        found += [f"{row['group']['key']} {row['group']['day']}" for row in page["data"]]
        assert page["has_more"] == (page["next"] is not None)
        if not page["has_more"]:
            break
        after = {"after": page["next"]}
    assert sorted(found) == ["ada 2026-11-21", "ada 2026-11-22", "eve 2026-11-22", "lea 2026-11-22"]


def followed(client: Client, **parameters: Any) -> list[str]:
    """The models of all pages, whose rows come to what is told of all."""
    found: list[Any] = []
    after: dict[str, str] = {}
    while True:
        page = asked(client, group_by="model", limit=1, **parameters, **after)
        found += page["data"]
        if not page["has_more"]:
            assert sum(row["calls"] for row in found) == page["totals"]["calls"]
            return [row["group"]["model"] for row in found]
        after = {"after": page["next"]}


def test_pages_in_the_order_of_a_sum_hold_each_group_once_while_no_calls_come(both: LedgerWorld) -> None:
    assert sorted(followed(both.admin), key=str) == [None, *MODELS]
    assert sorted(followed(both.admin, sort="calls"), key=str) == [None, *MODELS]


def test_a_page_in_the_order_of_a_sum_is_refused_where_calls_made_another_order(both: LedgerWorld) -> None:
    first = asked(both.admin, group_by="model", limit=1)
    both.put(both.call("req_6", "eve", model="m/new", cost_microusd=10**6))
    told = assert_refused(
        both.admin.get("/usage", **BOTH_DAYS, group_by="model", after=first["next"]), 400, None, "after"
    )
    assert "sort=model" in told
    assert len(followed(both.admin)) == 4, "whoever begins anew gets all"


def test_a_call_that_changes_nothing_of_the_order_does_not_hinder_the_next_page(both: LedgerWorld) -> None:
    first = asked(both.admin, group_by="model", limit=1)
    both.put(both.call("req_6", "eve", cost_microusd=None, usage=None, usage_source="unknown"))
    seen = asked(both.admin, group_by="model", after=first["next"])
    assert len(seen["data"]) == 2


@pytest.mark.parametrize("sort", ["-calls", "cost_microusd"])
def test_pages_in_the_order_of_a_sum_are_of_the_first_ones_times_though_these_move_on(
    both: LedgerWorld, sort: str
) -> None:
    begin_s = int(NOON_S)
    both.put(*(both.call(f"req_h{hour}", "eve", model="m", started_at_s=begin_s + hour * 3600) for hour in range(6)))
    found: list[Any] = []
    after: dict[str, str] = {}
    for hour in range(3):
        times = {"since": str(begin_s + hour * 3600), "until": str(begin_s + (hour + 3) * 3600)}
        page = asked(both.admin, group_by="hour", sort=sort, limit=1, model="m", **times, **after)
        assert (page["since"], page["until"]) == (begin_s, begin_s + 3 * 3600)
        found += [row["group"]["hour"] for row in page["data"]]
        after = {"after": page["next"]}
    assert sorted(found) == [begin_s + hour * 3600 for hour in range(3)]
    assert after == {"after": None}


@pytest.mark.parametrize(
    "other",
    [
        {"model": MODELS[0]},
        {"route": "/v1/responses"},
        {"team": "engines"},
        {"tag": "feature=search"},
        {"sort": "cost_microusd"},
        {"sort": "-calls"},
        {"group_by": "model,day"},
    ],
)
def test_a_page_in_the_order_of_a_sum_is_of_the_question_of_the_one_before(
    both: LedgerWorld, other: dict[str, str]
) -> None:
    for named in ("ada", "lea"):
        both.put(both.call(f"req_{named}", named, model="m/new", route=RESPONSES, tags={"feature": "search"}))
    question = {**BOTH_DAYS, "group_by": "model", "limit": "1"}
    after = asked(both.admin, **question)["next"]
    assert asked(both.admin, **{**question, "limit": "2"}, after=after)["data"]
    assert_refused(both.admin.get("/usage", **{**question, **other}, after=after), 400, None, "after")


def test_a_cursor_with_times_that_were_made_up_lets_nobody_ask_for_more(both: LedgerWorld) -> None:
    for client, path, years in ((both.admin, "/usage", 21), (both.as_key("ada"), "/me/usage", 2)):
        parts = [0, 0, years * 366 * 86_400_000_000, 1, 1, 1]
        after = base64.urlsafe_b64encode(json.dumps(parts).encode()).decode().rstrip("=")
        assert_refused(client.get(path, **DAY, group_by="model", after=after), 400, None, "since")


def test_what_is_sorted_is_as_asked_for(world: LedgerWorld) -> None:
    world.put(world.call("req_6", "eve", cost_microusd=10**6))
    assert asked(world.admin, group_by="key")["data"][0]["group"]["key"] == "eve"
    assert asked(world.admin, group_by="key", sort="calls")["data"][0]["group"]["key"] == "lea"
    assert [row["group"]["day"] for row in asked(world.admin, sort="-day")["data"]] == ["2026-11-22", "2026-11-21"]


def test_a_team_admin_sees_their_team_alone_whatever_they_ask(both: LedgerWorld) -> None:
    lea, eve = both.as_key("lea"), both.keys["eve"]["id"]
    assert calls_by(asked(lea, group_by="team"), "team") == {"engines": 3}
    assert calls_by(asked(lea, group_by="key"), "key") == {"ada": 2, "lea": 1}
    assert asked(lea, group_by="", team="engines")["totals"]["calls"] == 3
    assert asked(lea, group_by="tag:feature", tag="feature==1+1")["data"] == []
    for theirs in ({"team": "others"}, {"team": both.teams["others"]}, {"key": eve}, {"team": "engines", "key": eve}):
        foreign = lea.get("/usage", **theirs)
        unknown = lea.get("/usage", **dict.fromkeys(list(theirs)[-1:], "team_or_key_00000000000"))
        assert_refused(foreign, 404, "not_found")
        assert foreign.json() == unknown.json()


def test_the_cursor_of_an_admin_lets_a_team_admin_see_no_more(world: LedgerWorld) -> None:
    after = asked(world.admin, group_by="key", sort="-key", limit=1)["next"]
    seen = asked(world.as_key("lea"), group_by="key", sort="-key", after=after)
    assert {row["group"]["team"] for row in asked(world.as_key("lea"), group_by="team,key")["data"]} == {"engines"}
    assert {row["group"]["key"] for row in seen["data"]} <= {"ada", "lea"}


@pytest.mark.parametrize("parts", [[-5], [10**30], [1, 2], ["1"], {}])
def test_a_cursor_that_was_made_up_is_400(both: LedgerWorld, parts: object) -> None:
    after = base64.urlsafe_b64encode(json.dumps(parts).encode()).decode().rstrip("=")
    assert_refused(both.admin.get("/usage", **DAY, after=after), 400, None, "after")
    assert_refused(both.admin.get("/usage", **DAY, sort="calls", after=after), 400, None, "after")
    assert_refused(both.admin.get("/usage", **DAY, group_by="model,day", after=after), 400, None, "after")


@pytest.mark.parametrize("parts", [b'["\xff"]', b'["\xed\xa0\x80"]', b'["\xc3"]'])
def test_a_cursor_of_what_is_not_utf_8_is_400(both: LedgerWorld, parts: bytes) -> None:
    after = base64.urlsafe_b64encode(parts).decode().rstrip("=")
    ada = both.as_key("ada")
    for client, path, word in ((both.admin, "/usage", "team"), (ada, "/me/usage", "route")):
        assert_refused(client.get(path, **DAY, group_by=word, sort=word, after=after), 400, None, "after")


def test_a_member_sees_their_own_key_alone(both: LedgerWorld) -> None:
    ada = both.as_key("ada")
    told = assert_refused(ada.get("/usage", **DAY), 403, "forbidden")
    assert told.endswith(" sees what is its own alone: /admin/v1/me/usage in place of /admin/v1/usage.")
    own = asked(ada, "/me/usage", group_by="key,team,model")
    assert {(row["group"]["key"], row["group"]["team"]) for row in own["data"]} == {("ada", "engines")}
    assert (own["totals"]["calls"], own["totals"]["unpriced_calls"]) == (2, 1)
    for more in ({"team": "others"}, {"key": both.keys["eve"]["id"]}):
        assert_refused(ada.get("/me/usage", **more), 400, None, next(iter(more)))


@pytest.mark.parametrize(
    "wrong",
    [
        {"group_by": "colour"},
        {"group_by": "day,hour"},
        {"group_by": "team,team"},
        {"group_by": "tag:a,tag:b,tag:c,tag:d,tag:e,tag:f,tag:g"},
        {"group_by": "tag:\0"},
        {"sort": "colour"},
        {"sort": "key"},
        {"limit": "0"},
        {"limit": "201"},
        {"after": "?"},
        {"since": "tomorrow"},
        {"since": "7 d"},
        {"since": "2026-13-01"},
        {"since": "0001-01-01"},
        {"since": "9999-01-01"},
        {"since": "99999999999"},
        {"until": "2026-11-01"},
        {"since": "0"},
        {"model": "\0"},
        {"tag": "feature"},
        {"tag": "=x"},
        {"colour": "red"},
    ],
)
def test_what_makes_no_sense_is_400_and_names_the_parameter(world: LedgerWorld, wrong: dict[str, str]) -> None:
    for client, path in ((world.admin, "/usage"), (world.as_key("ada"), "/me/usage")):
        reply = client.get(path, **{**BOTH_DAYS, **wrong})
        assert_refused(reply, 400)
        assert reply.json()["error"]["param"] in {*wrong, "until"}


def test_without_times_the_last_thirty_days_are_meant(world: LedgerWorld) -> None:
    reply = world.admin.get("/usage").json()
    assert reply["until"] - reply["since"] == 30 * 86_400
    assert (reply["since"] % 86_400, reply["source"]) == (0, "days")


@pytest.mark.parametrize(("words", "days"), [("today", 1), ("yesterday", 2), ("7d", 7), ("2w", 14)])
def test_days_are_named_by_the_words_that_commands_take(world: LedgerWorld, words: str, days: int) -> None:
    for client, path in ((world.admin, "/usage"), (world.as_key("ada"), "/me/usage")):
        reply = client.get(path, since=words).json()
        assert reply["until"] - reply["since"] == days * 86_400
        assert reply["source"] == "days"


def test_all_of_yesterday_ends_where_today_begins(world: LedgerWorld) -> None:
    reply = world.admin.get("/usage", since="yesterday", until="today").json()
    assert reply["until"] - reply["since"] == 86_400


def test_a_time_may_be_hours_ago_or_a_moment_with_its_offset(world: LedgerWorld) -> None:
    hours = world.admin.get("/usage", since="12h", until="2h").json()
    assert hours["until"] - hours["since"] == 36_000
    moment = world.admin.get("/usage", since="2026-11-22T12:00:00+01:00").json()
    assert moment["since"] == int(datetime(2026, 11, 22, 11, tzinfo=UTC).timestamp())


def test_the_questions_of_the_documentation_are_answered(world: LedgerWorld) -> None:
    asked_for = re.findall(r'"\$GATEWAY_URL/admin/v1(/[^"]*)"', PAGE.read_text())
    assert len(asked_for) == 6
    for path in asked_for:
        reply = world.admin.get(path.replace("$CALL_ID", "req_1"))
        assert reply.status_code == 200, reply.text
