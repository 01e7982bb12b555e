"""A budget that no call can draw on is not set in silence, whoever's prices they are."""

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from gateway.call import CallRecord, Principal
from gateway.cli.pricing import begin_of, may_overlap, unpriced
from gateway.settings import Settings
from gateway.store.url import database_url
from tests.cli.conftest import Run, answer, call, done
from tests.cli.ledger import a_key, call_of, put
from tests.limits.servers import shared_server
from tests.support.gateway import running_gateway

PRICE = (
    "unit: microusd_per_million_tokens\nmodels:\n  a/b: {looked_up: 2026-11-22, input: 1000, output: 1000}\n  c: null\n"
)
NO_PRICES = (
    "! no model has a price, so that no call draws on a budget; write prices into config/prices.yaml (docs/prices.md)\n"
)


@contextmanager
def serving(**sections: Any) -> Iterator[dict[str, str]]:
    """The variables that reach a running gateway."""
    with running_gateway("http://127.0.0.1:9/v1", keys=[], **sections) as running:
        yield {"GATEWAY_URL": running.url, "GATEWAY_ADMIN_KEY": running.admin_secret or ""}


def test_a_budget_without_any_price_is_set_with_a_warning(run: Run) -> None:
    for words in ("teams create --name engines", "teams update engines", "keys create --team engines --name ada"):
        result = run(*words.split(), "--budget-usd", "5/day")
        assert (result.exit_code, result.stderr) == (0, NO_PRICES)
        assert "$5.00/day" in result.stdout
    update = "keys update ada --budget-usd"
    assert run(*update.split(), "6/month", "--json").stderr == NO_PRICES


@pytest.mark.parametrize("words", ["--rpm 5", "--budget-usd none/day"])
def test_what_is_no_budget_is_set_without_a_word(run: Run, words: str) -> None:
    done(run("teams", "create", "--name", "engines", *words.split()))


def test_a_budget_of_models_that_have_no_price_is_set_with_a_warning(run: Run) -> None:
    Path("p.yaml").write_text(PRICE)
    prices = {"GATEWAY_PRICES_FILE": "p.yaml"}
    done(run("teams", "create", "--name", "engines", "--budget-usd", "5/day", **prices))
    done(run("teams", "update", "engines", "--models", "a/*,z", "--budget-usd", "5/day", **prices))
    result = run("teams", "update", "engines", "--models", "c,z/*", "--budget-usd", "5/day", **prices)
    assert result.exit_code == 0
    assert result.stderr == (
        "! none of the models that engines may use has a price, so that no call draws on its budget;"
        " write prices into p.yaml (docs/prices.md)\n"
    )


def test_a_list_of_prices_that_cannot_be_read_is_told_when_a_budget_is_set(run: Run) -> None:
    Path("p.yaml").write_text("unit: dollars\n")
    result = run("teams", "create", "--name", "engines", "--budget-usd", "5/day", GATEWAY_PRICES_FILE="p.yaml")
    assert result.exit_code == 0
    assert result.stderr.startswith("! prices cannot be read: p.yaml:1: unit: ")


def test_a_running_gateway_without_prices_is_told_of_too_and_its_limits_say_so() -> None:
    with serving() as there:
        result = call("teams", "create", "--name", "engines", "--budget-usd", "5/day", **there)
        assert (result.exit_code, result.stderr) == (0, NO_PRICES)
        shown = done(call("limits", "show", "--team", "engines", **there))
        assert shown.endswith("\nNo model has a price, so that no call draws on a budget: see docs/prices.md.\n")
        assert answer(call("limits", "show", "--team", "engines", "--json", **there))["has_prices"] is False


