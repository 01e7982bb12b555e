"""Lets the failures of the suites that limiters share be as telling as those of ordinary tests."""

import pytest
from hypothesis import settings

pytest.register_assert_rewrite(
    "tests.limits.contract",
    "tests.limits.contract_rates",
    "tests.limits.household",
    "tests.limits.machine",
    "tests.limits.oracle",
)

# How long an example takes depends on what else the machine does; costs are measured where they matter.
settings.register_profile("limits", deadline=None)
settings.load_profile("limits")
