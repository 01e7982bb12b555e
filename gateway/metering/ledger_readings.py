"""What is measured of the ledger, as metric families. Reads; counts nothing itself."""

import time
from collections.abc import Callable, Iterator

from gateway.metering.due import DueResponses
from gateway.metering.ledger import Ledger
from gateway.observe.families import Counted, Family, Gauged

_ALONE: tuple[str, ...] = ()
"""The label values of a family without labels."""


def readings_of_ledger(ledger: Ledger, now: Callable[[], float] = time.time) -> Iterator[Family]:
    """How records get into the database. `now` is Unix time in seconds."""

    def waiting() -> dict[tuple[str, ...], float]:
        return {("journal",): ledger.pending_bytes, ("memory",): ledger.held_bytes}

    def age_s() -> dict[tuple[str, ...], float]:
        since_s = ledger.waiting_since_s
        return {_ALONE: 0.0 if since_s is None else max(0.0, now() - since_s)}

    yield Gauged("ledger_backlog_bytes", "Records of calls on their way to the database.", ("where",), waiting)
    yield Gauged("ledger_backlog_age_seconds", "How long the oldest record has waited.", (), age_s, "max")
    yield Gauged(
        "ledger_journal_up",
        "Whether the journal takes records.",
        (),
        lambda: {_ALONE: float(ledger.is_journal_writable)},
        "min",
    )
    yield Counted("ledger_records", "Records that came into the database.", (), lambda: {_ALONE: ledger.drained})
    yield Counted("ledger_lost_records", "Records that never will.", (), lambda: {_ALONE: ledger.lost})


def readings_of_due(due: DueResponses) -> Iterator[Family]:
    """Responses in the background whose usage is not known yet."""

    def asked() -> dict[tuple[str, ...], int]:
        return {(answer,): count for answer, count in due.answers.items()}

    yield Gauged("due_responses", "Responses whose usage is to be known.", (), lambda: {_ALONE: due.waiting}, "max")
    yield Counted("due_asks", "Questions to upstream how such a response has ended.", ("result",), asked)