def test_a_running_gateway_with_prices_has_its_budgets_set_and_shown_without_a_word(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(PRICE)
    with serving(prices={"file": str(tmp_path / "p.yaml")}) as there:
        done(call("teams", "create", "--name", "engines", "--budget-usd", "5/day", **there))
        assert "No model" not in done(call("limits", "show", "--team", "engines", **there))
        assert answer(call("limits", "show", "--team", "engines", "--json", **there))["has_prices"] is True


@pytest.mark.parametrize("in_redis", [False, True])
def test_calls_without_a_price_are_told_of_where_a_budget_is_shown(run: Run, tmp_path: Path, in_redis: bool) -> None:
    prices = tmp_path / "p.yaml"
    prices.write_text(PRICE)
    done(run("teams", "create", "--name", "engines", "--budget-usd", "5/month", GATEWAY_PRICES_FILE=str(prices)))
    ada, eve = a_key(run, "engines", "ada"), a_key(run, "engines", "eve")
    secret = answer(run("keys", "rotate", "engines/ada", "--json"))["secret"]
    put([call_of(ada, "req_1", model="a/b"), *unpriced_calls(ada, "x"), *unpriced_calls(eve, "y", "y", "v", "w", "z")])
    database = {"url": str(database_url(Settings()))}
    begin = f"{datetime.now(UTC):%Y-%m}-01"

    def shown(*words: str, **environ: str) -> list[str]:
        return [line for line in done(run("limits", "show", *words, **environ)).splitlines() if "of its calls" in line]

    def said(count: int, models: str) -> list[str]:
        held = "Of a model without any price budgets hold nothing, of others what was reserved."
        return [f"{count} of its calls since {begin} used what has no price: {models}. {held} See docs/prices.md."]

    with contextlib.ExitStack() as stack:
        if in_redis:
            there = {"GATEWAY_REDIS_URL": shared_server("valkey").url, "GATEWAY_PRICES_FILE": str(prices)}
        else:
            there = stack.enter_context(serving(prices={"file": str(prices)}, database=database))
            own = {**there, "GATEWAY_ADMIN_KEY": secret}
            assert shown(**own) == shown("--key-of", "ada", **own) == said(1, "x")
            assert shown(**there) == []
        assert shown("--key-of", "engines/ada", **there) == said(1, "x")
        (line,) = shown("--team", "engines", **there)
        assert line.startswith(f"6 of its calls since {begin} ")
        assert " and others. Of a model without" in line
        done(run("teams", "update", "engines", "--budget-usd", "none/month", "--budget-usd", "5/total", **there))
        assert shown("--key-of", "ada", **there)[0].startswith("1 of its calls in the last 365 days used what ")


def test_a_budget_that_holds_all_calls_is_shown_without_a_word(run: Run, tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(PRICE)
    there = {"GATEWAY_REDIS_URL": shared_server("valkey").url, "GATEWAY_PRICES_FILE": "p.yaml"}
    done(run("teams", "create", "--name", "engines", "--budget-usd", "5/week", "--budget-usd", "1/day", **there))
    ada = a_key(run, "engines", "ada")
    put([call_of(ada, "req_1", model="a/b"), *unpriced_calls(ada, "x", ago_s=8 * 86_400)])
    shown = done(run("limits", "show", "--team", "engines", **there))
    assert ("budget/week" in shown, "has no price" in shown) == (True, False)


@pytest.mark.parametrize(
    ("windows", "since"),
    [
        ({"month": "2026-12", "week": "2026-W49"}, "2026-11-30"),
        ({"month": "2026-12", "week": "2026-W50", "day": "2026-12-09"}, "2026-12-01"),
        ({"day": "2026-12-09"}, "2026-12-09"),
        ({"day": "2026-12-09", "total": "total"}, "365d"),
    ],
)
def test_calls_are_told_of_since_the_first_of_the_budgets_began(windows: dict[str, str], since: str) -> None:
    assert begin_of(windows)[0] == since


def unpriced_calls(principal: Principal, *models: str, ago_s: float = 0.0) -> list[CallRecord]:
    """A call of each of these models."""
    return [
        call_of(principal, f"req_{principal.key_id}_{at}", ago_s, model=model, cost_microusd=None)
        for at, model in enumerate(models)
    ]


@pytest.mark.parametrize(
    ("one", "other", "may"),
    [
        ("a", "a", True),
        ("a", "b", False),
        ("*", "b", True),
        ("a/*", "a/b", True),
        ("a/*", "b/*", False),
        ("a/*", "a/b*", True),
        ("*-mini", "a/*", True),
        ("*-mini", "*-pro", False),
        ("a*c", "a/b", False),
    ],
)
def test_whether_two_patterns_may_mean_one_model(one: str, other: str, may: bool) -> None:
    assert (may_overlap(one, other), may_overlap(other, one)) == (may, may)


def test_an_alias_has_the_price_of_what_it_stands_for() -> None:
    record = {"name": "ada", "grants": {"models": ["short"]}}
    assert unpriced(record, ("vendor/long",), {"short": "vendor/long"}) is None
    assert unpriced(record, ("vendor/long",), {}) is not None
