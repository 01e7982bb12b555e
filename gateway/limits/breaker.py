"""When to stop asking a server that does not answer, and when to ask again.

Pure: told what happened, asked what to do. Knows no server and no clock.
"""

MOST_FAILURES = 3


class Breaker:
    """Opens after `most` failures in a row; while it is open, only probes go through, and one success closes it."""

    def __init__(self, most: int = MOST_FAILURES) -> None:
        self._most = most
        self._failures = 0
        self.is_open = False

    def __repr__(self) -> str:
        return f"Breaker({'open' if self.is_open else 'closed'}, failures={self._failures})"

    def failed(self) -> bool:
        """Note a failure. True if that opened it."""
        self._failures += 1
        if self.is_open or self._failures < self._most:
            return False
        self.is_open = True
        return True

    def succeeded(self) -> bool:
        """Note a success. True if that closed it."""
        was_open, self.is_open, self._failures = self.is_open, False, 0
        return was_open
