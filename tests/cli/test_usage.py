"""`gmi-gateway usage`: tables, JSON and CSV of who used what."""

import asyncio
import csv
import io
from datetime import UTC, datetime, timedelta
from itertools import count

import pytest

from gateway.call import Due, Principal, Usage
from gateway.cli import usage
from gateway.metering.ledger_queries import LedgerQueries
from gateway.metering.ledger_query import UsagePage, UsageQuery
from gateway.metering.sheets import usage_head
from tests.cli.conftest import Run, answer, done, plain
from tests.cli.ledger import a_key, call_of, put


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.split("  ") if cell.strip()]


@pytest.fixture
def ledger(run: Run) -> Run:
    """Runs commands where ada of engines spent $2 and $1, bob of sails $1 and something unpriced."""
    ada, bob = a_key(run, "engines", "ada"), a_key(run, "sails", "bob")
    put(
        [
            call_of(ada, "req_a1", cost_microusd=2_000_000, usage=Usage(1_000, 10, 1_010), tags={"job": "=1+1"}),
            call_of(ada, "req_a2", cost_microusd=1_000_000, usage=Usage(1_000, 10, 1_010), model="zai/glm-5"),
            call_of(bob, "req_b1", cost_microusd=1_000_000, usage=Usage(500, 5, 505), tags={"job": "nightly"}),
            call_of(bob, "req_b2", cost_microusd=None, usage=Usage(500, 5, 505)),
            call_of(bob, "req_old", 40 * 86_400, cost_microusd=5_000_000),
        ]
    )
    return run


def test_a_table_has_a_line_for_each_team_by_name_dearest_first_with_a_bar_of_its_cost(ledger: Run) -> None:
    lines = done(ledger("usage", "--by", "team", "--since", "7d")).splitlines()
    assert [cells(line) for line in lines[2:5]] == [
        ["engines", "2", "2,000", "20", "$3.00", "█" * 20],
        ["sails", "2", "1,000", "10", ">$1.00", "█" * 6, "1 unpriced"],
        ["total", "4", "3,000", "30", ">$4.00", "1 unpriced"],
    ]


def test_groups_may_be_of_several_words(ledger: Run) -> None:
    told = answer(ledger("usage", "--by", "key,model", "--json"))
    groups = [(each["group"]["key"], each["group"]["model"]) for each in told["data"]]
    assert groups[0] == ("engines/ada", "openai/gpt-5.2")
    # These cost the same.
    assert set(groups[1:]) == {("engines/ada", "zai/glm-5"), ("sails/bob", "openai/gpt-5.2")}
    assert all(each["group"]["key_id"].startswith("key_") for each in told["data"])


@pytest.mark.parametrize(
    ("words", "calls"),
    [
        (("--team", "sails"), 2),
        (("--key-of", "engines/ada"), 2),
        (("--model", "zai/glm-5"), 1),
        (("--model", "zai/glm-5", "--model", "openai/gpt-5.2"), 4),
        (("--tag", "job=nightly"), 1),
        (("--route", "responses"), 0),
        (("--route", "chat/completions"), 4),
        (("--route", "/v1/chat/completions"), 4),
        (("--since", "60d"), 5),
        (("--since", "60d", "--until", "30d"), 1),
        (("--since", "1h"), 4),
    ],
)
def test_filters_let_through_what_they_say(ledger: Run, words: tuple[str, ...], calls: int) -> None:
    assert answer(ledger("usage", *words, "--json"))["totals"]["calls"] == calls


def test_seven_days_are_seven_dates_and_yesterday_is_one(run: Run) -> None:
    ada = a_key(run, "engines", "ada")
    put(call_of(ada, f"req_{days}", days * 86_400) for days in range(10))
    told = answer(run("usage", "--by", "day", "--json"))
    today = datetime.fromtimestamp(told["until"] - 1, UTC).date()
    assert [each["group"]["day"] for each in told["data"]] == [
        str(today - timedelta(days)) for days in range(6, -1, -1)
    ]
    told = answer(run("usage", "--since", "yesterday", "--until", "today", "--group-by", "day", "--json"))
    assert ([each["group"]["day"] for each in told["data"]], told["source"]) == ([str(today - timedelta(1))], "days")
    assert [each["id"] for each in answer(run("calls", "list", "--since", "today", "--json"))] == ["req_0"]


