"""Servers that a test may stop and start again."""

from tests.access.conftest import stoppable_postgres, stoppable_url, valkey

__all__ = ["stoppable_postgres", "stoppable_url", "valkey"]
