"""Options and fixtures that all tests share."""

import gc
from collections.abc import Mapping

import pytest
from hypothesis import settings

from tests.support.ending import end_all
from tests.support.patience import PatientLoop

pytest_plugins = ["tests.support.stores"]

# The failures of the suites that limiters share are to be as telling as those of ordinary tests.
pytest.register_assert_rewrite(
    "tests.limits.contract",
    "tests.limits.contract_rates",
    "tests.limits.household",
    "tests.limits.machine",
    "tests.limits.oracle",
)

# How long an example takes depends on what else the machine does; costs are measured where they matter.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run the long forms of the experiments too")


def pytest_asyncio_loop_factories() -> Mapping[str, type[PatientLoop]]:
    return {"patient": PatientLoop}


def pytest_collection_finish() -> None:
    """What was collected stays: to walk over it again and again would stall the loops that tests run on."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    """Servers that tests have shared."""
    end_all()


@pytest.fixture(scope="session")
def is_long(request: pytest.FixtureRequest) -> bool:
    """Whether the long forms were asked for: a test then takes its full numbers."""
    return bool(request.config.getoption("--long"))
