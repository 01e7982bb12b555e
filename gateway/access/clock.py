"""The clock that administration goes by."""

import time


def unix_time() -> int:
    """Whole seconds."""
    return int(time.time())
