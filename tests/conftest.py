"""Options and fixtures that all tests share."""

import pytest

pytest_plugins = ["tests.support.stores"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run the long forms of the experiments too")


@pytest.fixture(scope="session")
def is_long(request: pytest.FixtureRequest) -> bool:
    """Whether the long forms were asked for: a test then takes its full numbers."""
    return bool(request.config.getoption("--long"))
