"""How a limiter in Redis behaves, and what it counts of itself: plain data."""

import time
from collections.abc import Callable
from typing import Literal

import msgspec

OnFailure = Literal["local", "closed", "open"]
"""While Redis is away: by this node's share, in its memory; nobody is admitted; all are, and nothing is counted."""

MEANS: dict[OnFailure, str] = {
    "local": "kept by this gateway's share, in its memory",
    "closed": "not kept, and no call is admitted",
    "open": "not kept, and every call is admitted",
}
"""What the log says of limits while Redis is away."""


def _steady_us() -> int:
    return time.monotonic_ns() // 1_000


class Timing(msgspec.Struct, frozen=True):
    """How long, how often and how many; seconds where nothing else is said."""

    budget_s: float = 0.1
    """How long a call may wait for Redis."""
    renew_s: float = 10.0
    beat_s: float = 5.0
    """How often this node says that it is there."""
    sweep_s: float = 60.0
    probe_s: float = 0.5
    """How often it is tried whether Redis is back."""
    most_remembered: int = 10_000
    """How many refusals are remembered here, so that asking again costs nothing."""
    clock: Callable[[], int] = _steady_us
    """Microseconds, for what is remembered here: from anywhere, and never back."""


USUAL = Timing()


class Figures(msgspec.Struct):
    """For metrics. Seconds are those of round trips, from sending a batch to its reply."""

    round_trips: int = 0
    seconds: float = 0.0
    longest_s: float = 0.0
    failures: int = 0
    """Batches without a reply."""
    remembered: int = 0
    """Refusals that asked nobody."""
    without: int = 0
    """Decisions that were made without Redis."""
    lost_ends: int = 0
    """Calls whose end Redis never heard of, since it was away for too long."""
