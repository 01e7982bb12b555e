"""Which refused calls the ledger keeps singly, and how many it only counts.

To refuse a call costs its client nothing, so a key over its limit may be refused thousands of times a second. Some of
these tell why; the rest are a number, or one key could fill the disk. Pure: no clock, no file.
"""

import msgspec

from gateway.call import CallRecord, Principal

MOST_A_SECOND = 10
"""Refused calls of one key that are kept singly; and kinds of the others that are told apart."""

_QUARTER_S = 900
"""No day begins within one, in any time zone."""
_Kind = tuple[str | None, str | None, str | None, int]


class Counted:
    """A call that stands for itself and `more` like it. `limit` refused them all; None: none did, or several."""

    __slots__ = ("limit", "more", "record")

    def __init__(self, record: CallRecord, limit: str | None) -> None:
        self.record = record
        self.limit = limit
        self.more = 0


class _OfKey:
    __slots__ = ("counted", "singly")

    def __init__(self) -> None:
        self.singly = 0
        self.counted: dict[_Kind, Counted] = {}


class Refusals:
    """The refused calls of one second, by key."""

    def __init__(self) -> None:
        self._keys: dict[str, _OfKey] = {}
        self._second = 0

    def __bool__(self) -> bool:
        """Whether there is anything that was only counted."""
        return any(each.counted for each in self._keys.values())

    def is_over(self, now_s: float) -> bool:
        """Whether another second has begun, so that `ended` is due. `now_s` is Unix time."""
        return int(now_s) != self._second

    def ended(self, now_s: float) -> list[Counted]:
        """Begin anew; what was only counted until now."""
        counted = [each for of_key in self._keys.values() for each in of_key.counted.values()]
        self._keys.clear()
        self._second = int(now_s)
        return counted

    def is_single(self, record: CallRecord, principal: Principal, limit: str | None = None) -> bool:
        """Whether `record`, of a call that `limit` refused, is to be kept singly; else it has been counted."""
        of_key = self._keys.get(principal.key_id)
        if of_key is None:
            of_key = self._keys[principal.key_id] = _OfKey()
        if of_key.singly < MOST_A_SECOND:
            of_key.singly += 1
            return True
        _count(of_key.counted, record, limit)
        return False


def _count(counted: dict[_Kind, Counted], record: CallRecord, limit: str | None) -> None:
    """By route and model, which both may be anything that there is, or that the client has made up; and by limit."""
    quarter = int(record.started_at_s) // _QUARTER_S
    kind: _Kind = (None if record.route is None else record.route.path, record.model, limit, quarter)
    if kind not in counted and len(counted) >= MOST_A_SECOND:
        kind, record, limit = (None, None, None, quarter), msgspec.structs.replace(record, model=None), None
    known = counted.get(kind)
    if known is None:
        counted[kind] = Counted(record, limit)
    else:
        known.more += 1
