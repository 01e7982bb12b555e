"""A store on either kind of database."""

from collections.abc import AsyncIterator

import pytest
from sqlalchemy import URL

from gateway.store.engine import Store


@pytest.fixture
async def store(store_url: URL) -> AsyncIterator[Store]:
    opened = Store(store_url)
    yield opened
    await opened.close()
