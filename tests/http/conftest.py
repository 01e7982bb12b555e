"""Fixtures for tests of the admin API."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.http.admin_server import AdminServer, administered
from tests.support.stores import fresh_sqlite_url


@pytest.fixture
def server(tmp_path: Path) -> Iterator[AdminServer]:
    """An admin API on a SQLite store of its own, with the first start's admin key alone."""
    with administered(fresh_sqlite_url(tmp_path)) as running:
        yield running
