"""Lets the failures of the suites that limiters share be as telling as those of ordinary tests."""

import pytest

pytest.register_assert_rewrite(
    "tests.limits.contract", "tests.limits.contract_rates", "tests.limits.household", "tests.limits.oracle"
)
