"""How lines of the journal become rows of the ledger, and the statements that write them. Pure."""

from collections.abc import Iterable
from typing import Any

import msgspec

from gateway.metering.bulk import BulkInsert
from gateway.metering.ledger_line import Line
from gateway.store.tables import USAGE, call_tags, calls

_UNKNOWN = (None,) * len(USAGE)
_NO_COLUMNS = ("usage", "tags", "more", "due")
"""The last members of a line, which are no columns of `calls` by themselves."""
_members = msgspec.structs.astuple

CALLS = BulkInsert(calls, lambda statement: statement.on_conflict_do_nothing())
NEW_CALLS = BulkInsert(calls, lambda statement: statement.on_conflict_do_nothing().returning(calls.c.id))
TAGS = BulkInsert(call_tags, lambda statement: statement.on_conflict_do_nothing())


def row(line: Line) -> tuple[Any, ...]:
    """In the order of the columns of `calls`. Lines of other versions may know fewer kinds of usage, or more."""
    usage = _UNKNOWN if line.usage is None else (*line.usage, *_UNKNOWN)[: len(_UNKNOWN)]
    return _members(line)[: -len(_NO_COLUMNS)] + usage


def tags(lines: Iterable[Line]) -> list[tuple[Any, ...]]:
    """Rows of `call_tags`, in the order of its columns."""
    return [(line.id, name, value, line.started_at) for line in lines for name, value in line.tags.items()]
