"""Usage as CSV: whole, in the order of its groups, and harmless in a spreadsheet."""

import csv
import io
from typing import Any

import httpx2
import pytest

from gateway.errors import StoreUnavailable
from gateway.http.admin import usage_csv
from gateway.metering.ledger_queries import LedgerQueries
from gateway.metering.ledger_query import UsagePage, UsageQuery
from tests.http.admin_server import Client, assert_refused
from tests.http.ledger_world import DAY, LedgerWorld


def rows(client: Client, path: str = "/usage", **parameters: Any) -> list[dict[str, str]]:
    reply = client.get(path, **{**DAY, "format": "csv", **parameters})
    assert reply.status_code == 200, reply.text
    assert reply.headers["content-type"] == "text/csv; charset=utf-8"
    assert "attachment" in reply.headers["content-disposition"]
    assert reply.headers["cache-control"] == "no-store"
    return list(csv.DictReader(io.StringIO(reply.content.decode(), newline="")))


def test_a_row_has_its_groups_by_id_and_name_and_money_twice(both: LedgerWorld) -> None:
    both.put(both.call("req_6", "ada", cost_microusd=3_500_000))
    found = rows(both.admin, group_by="key,day", team="engines")
    by_key = {row["key"]: row for row in found}
    assert list(found[0])[:3] == ["key_id", "key", "day"]
    assert by_key["ada"]["key_id"] == both.keys["ada"]["id"]
    assert (by_key["ada"]["calls"], by_key["ada"]["cost_microusd"], by_key["ada"]["cost_usd"]) == (
        "2",
        "3500012",
        "3.500012",
    )
    assert by_key["lea"]["estimated_calls"] == "1"


def test_csv_and_json_say_the_same(both: LedgerWorld) -> None:
    asked = {"group_by": "team,model", **DAY}
    as_json = both.admin.get("/usage", **asked).json()["data"]
    told = sorted((row["group"]["team"], row["group"]["model"] or "", row["calls"]) for row in as_json)
    assert sorted((row["team"], row["model"], int(row["calls"])) for row in rows(both.admin, **asked)) == told


def test_what_nothing_has_a_price_of_costs_nothing_that_could_be_added_up(world: LedgerWorld) -> None:
    week = {"since": "2026-11-20", "until": "2026-11-23"}
    found = {row["model"]: row for row in rows(world.admin, group_by="model", **week)}
    assert (found["zai/glm-5"]["unpriced_calls"], found[""]["unknown_calls"]) == ("1", "1")
    assert {found[model][name] for model in ("zai/glm-5", "") for name in ("cost_microusd", "cost_usd")} == {""}
    assert found["openai/gpt-5.2"]["cost_usd"] == "0.000036"


def test_hours_are_written_as_moments_of_the_time_zone(world: LedgerWorld) -> None:
    hours = [row["hour"] for row in rows(world.admin, group_by="hour")]
    assert hours == ["2026-11-22T12:00:00+00:00", "2026-11-22T13:00:00+00:00"]


