"""Which rules bind a call, and what it asks of each."""

import time
from collections.abc import Iterable
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.limits.plan import SHADOWS, Ask, Planner, Policy, actual
from gateway.limits.rules import PERIOD_S, Charge, Demand, Rule
from gateway.terms import Budgets, Limits, Quota

NOW_S = datetime(2026, 11, 22, 12, tzinfo=UTC).timestamp()
ASK = Ask(model="openai/gpt-5.2", tokens=900, cost_microusd=70)
EVERY_LIMIT = Limits(1, 2, 3, 4, 5, 6, 7)
EVERY_BUDGET = Budgets(1, 2, 3, 4)


def quota(
    key: Limits | None = None,
    team: Limits | None = None,
    models: dict[str, Limits] | None = None,
    *,
    key_id: str = "key_1",
    key_budgets: Budgets | None = None,
    team_budgets: Budgets | None = None,
) -> Quota:
    return Quota(
        "team_1",
        key_id,
        key or Limits(),
        team or Limits(),
        models or {},
        key_budgets or Budgets(),
        team_budgets or Budgets(),
    )


def demand(quota: Quota, ask: Ask = ASK, *, policy: Policy | None = None, now_s: float = NOW_S) -> Demand:
    return Planner(policy or Policy()).demand("call_1", quota, ask, now_s)


def amounts(charges: Iterable[Charge]) -> dict[str, int]:
    return {charge.rule.id: charge.amount for charge in charges}


def test_without_limits_nothing_is_asked() -> None:
    assert demand(quota()) == Demand("call_1", "team_1", ())


def test_a_keys_limits_are_asked_each_for_its_amount() -> None:
    assert amounts(demand(quota(EVERY_LIMIT)).charges) == {
        "team_1/key_1/requests/minute": 1,
        "team_1/key_1/requests/hour": 1,
        "team_1/key_1/requests/day": 1,
        "team_1/key_1/parallel": 1,
        "team_1/key_1/tokens/minute": 900,
        "team_1/key_1/tokens/hour": 900,
        "team_1/key_1/tokens/day": 900,
    }


def test_every_limit_becomes_the_rule_that_it_names() -> None:
    rules = {charge.rule.id: charge.rule for charge in demand(quota(EVERY_LIMIT)).charges}
    assert rules["team_1/key_1/tokens/hour"] == Rule(
        "team_1/key_1/tokens/hour", "tokens", "key", "hour", limit=5, burst=5
    )
    assert rules["team_1/key_1/parallel"] == Rule("team_1/key_1/parallel", "parallel", "key", None, limit=7)
    assert [rule.limit for rule in rules.values()] == [1, 2, 3, 7, 4, 5, 6]


def test_key_team_model_and_endpoint_all_bind() -> None:
    limits = Limits(requests_per_minute=5, tokens_per_day=6)
    policy = Policy(endpoint=limits)
    asked = demand(quota(limits, limits, {"openai/*": limits}), Ask("openai/gpt-5.2", 9, 0, "gmi"), policy=policy)
    assert [(charge.rule.whose, charge.rule.id, charge.amount) for charge in asked.charges] == [
        ("key", "team_1/key_1/requests/minute", 1),
        ("team", "team_1/requests/minute", 1),
        ("model", "team_1/model/openai/*/requests/minute", 1),
        ("key", "team_1/key_1/tokens/day", 9),
        ("team", "team_1/tokens/day", 9),
        ("model", "team_1/model/openai/*/tokens/day", 9),
    ]
    assert amounts(asked.endpoint) == {"endpoint/gmi/requests/minute": 1, "endpoint/gmi/tokens/day": 9}


@given(st.sampled_from(["key", "team"]))
def test_a_default_holds_where_nothing_of_its_dimension_is_said(whose: str) -> None:
    own = Limits(requests_per_day=50)
    defaults = Limits(requests_per_minute=5, tokens_per_minute=700, parallel=2)
    policy = Policy(key=defaults) if whose == "key" else Policy(team=defaults)
    prefix = "team_1/key_1" if whose == "key" else "team_1"
    asked = demand(quota(own) if whose == "key" else quota(team=own), policy=policy)
    assert {charge.rule.id: charge.rule.limit for charge in asked.charges} == {
        f"{prefix}/requests/day": 50,
        f"{prefix}/parallel": 2,
        f"{prefix}/tokens/minute": 700,
    }


