"""What the steps of a call take for granted: a fact that an earlier step has found, and how much of a name is kept."""

from typing import TypeVar

from gateway.errors import InternalError

_T = TypeVar("_T")

BUG = "The gateway failed on a bug of its own. Tell whoever runs it the x-gateway-request-id of this reply."
LONGEST_NAME = 200
"""What is kept of a name that a client chose, such as a model's, for logs and metrics: characters."""


def given(value: _T | None) -> _T:
    """`value`, which an earlier step has set. Raises `InternalError` if it has not."""
    if value is None:
        raise InternalError(BUG)
    return value