@pytest.mark.parametrize(
    ("name", "cell"),
    [
        ("=1+1", "'=1+1"),
        ("+1", "'+1"),
        ("-1", "'-1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        (' =HYPERLINK("http://x")', '\' =HYPERLINK("http://x")'),
        ("\t=1", "'\t'=1"),
        ("\tx", "'\tx"),
        ('x;"=1+1"', 'x;\'"=1+1"'),
        ("\uff1d1", "'\uff1d1"),
        ('a,"b"\r\nc', 'a,"b"\r\nc'),
        ("a=b", "a=b"),
        ("x;=1+1", "x;'=1+1"),
        ("x; =1+1;@y", "x;' =1+1;'@y"),
        ("a\t-1", "a\t'-1"),
        ("a\n+1\r@b", "a\n'+1\r'@b"),
        ("a;b,=c", "a;b,=c"),
    ],
)
def test_what_a_client_has_named_is_no_formula(world: LedgerWorld, name: str, cell: str) -> None:
    world.put(world.call("req_6", "eve", model=name, tags={"step": name}))
    found = (
        rows(world.admin, group_by="model,tag:step", tag=f"step={name}")
        if name.isprintable()
        else rows(world.admin, group_by="model,tag:step")
    )
    assert (cell, cell) in {(row["model"], row["tag:step"]) for row in found}


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_no_cell_is_a_formula_whatever_a_spreadsheet_takes_for_a_separator(world: LedgerWorld, separator: str) -> None:
    world.put(world.call("req_6", "eve", model='"x";=1+1;"=1+1";y', tags={"step": "x\t=1+1\t\n=1+1\n;\t =1+1"}))
    text = world.admin.get("/usage", **DAY, format="csv", group_by="model,tag:step").content.decode()
    cells = [cell for row in csv.reader(io.StringIO(text, newline=""), delimiter=separator) for cell in row]
    assert "1+1" in text
    assert not [cell for cell in cells if cell.lstrip()[:1] in ("=", "+", "-", "@")]


def test_a_spreadsheet_that_takes_several_separators_finds_the_same_cells(world: LedgerWorld) -> None:
    world.put(world.call("req_6", "eve", model="x;y", tags={"step": "x\ty"}))
    text = world.admin.get("/usage", **DAY, format="csv", group_by="model,tag:step").content.decode()
    assert '"x;y","x\ty",1,' in text


def test_a_document_of_many_pages_has_each_group_once(both: LedgerWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage_csv, "PAGE", 3)
    both.put(*(both.call(f"req_x{number}", "ada", model=f"m{number:02}") for number in range(10)))
    models = [row["model"] for row in rows(both.admin, group_by="model", key=both.keys["ada"]["id"])]
    assert models == [*(f"m{number:02}" for number in range(10)), "openai/gpt-5.2"]


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("text/csv", "text/csv"),
        ("text/csv, application/json;q=0.5", "text/csv"),
        ("text/csv;q=0.5, application/json", "application/json"),
        ("text/csv;q=0", "application/json"),
        ("text/csv;q=nan", "application/json"),
        ("*/*", "application/json"),
    ],
)
def test_accept_chooses_where_the_question_does_not(world: LedgerWorld, accept: str, kind: str) -> None:
    reply = world.admin.send("GET", "/usage", b"", accept=accept)
    assert reply.headers["content-type"].partition(";")[0] == kind
    assert reply.headers["vary"] == "accept"
    asked = world.admin.send("GET", "/usage?format=json", b"", accept=accept)
    assert asked.headers["content-type"] == "application/json"


def test_teams_and_members_see_no_more_as_csv(world: LedgerWorld) -> None:
    assert {row["team"] for row in rows(world.as_key("lea"), group_by="team")} == {"engines"}
    own = rows(world.as_key("ada"), "/me/usage", group_by="key")
    assert [(row["key"], row["calls"]) for row in own] == [("ada", "1")]
    assert_refused(world.as_key("ada").get("/usage", format="csv"), 403, "forbidden")
    assert_refused(world.as_key("lea").get("/usage", format="csv", team="others"), 404, "not_found")


@pytest.mark.parametrize(
    "wrong", [{"limit": "5"}, {"after": "WzFd"}, {"sort": "day"}, {"group_by": ""}, {"group_by": "colour"}]
)
def test_what_does_not_go_with_csv_is_400(world: LedgerWorld, wrong: dict[str, str]) -> None:
    assert_refused(world.admin.get("/usage", **{**DAY, "format": "csv", **wrong}), 400, None, *wrong)


def test_a_document_that_cannot_be_finished_is_seen_to_be_broken(
    world: LedgerWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage_csv, "PAGE", 1)
    ask = LedgerQueries.usage

    async def goes_away(queries: LedgerQueries, query: UsageQuery) -> UsagePage:
        if query.after is not None:
            raise StoreUnavailable("the database went away")
        return await ask(queries, query)

    monkeypatch.setattr(LedgerQueries, "usage", goes_away)
    with pytest.raises(httpx2.RemoteProtocolError):
        world.admin.get("/usage", **DAY, format="csv", group_by="key")
