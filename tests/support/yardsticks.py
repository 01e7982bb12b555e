"""What something costs beside something else on the same machine at the same time: a slow machine slows down both."""

import timeit
from collections.abc import Callable

_ROUNDS = 9


def times_as_long(work: Callable[[], object], yardstick: Callable[[], object], number: int = 1) -> float:
    """How many times as long as `yardstick` `work` takes, each done `number` times in turns: by the best of both."""
    pairs = [(timeit.timeit(work, number=number), timeit.timeit(yardstick, number=number)) for _ in range(_ROUNDS)]
    return min(took_s for took_s, _ in pairs) / min(took_s for _, took_s in pairs)


def times_a_count(work: Callable[[], object], number: int = 5_000) -> float:
    """`times_as_long` as to count one more in a dictionary."""
    counts: dict[str, int] = {}

    def count() -> None:
        counts["x"] = counts.get("x", 0) + 1

    return times_as_long(work, count, number)
