"""What a store is asked meanwhile."""

import contextlib
from collections.abc import Iterator
from typing import Any

from sqlalchemy import event

from gateway.store.engine import Store


@contextlib.contextmanager
def queries(store: Store) -> Iterator[list[str]]:
    """The statements that go to the database meanwhile."""
    seen: list[str] = []

    def note(*of: Any) -> None:
        seen.append(of[2])

    event.listen(store.engine.sync_engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(store.engine.sync_engine, "before_cursor_execute", note)
