"""Servers that a test may stop and start again."""

from tests.access.conftest import postgres_apart, stoppable_postgres, stoppable_url, valkey

__all__ = ["postgres_apart", "stoppable_postgres", "stoppable_url", "valkey"]