def test_a_script_gets_tags_as_the_api_has_them(ledger: Run) -> None:
    told = answer(ledger("usage", "--by", "team,tag:job,tag:x", "--json"))
    groups = [{**each["group"], "team_id": None} for each in told["data"]]
    assert {"team": "sails", "team_id": None, "tags": {"job": "nightly", "x": None}} in groups


def test_money_is_told_in_cents_and_exactly_to_scripts(run: Run) -> None:
    ada = a_key(run, "engines", "ada")
    put([call_of(ada, "req_1", cost_microusd=1_499_999_999), call_of(ada, "req_2", cost_microusd=12, model="small")])
    shown = done(run("usage", "--by", "model"))
    assert [cells(line)[4] for line in shown.splitlines()[2:5]] == ["$1,500.00", "$0.000012", "$1,500.00"]
    assert answer(run("usage", "--json"))["totals"]["cost_microusd"] == 1_500_000_011


def test_the_help_says_that_it_may_stand_alone(run: Run) -> None:
    assert "gmi-gateway usage [OPTIONS] [COMMAND [ARGS]...]" in plain(done(run("usage", "--help"))).replace(
        "root usage", "gmi-gateway usage"
    )


def test_whole_days_are_answered_from_sums_by_day(ledger: Run) -> None:
    assert answer(ledger("usage", "--since", "3d", "--json"))["source"] == "days"
    assert answer(ledger("usage", "--since", "3d", "--by", "hour", "--json"))["source"] == "calls"


def test_a_spreadsheet_gets_every_sum_and_no_formula(ledger: Run) -> None:
    rows = list(csv.DictReader(io.StringIO(done(ledger("usage", "--by", "team,tag:job", "--csv")))))
    assert {(row["team"], row["tag:job"], row["cost_microusd"]) for row in rows} == {
        ("engines", "'=1+1", "2000000"),
        ("engines", "", "1000000"),
        ("sails", "nightly", "1000000"),
        ("sails", "", ""),
    }


def test_what_has_no_price_costs_nothing_that_a_spreadsheet_could_add_up(ledger: Run) -> None:
    rows = list(csv.DictReader(io.StringIO(done(ledger("usage", "--by", "team,tag:job", "--csv")))))
    assert [(row["unpriced_calls"], row["cost_usd"]) for row in rows if not row["cost_microusd"]] == [("1", "")]
    assert all(bool(row["cost_usd"]) is bool(row["cost_microusd"]) for row in rows)


def test_a_spreadsheet_has_the_columns_of_the_api(ledger: Run) -> None:
    text = done(ledger("usage", "--by", "team,hour", "--since", "60d", "--csv"))
    rows = list(csv.DictReader(io.StringIO(text)))
    assert text.splitlines()[0].split(",") == usage_head(("team", "hour"))
    assert [row["cost_usd"] for row in rows if row["team"] == "engines"] == ["3.000000"]
    assert all(datetime.fromisoformat(row["hour"]).tzinfo is not None for row in rows)
    assert all(row["team_id"].startswith("team_") for row in rows)


def test_what_nobody_knows_is_no_0(run: Run) -> None:
    ada = a_key(run, "engines", "ada")
    unknown = call_of(ada, "req_1", usage=None, usage_source="unknown", cost_microusd=None)
    estimated = call_of(ada, "req_2", usage_source="estimated", model="zai/glm-5")
    put([unknown, estimated])
    lines = done(run("usage", "--by", "model")).splitlines()
    assert [cells(line)[1:] for line in lines[2:5]] == [
        ["1", "~5", "~2", "~$0.000012", "█" * 20, "1 estimated"],
        ["1", "unknown", "unknown", "unknown", "1 unknown"],
        ["2", ">5", ">2", ">$0.000012", "1 estimated, 1 unknown"],
    ]


def test_without_prices_tokens_make_the_order_and_the_bars(run: Run) -> None:
    few, many = a_key(run, "few", "a"), a_key(run, "many", "b")
    used = [(few, Usage(1, 1, 2)), (many, Usage(10, 10, 20))]
    put(call_of(whose, whose.key_id, usage=usage, cost_microusd=None) for whose, usage in used)
    lines = done(run("usage")).splitlines()
    assert [cells(line)[:6] for line in lines[2:4]] == [
        ["many", "1", "10", "10", "unpriced", "█" * 20],
        ["few", "1", "1", "1", "unpriced", "██"],
    ]


def test_more_groups_than_are_shown_are_said_and_in_the_total(ledger: Run) -> None:
    said = done(ledger("usage", "--limit", "1"))
    assert "There are more than these 1" in said
    assert cells(said.splitlines()[3])[:2] == ["total", "4"]


