"""A rule's id tells which limit it is."""

import pytest

from gateway.limits.plan import Planner, Policy
from gateway.limits.rule_id import limit_of
from gateway.terms import Budgets, Limits, Quota

LIMITS, BUDGETS = Limits(1, 2, 3, 4, 5, 6, 7), Budgets(1, 2, 3, 4)
MODELS = dict.fromkeys(("*", "openai/*", "a/budget/day", "requests/minute", "parallel"), LIMITS)


def test_every_rule_is_named_by_whose_it_is_of_what_and_its_period() -> None:
    planner = Planner(Policy(endpoint=LIMITS))
    quota = Quota("team_1", "key_1", LIMITS, LIMITS, MODELS, BUDGETS, BUDGETS)
    rules = [*planner.rules(quota, 1_795_348_800.0), *planner.endpoint_rules("upstream")]
    assert len(rules) == (2 + len(MODELS) + 1) * 7 + 2 * 4
    for rule in rules:
        words = (rule.whose, rule.dimension, *([] if rule.period is None else [rule.period]))
        assert limit_of(rule.id) == "/".join(words)


@pytest.mark.parametrize("text", ["", "parallel", "team_1", "team_1/requests/year", "upstream refuses the key"])
def test_what_is_no_rules_id_names_no_limit(text: str) -> None:
    assert limit_of(text) is None