def test_default_budgets_hold_where_a_key_or_team_has_none() -> None:
    policy = Policy(key_budgets=Budgets(day_microusd=5), team_budgets=Budgets(month_microusd=6))
    own = quota(key_budgets=Budgets(total_microusd=7))
    assert list(amounts(demand(own, policy=policy).charges)) == [
        "team_1/key_1/budget/total",
        "team_1/budget/month/2026-11",
    ]
    assert list(amounts(demand(quota(), policy=policy).charges)) == [
        "team_1/key_1/budget/day/2026-11-22",
        "team_1/budget/month/2026-11",
    ]


def test_an_endpoint_of_its_own_limits_has_these_alone() -> None:
    policy = Policy(endpoint=Limits(parallel=5), endpoints={"gmi": Limits(requests_per_minute=9)})
    planner = Planner(policy)
    assert [rule.id for rule in planner.endpoint_rules("gmi")] == ["endpoint/gmi/requests/minute"]
    assert [rule.id for rule in planner.endpoint_rules("other")] == ["endpoint/other/parallel"]


# Models


@pytest.mark.parametrize(
    ("pattern", "model", "fits"),
    [
        ("openai/gpt-5.2", "openai/gpt-5.2", True),
        ("openai/gpt-5.2", "openai/gpt-5x2", False),
        ("openai/gpt-5.2", "openai/gpt-5.2-mini", False),
        ("openai/*", "openai/gpt-5.2", True),
        ("openai/*", "zai/glm", False),
        ("*", "anything\nat all", True),
        ("*gpt*mini", "openai/gpt-5-mini", True),
        ("gpt-?", "gpt-5", False),
        ("gpt-?", "gpt-?", True),
        ("gpt-[5]", "gpt-5", False),
        ("gpt-[5]", "gpt-[5]", True),
        ("GPT", "gpt", False),
    ],
)
def test_a_models_limits_bind_the_models_that_its_pattern_fits(pattern: str, model: str, fits: bool) -> None:
    asked = demand(quota(models={pattern: Limits(parallel=1)}), Ask(model, 1))
    assert bool(asked.charges) == fits


def test_every_pattern_that_fits_binds_and_its_models_share_it() -> None:
    planner, own = Planner(Policy()), quota(models={"a/*": Limits(parallel=1), "*/b": Limits(parallel=2)})
    one, other = (planner.demand("call", own, Ask(model, 1), NOW_S).charges for model in ("a/b", "a/c"))
    assert [charge.rule.id for charge in one] == ["team_1/model/a/*/parallel", "team_1/model/*/b/parallel"]
    assert [charge.rule.id for charge in other] == ["team_1/model/a/*/parallel"]


def test_a_call_without_a_model_is_bound_by_no_models_limits() -> None:
    assert demand(quota(models={"*": Limits(parallel=1)}), Ask(None, 1)).charges == ()


def test_clients_that_make_up_models_fill_no_memory() -> None:
    planner, own = Planner(Policy()), quota(models={"*": Limits(parallel=1)})
    for number in range(1_000):
        planner.demand("call", own, Ask(f"model-{number}", 1), NOW_S)
        planner.demand("call", own, Ask("m" * 10_000 + str(number), 1), NOW_S)
    assert len(planner._compiled["key_1"].by_model) <= 64
    assert all(len(model) <= 256 for model in planner._compiled["key_1"].by_model)


