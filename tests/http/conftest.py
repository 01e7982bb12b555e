"""Fixtures for tests of the admin API and of the mirrored surface."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL

from tests.faults.face import TRANSPORTS
from tests.http.admin_server import AdminServer, administered
from tests.http.ledger_world import LedgerWorld, ledger_world
from tests.support.stores import fresh_sqlite_url


@pytest.fixture
def server(tmp_path: Path) -> Iterator[AdminServer]:
    """An admin API on a SQLite store of its own, with the first start's admin key alone."""
    with administered(fresh_sqlite_url(tmp_path)) as running:
        yield running


@pytest.fixture
def both(store_url: URL) -> Iterator[LedgerWorld]:
    """An admin API with a ledger, on each database in turn."""
    with ledger_world(store_url) as there:
        yield there


@pytest.fixture
def world(tmp_path: Path) -> Iterator[LedgerWorld]:
    """An admin API with a ledger, on SQLite."""
    with ledger_world(fresh_sqlite_url(tmp_path)) as there:
        yield there


@pytest.fixture(params=TRANSPORTS)
def upstream_section(request: pytest.FixtureRequest) -> dict[str, Any]:
    return {"transport": request.param}
