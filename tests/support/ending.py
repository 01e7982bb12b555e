"""What a process of tests has to end before it ends: servers that would outlive it.

At the end of the session, and at the latest when Python ends; a worker that takes ten seconds for that is killed, and
would leave them behind.
"""

import atexit
from collections.abc import Callable

_closers: list[Callable[[], object]] = []


def at_end(close: Callable[[], object]) -> None:
    """Call `close` then, before all that was given here earlier."""
    _closers.append(close)


def end_all() -> None:
    """Close everything now."""
    while _closers:
        _closers.pop()()


atexit.register(end_all)
