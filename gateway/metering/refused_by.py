"""Which limit refused a call, as the ledger keeps it: behind the code of the error, with a space between them. Pure.

So calls that no limit refused pay for nothing, and rows without a limit are as they ever were.
"""

from sqlalchemy import ColumnElement, and_, func, or_

from gateway.call import Outcome
from gateway.store.tables import calls

_BETWEEN = " "
"""No code of the gateway's own holds one; codes of upstream's, which may, are of calls that were not refused."""


def joined(error: str | None, limit: str | None) -> str | None:
    """What the column holds: `rate_limit_exceeded key/requests/minute`."""
    return f"{error}{_BETWEEN}{limit}" if error and limit else error


def parted(error: str | None, outcome: Outcome) -> tuple[str | None, str | None]:
    """Code and limit of what the column holds."""
    if error is None or outcome != "refused":
        return error, None
    code, _, limit = error.partition(_BETWEEN)
    return code, limit or None


def has_code(code: str) -> ColumnElement[bool]:
    """Whether a call's error has this code, whatever limit it was."""
    begin = code + _BETWEEN
    is_limited = and_(calls.c.outcome == "refused", func.substr(calls.c.error, 1, len(begin)) == begin)
    return or_(calls.c.error == code, is_limited)