@pytest.mark.parametrize("words", [(), ("--sort", "-calls"), ("--sort", "model"), ("--limit", "30")])
def test_of_many_pages_each_group_is_told_once_though_calls_end_meanwhile(
    run: Run, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    ada = a_key(run, "engines", "ada")
    put(call_of(ada, f"req_{number}", model=f"m{number:02}", cost_microusd=100 + number) for number in range(20))
    ask, numbers = LedgerQueries.usage, count()

    async def moves(queries: LedgerQueries, query: UsageQuery) -> UsagePage:
        page = await ask(queries, query)
        number = next(numbers)
        new = call_of(ada, f"req_new{number}", model=f"a{number:02}", cost_microusd=5_000)
        dearer = call_of(ada, f"req_more{number}", model=f"m{number:02}", cost_microusd=9_000)
        await asyncio.to_thread(put, [new, dearer])
        return page

    monkeypatch.setattr(usage, "_PAGE", 4)
    monkeypatch.setattr(LedgerQueries, "usage", moves)
    told = answer(run("usage", "--by", "model", *words, "--json"))
    models = [row["group"]["model"] for row in told["data"]]
    assert len(models) == len(set(models))
    if "--limit" not in words:
        assert set(models) >= {f"m{number:02}" for number in range(20)}
    costs = [row["cost_microusd"] for row in told["data"]]
    assert "--sort" in words or costs == sorted(costs, reverse=True)


def test_names_of_many_keys_are_all_known(run: Run) -> None:
    ada = a_key(run, "engines", "ada")
    strangers = [Principal("k", "t", f"key_{number}", "team_gone") for number in range(60)]
    put(call_of(whose, f"req_{whose.key_id}") for whose in (ada, *strangers))
    told = answer(run("usage", "--by", "key,team", "--json"))
    names = {each["group"]["key_id"]: (each["group"]["key"], each["group"]["team"]) for each in told["data"]}
    assert names[ada.key_id] == ("engines/ada", "engines")
    assert names["key_59"] == ("key_59", "team_gone")
    assert len(names) == 61


def test_no_calls_are_said_to_be_none(run: Run) -> None:
    assert done(run("usage")).startswith("No calls from ")


def test_what_responses_used_that_were_made_before_is_told_though_no_call_was_made(run: Run) -> None:
    ada = a_key(run, "engines", "ada")
    made = call_of(ada, "req_1", 2 * 86_400, usage=None, usage_source="due", cost_microusd=0, due=Due("resp_1", {}))
    put([made, call_of(ada, "late_resp_1", cost_microusd=25_000_000, usage=Usage(1_000, 500, 1_500))])
    lines = done(run("usage", "--since", "today")).splitlines()
    assert cells(lines[3]) == ["total", "0", "1,000", "500", "$25.00"]
    assert lines[5] == "No call was made then: responses in the background, which were made before, used this."
    assert "No call" not in done(run("usage", "--since", "7d"))
    put([call_of(ada, "late_resp_2", usage=None, usage_source="unknown", cost_microusd=None, model="zai/glm-5")])
    assert cells(done(run("usage", "--since", "today", "--model", "zai/glm-5")).splitlines()[3])[-1] == "1 unknown"


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--team", "nosuch"), 1, "There is no team nosuch"),
        (("--team", "team_00000000000000000000"), 1, "There is no such team"),
        (("--by", "colour"), 2, "Invalid value for --by: must name any of key, team"),
        (("--sort", "colour"), 2, "Invalid value for --sort: must be one of"),
        (("--since", "soon"), 2, "Invalid value for --since: must be today, yesterday, a time before now"),
        (("--tag", "job"), 2, "Invalid value for --tag"),
        (("--json", "--csv"), 2, "does not go with --json"),
    ],
)
def test_what_cannot_be_asked_is_said(run: Run, words: tuple[str, ...], code: int, message: str) -> None:
    result = run("usage", *words)
    assert (result.exit_code, result.stdout) == (code, "")
    assert message in plain(result.stderr)


def test_who_asks_for_an_alias_is_told_what_its_calls_count_as(run: Run) -> None:
    told = done(run("usage", "--model", "best", GATEWAY_MODELS_ALIASES='{"best": "openai/gpt-5.2"}'))
    assert told.endswith("\nbest is an alias: its calls count as openai/gpt-5.2, --model openai/gpt-5.2.\n")