def test_models_that_the_same_patterns_fit_share_all_that_is_remembered_of_their_rules() -> None:
    planner = Planner(Policy())
    own = quota(models={"a*": Limits(parallel=1), "*b": Limits(parallel=2), "c": Limits(parallel=3)})
    names = [f"{first}{number}{last}" for number in range(300) for first in "ax" for last in "by"]
    rules = [planner.demand("call", own, Ask(name, 1), NOW_S).rules for name in names]
    assert len(set(rules)) == 4  # by a*, by *b, by both, and by none, which has none
    assert None in rules


def test_a_hostile_pattern_costs_little() -> None:
    own = quota(models={"a*" * 128 + "b": Limits(parallel=1)})
    began_s = time.thread_time()
    assert demand(own, Ask("a" * 10_000, 1)).charges == ()
    assert time.thread_time() - began_s < 0.5


# Amounts


def test_a_call_that_uses_no_tokens_asks_for_none_and_costs_nothing() -> None:
    own = quota(EVERY_LIMIT, key_budgets=EVERY_BUDGET)
    asked = demand(own, Ask(endpoint="gmi"), policy=Policy(endpoint=EVERY_LIMIT))
    assert {charge.rule.dimension for charge in (*asked.charges, *asked.endpoint)} == {"requests", "parallel"}


def test_an_estimate_of_nothing_asks_for_one_unit_so_that_a_used_up_limit_refuses_it() -> None:
    own = quota(Limits(tokens_per_minute=5), key_budgets=Budgets(total_microusd=5))
    asked = demand(own, Ask("m", 0, 0, "gmi"), policy=Policy(endpoint=Limits(tokens_per_minute=5)))
    assert set(amounts((*asked.charges, *asked.endpoint)).values()) == {1}


def test_what_a_call_came_to_is_told_by_rule() -> None:
    own = quota(Limits(requests_per_minute=5, tokens_per_minute=5, parallel=5), key_budgets=Budgets(total_microusd=5))
    asked = demand(own, Ask("m", 9, 9, "gmi"), policy=Policy(endpoint=Limits(tokens_per_minute=5)))
    assert actual(asked, tokens=7, cost_microusd=3) == {
        "team_1/key_1/tokens/minute": 7,
        "team_1/key_1/budget/total": 3,
        "endpoint/gmi/tokens/minute": 7,
    }
    assert actual(asked, tokens=None, cost_microusd=0) == {"team_1/key_1/budget/total": 0}
    assert actual(asked, tokens=None, cost_microusd=None) == {}


# Budgets


def test_budgets_name_their_windows_and_when_they_end() -> None:
    asked = demand(quota(key_budgets=EVERY_BUDGET))
    assert [(charge.rule.id, charge.rule.limit, charge.amount) for charge in asked.charges] == [
        ("team_1/key_1/budget/day/2026-11-22", 1, 70),
        ("team_1/key_1/budget/week/2026-W47", 2, 70),
        ("team_1/key_1/budget/month/2026-11", 3, 70),
        ("team_1/key_1/budget/total", 4, 70),
    ]
    ends = [charge.rule.resets_at_s for charge in asked.charges]
    monday_s = int(datetime(2026, 11, 23, tzinfo=UTC).timestamp())
    december_s = int(datetime(2026, 12, 1, tzinfo=UTC).timestamp())
    assert ends == [monday_s, monday_s, december_s, None]


def test_a_new_window_begins_when_the_last_has_ended_and_not_before() -> None:
    planner, own = Planner(Policy()), quota(team_budgets=Budgets(day_microusd=5))
    midnight_s = datetime(2026, 11, 23, tzinfo=UTC).timestamp()
    moments_s = (midnight_s - 60, midnight_s - 0.001, midnight_s, midnight_s + 0.5, midnight_s - 60)
    days = [planner.demand("call", own, ASK, now_s).charges[0].rule.id[-2:] for now_s in moments_s]
    assert days == ["22", "22", "23", "23", "22"]


def test_days_are_those_of_the_zone() -> None:
    own = quota(team_budgets=Budgets(day_microusd=5))
    late_s = datetime(2026, 11, 22, 23, 30, tzinfo=UTC).timestamp()
    asked = demand(own, policy=Policy(zone=ZoneInfo("Europe/Berlin")), now_s=late_s)
    assert list(amounts(asked.charges)) == ["team_1/budget/day/2026-11-23"]


