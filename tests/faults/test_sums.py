"""Thousands of calls of all kinds, and then: what upstream says it served is in the ledger, to the token and the
micro-dollar, and metrics, limits and budgets say the same.
"""

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import uvloop

from tests.faults.bills import Prompts, Tokens, bill, cost_microusd
from tests.faults.mixed_calls import EMBEDDING, FREE, LARGE, SMALL, Seen
from tests.faults.traffic import LATE_MODEL, Run, run_of

CALLS, CALLS_LONG = 600, 10_000
Call = dict[str, Any]


@pytest.fixture(scope="module", params=["memory", "valkey"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, is_long: bool) -> Run:
    """When all calls have ended: of one gateway that counts limits in memory, or of two that share them in Valkey."""
    return uvloop.run(run_of(request.param, tmp_path_factory.mktemp("sums"), CALLS_LONG if is_long else CALLS))


# What upstream served, and the ledger


def test_calls_end_in_every_way_there_is(run: Run) -> None:
    calls = run.told.calls.values()
    ends = {"done", "refused", "upstream_error", "failed", "cut", "client_left"}
    assert {call["outcome"] for call in calls} == ends
    assert {call["usage_source"] for call in calls} == {"none", "reported", "estimated", "due"}
    assert {200, 400, 403, 404, 429, 500, 502, 503, 504} <= {call["status"] for call in calls}


def test_every_call_is_on_record_once_with_what_upstream_served(run: Run) -> None:
    prompts = Prompts(run.seen)
    records = [run.call_of(seen) for seen in run.seen]
    assert len({call["id"] for call in records}) == len(run.seen)
    assert len(run.told.calls) == len(run.seen) + 4 * len(run.late)
    wrong = [
        (seen.planned, told)
        for seen, call in zip(run.seen, records, strict=True)
        if (told := differences(seen, call, prompts))
    ]
    assert wrong == []


def test_what_became_known_after_its_call_is_on_record_once(run: Run) -> None:
    assert {call["id"]: tokens(call) for call in run.told.calls.values() if call["id"].startswith("late_")} == run.late
    for each, used in run.late.items():
        assert run.told.calls[each]["cost_microusd"] == cost_microusd(LATE_MODEL, used)


def differences(seen: Seen, call: Call, prompts: Prompts) -> list[object]:
    """What is on record of a call, and should be otherwise."""
    due, model = bill(seen), call["model"]
    who = (call["key"], call["team"], call["route"])
    facts: list[tuple[object, object]] = [
        (who, (seen.planned.who.name, seen.planned.who.team, seen.planned.path)),
        (call["outcome"], due.outcome),
        (model, seen.planned.model if call["outcome"] != "refused" else model),
    ]
    source = call["usage_source"]
    if source == "reported" and (due.source == "reported" or due.may_be_reported):
        facts.append((tokens(call), due.tokens))
    elif source == "estimated" == due.source:
        (least, most), (fewest, longest) = prompts.tokens(seen.planned), due.output
        facts.append((least <= tokens(call).input <= most, True))
        facts.append((fewest <= tokens(call).output <= longest, True))
    else:
        facts.append((source, due.source))
    facts.append((call["cost_microusd"], cost_of(call)))
    return [fact for fact in facts if fact[0] != fact[1]]


def tokens(call: Call) -> Tokens:
    """Those on record; of none, zeros."""
    usage = call["usage"] or {}
    names = ("input_tokens", "output_tokens", "cached_tokens", "reasoning_tokens")
    return Tokens(*(usage.get(name, 0) for name in names))


def cost_of(call: Call) -> int | None:
    """What a call on record must have cost, by its tokens."""
    match call["usage_source"]:
        case "none" | "due":
            return 0
        case "unknown":
            return None
    return cost_microusd(call["model"], tokens(call))


# The sums


def test_sums_by_team_key_model_and_day_are_those_of_the_calls(run: Run) -> None:
    expected: dict[tuple[object, ...], Counter[str]] = {}
    for call in run.told.calls.values():
        day = datetime.fromtimestamp(call["started_at_us"] / 1e6, UTC).date().isoformat()
        place = (call["team"], call["key"], call["model"], day)
        expected.setdefault(place, Counter()).update(counts(call))
    found = {}
    for row in run.told.rows:
        group = row["group"]
        place = (group["team"], group["key"], group["model"], group["day"])
        found[place] = Counter({name: row[name] for name in COUNTED})
    assert found == expected
    assert Counter({name: run.told.totals[name] for name in COUNTED}) == sum(expected.values(), Counter())


COUNTED = (
    "calls",
    "refused_calls",
    "failed_calls",
    "estimated_calls",
    "unknown_calls",
    "unpriced_calls",
    "input_tokens",
    "output_tokens",
    "total_tokens",
    "cached_tokens",
    "reasoning_tokens",
    "cost_microusd",
)


def counts(call: Call) -> dict[str, int]:
    """What a call adds to sums."""
    used, source, outcome = tokens(call), call["usage_source"], call["outcome"]
    cost = cost_of(call)
    amounts = (
        not call["id"].startswith("late_"),
        outcome == "refused",
        outcome in ("upstream_error", "failed", "cut"),
        source == "estimated",
        source == "unknown",
        source in ("reported", "estimated") and cost is None,
        used.input,
        used.output,
        used.input + used.output,
        used.cached,
        used.reasoning,
        cost or 0,
    )
    return dict(zip(COUNTED, map(int, amounts), strict=True))


def test_metrics_of_all_gateways_are_the_sums_of_the_ledger(run: Run) -> None:
    for team, model in {(call["team"], label(call)) for call in run.told.calls.values()}:
        sums: Counter[str] = Counter()
        for call in run.told.calls.values():
            if (call["team"], label(call)) == (team, model):
                sums.update(counts(call))
                sums.update([call["usage_source"], *([] if call["id"].startswith("late_") else [call["outcome"]])])
        metric = run.told.metric
        of = {"team": team, "model": model}
        for kind in ("input", "output"):
            assert metric("tokens_total", kind=kind, **of) == sums[f"{kind}_tokens"]
        for kind in ("cached", "reasoning"):
            assert metric("token_details_total", kind=kind, **of) == sums[f"{kind}_tokens"]
        for outcome in ("done", "refused", "upstream_error", "failed", "cut", "client_left"):
            assert metric("requests_total", outcome=outcome, **of) == sums[outcome], (of, outcome)
        for source in ("reported", "estimated", "due", "unknown"):
            assert metric("usage_records_total", source=source, **of) == sums[source], (of, source)
        assert round(metric("cost_usd_total", **of) * 1e6) == sums["cost_microusd"]
        assert metric("unpriced_requests_total", **of) == sums["unpriced_calls"]
    everybody = run.told.metric("requests_total") - run.told.metric("requests_total", team="none")
    assert everybody == run.told.totals["calls"]
    assert run.told.metric("tokens_total") == run.told.totals["total_tokens"]
    assert round(run.told.metric("cost_usd_total") * 1e6) == run.told.totals["cost_microusd"]


def label(call: Call) -> str:
    """The model of a call as metrics name it."""
    model = call["model"]
    return str(model or "none") if model in (LARGE, SMALL, FREE, EMBEDDING, None) else "other"


# What limits have charged


def bound_by(run: Run, limit: Call) -> Iterator[Call]:
    """The calls on record that a limit binds."""
    team_id, _, rest = limit["id"].partition("/")
    for call in run.told.calls.values():
        is_keys = limit["whose"] != "key" or rest.startswith(call["key_id"])
        is_models = limit["whose"] != "model" or (call["model"] or "").startswith("openai/")
        if call["team_id"] == team_id and is_keys and is_models:
            yield call


def limits_of(run: Run, dimension: str) -> dict[str, Any]:
    return {each: standing for each, standing in run.told.limits.items() if standing.limit["dimension"] == dimension}


def test_buckets_of_tokens_were_charged_what_the_ledger_has(run: Run) -> None:
    found = limits_of(run, "tokens")
    assert sorted(standing.limit["whose"] for standing in found.values()) == ["key"] * 3 + ["model"] + ["team"] * 2
    for standing in found.values():
        calls = list(bound_by(run, standing.limit))
        first = min(calls, key=lambda call: int(call["started_at_us"]))
        least, most = standing.tokens_charged(run.first_s[first["key"]])
        used = sum(tokens(call).input + tokens(call).output for call in calls)
        # Each charge is rounded up to a microsecond of the bucket's pace.
        assert least - 2 <= used <= most + 2, (standing.limit, least, used, most)
        assert most - least < 10, "so little says nothing"


def test_budgets_were_charged_what_the_ledger_has_and_the_store_has_it_too(run: Run) -> None:
    found = limits_of(run, "budget")
    assert len(found) == 5
    for each, standing in found.items():
        cost = sum(call["cost_microusd"] or 0 for call in bound_by(run, standing.limit))
        assert standing.limit["remaining"] == max(0, standing.limit["limit"] - cost), each
        assert run.spent[each] == cost, each


def test_no_slot_of_parallel_calls_is_taken_any_more(run: Run) -> None:
    found = limits_of(run, "parallel")
    assert len(found) == 2
    for standing in found.values():
        assert standing.limit["remaining"] == standing.limit["limit"]
