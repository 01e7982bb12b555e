"""Options and fixtures that all tests share."""

import gc

import pytest

pytest_plugins = ["tests.support.stores"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run the long forms of the experiments too")


def pytest_collection_finish() -> None:
    """What was collected stays: to walk over it again and again would stall the loops that tests run on."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def is_long(request: pytest.FixtureRequest) -> bool:
    """Whether the long forms were asked for: a test then takes its full numbers."""
    return bool(request.config.getoption("--long"))
