"""Which names a pattern fits: the one meaning of a star, for grants, for limits of models and for prices."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.terms import matches

PATTERNS = st.text("ab/*", max_size=6)
NAMES = st.text("ab/", max_size=8)


@given(PATTERNS, NAMES)
def test_a_star_stands_for_any_run_and_all_else_for_itself(pattern: str, name: str) -> None:
    oracle = ".*".join(map(re.escape, pattern.split("*")))
    assert matches(pattern, name) == (re.fullmatch(oracle, name) is not None)


@pytest.mark.parametrize("pattern", ["gpt.4", "gpt?4", "gpt-[34]", "GPT-4"])
def test_nothing_but_a_star_is_a_wildcard(pattern: str) -> None:
    assert not matches(pattern, "gpt-4")


def test_a_hostile_pattern_costs_no_more_than_its_length() -> None:
    began_s = time.thread_time()
    assert not matches("a*" * 5_000 + "b", "a" * 10_000)
    assert time.thread_time() - began_s < 0.5