# Shadow


@pytest.mark.parametrize(
    ("shadow", "expected"),
    [
        ("key", {"key/requests", "key/tokens", "key/parallel", "key/budget"}),
        ("tokens", {"key/tokens", "team/tokens", "model/tokens", "endpoint/tokens"}),
        ("team/budget", {"team/budget"}),
        ("endpoint/parallel", {"endpoint/parallel"}),
    ],
)
def test_shadow_names_whose_or_which_limits_only_count(shadow: str, expected: set[str]) -> None:
    own = quota(EVERY_LIMIT, EVERY_LIMIT, {"*": EVERY_LIMIT}, key_budgets=EVERY_BUDGET, team_budgets=EVERY_BUDGET)
    policy = Policy(endpoint=EVERY_LIMIT, shadow=frozenset((shadow,)))
    asked = demand(own, Ask("m", 1, 1, "gmi"), policy=policy)
    rules = [charge.rule for charge in (*asked.charges, *asked.endpoint)]
    assert {f"{rule.whose}/{rule.dimension}" for rule in rules if rule.shadow} == expected
    assert shadow in SHADOWS


# Rules


def test_all_rules_of_a_key_can_be_listed() -> None:
    own = quota(EVERY_LIMIT, EVERY_LIMIT, {"a": EVERY_LIMIT, "b": EVERY_LIMIT}, team_budgets=EVERY_BUDGET)
    rules = Planner(Policy()).rules(own, NOW_S)
    assert len({rule.id for rule in rules}) == len(rules) == 4 * 7 + 4


@given(
    st.lists(st.text("ab/*", min_size=1, max_size=4), max_size=4, unique=True),
    st.sampled_from(sorted(PERIOD_S)),
)
def test_no_two_rules_share_an_id(patterns: list[str], period: str) -> None:
    names = [*patterns, f"a/requests/{period}", "requests/minute", "parallel"]
    own = quota(EVERY_LIMIT, EVERY_LIMIT, dict.fromkeys(names, EVERY_LIMIT), key_budgets=EVERY_BUDGET)
    rules = Planner(Policy()).rules(own, NOW_S)
    assert len({rule.id for rule in rules}) == len(rules)
    assert all(rule.id.startswith("team_1/") for rule in rules)


def test_keys_of_a_team_have_the_teams_rules_as_the_same_objects() -> None:
    planner, limits = Planner(Policy()), Limits(requests_per_minute=5)
    budgets = Budgets(month_microusd=5)
    one, other = (quota(team=limits, models={"*": limits}, key_id=key, team_budgets=budgets) for key in ("k1", "k2"))
    first, second = (planner.demand("call", own, ASK, NOW_S).charges for own in (one, other))
    assert [charge.rule for charge in first] == [charge.rule for charge in second]
    assert all(mine.rule is theirs.rule for mine, theirs in zip(first, second, strict=True))


def test_changed_terms_bind_at_once() -> None:
    planner = Planner(Policy())
    before, after = quota(Limits(parallel=1)), quota(Limits(parallel=2))
    limits = [planner.demand("call", own, ASK, NOW_S).charges[0].rule.limit for own in (before, after, before)]
    assert limits == [1, 2, 1]


def test_a_key_is_bound_where_it_its_team_or_the_endpoint_has_a_rule() -> None:
    free = Quota("t", "k")
    assert not Planner(Policy()).binds(free, "upstream")
    assert Planner(Policy(endpoint=Limits(parallel=1))).binds(free, "upstream")
    assert Planner(Policy(team=Limits(parallel=1))).binds(free, "upstream")
    for bound in (
        Quota("t", "k", key=Limits(requests_per_day=1)),
        Quota("t", "k", model_limits={"m": Limits(tokens_per_day=1)}),
        Quota("t", "k", team_budgets=Budgets(total_microusd=1)),
    ):
        assert Planner(Policy()).binds(bound, "upstream")
