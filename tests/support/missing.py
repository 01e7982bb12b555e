"""What a test needs and a machine may lack: an error in CI, where nothing is skipped, and a skip elsewhere."""

import os
from typing import NoReturn

import pytest


def is_missing(what: str) -> NoReturn:
    """End the test that needs it. `what` says what is missing, and how to get it."""
    if os.environ.get("CI"):
        pytest.fail(what)
    pytest.skip(what)
