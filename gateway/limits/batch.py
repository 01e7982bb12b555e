"""What one gateway asks of Redis at once, as `calls.lua` reads it, and what that answers.

Pure: data in, bytes out, and back. Each rule, field and key stands in a batch once, however many calls name it.
"""

from collections.abc import Iterable, Sequence

import msgspec

from gateway.limits.gcra import LEASE_US
from gateway.limits.redis_keys import CLOCK_FIELD, MAX_US, PARALLEL, Cell, Part, call_field, hash_key

CALL_US = 4 * LEASE_US
"""After that time a call that no gateway holds any more counts as lost."""
NODE_MS = 3_600_000
HASH_S = 62 * 86_400
"""Longer than any window of a budget but the one for ever, which is read back where it is kept for good."""
STRIDE = 10_000
_MOST_PLACES = 2_500
REFUSED, ADMITTED, UNCOUNTED = 0, 1, 2
"""Codes of answers. UNCOUNTED: nothing was done, a budget has no counter; say what was spent, and ask again."""

Answer = list[int]
"""A code, then the state of each cell: microseconds to drain, micro-dollars taken (-1: unknown), calls at once."""


class Reply(msgspec.Struct, array_like=True, frozen=True):
    """`held` is None if the batch came too late and did nothing, else the code for each call held."""

    server_us: int
    held: list[int] | None = None
    answers: list[Answer] = []
    looks: list[int] = []


class End:
    """A call's end: what to add to what it had reserved, or, if nothing is known of it, to charge."""

    __slots__ = ("deltas", "fulls", "part")

    def __init__(self, part: Part, deltas: list[int], fulls: list[int]) -> None:
        self.part = part
        self.deltas = deltas
        self.fulls = fulls

    def __repr__(self) -> str:
        return f"End({self.part.call_id})"


def cancelled(part: Part) -> End:
    """Gives back what was reserved, if anything was."""
    return End(part, [-amount for amount in part.amounts], [0] * len(part.amounts))


class Batch:
    """Gathers, numbers and encodes. `number` and `first_end` are explained in `calls.lua`."""

    def __init__(self, number: int, first_end: int) -> None:
        self._number = number
        self._first_end = first_end
        self._groups: dict[str, dict[str, int]] = {}
        self._places = 0
        self._sets: dict[str, int] = {}
        self._set_groups: list[int] = []
        self._rules: dict[Cell, int] = {}
        self._rule_data: list[list[int]] = []
        self._seeds: list[int] = []
        self._ends: list[list[int]] = []
        self._holds: list[list[int | str]] = []
        self._resets: list[int] = []
        self._asks: list[list[int | str]] = []
        self._looks: list[int] = []

    def seed(self, spent: Iterable[tuple[Cell, int]]) -> None:
        """Budgets that had no counter."""
        for cell, amount in spent:
            self._seeds += (self._rule(cell), amount)

    def end(self, end: End) -> None:
        part = end.part
        op = [self._place(part.tag, call_field(part.call_id))]
        rules = self._rules
        for cell, delta, full in zip(part.cells, end.deltas, end.fulls, strict=True):
            op += (rules.get(cell) or self._rule(cell), delta, full)
        self._ends.append(op)

    def hold(self, part: Part) -> None:
        self._holds.append(self._op(part))

    def ask(self, part: Part) -> None:
        self._asks.append(self._op(part))

    def reset(self, cells: Sequence[Cell]) -> None:
        self._resets += map(self._rule, cells)

    def look(self, cells: Sequence[Cell]) -> None:
        self._looks += map(self._rule, cells)

    @property
    def is_full(self) -> bool:
        """Whether it would take a script too long, or more arguments than Lua can hand on at once."""
        return self._places >= _MOST_PLACES

    def keys(self, node_key: str) -> list[str]:
        return [node_key, *map(hash_key, self._groups), *self._sets]

    def encode(self) -> bytes:
        return _encode(
            (
                *(self._number, self._first_end, LEASE_US, CALL_US, NODE_MS, HASH_S, MAX_US),
                [list(fields) for fields in self._groups.values()],
                self._set_groups,
                *(self._rule_data, self._seeds, self._ends, self._holds, self._resets, self._asks, self._looks),
            )
        )

    def _op(self, part: Part) -> list[int | str]:
        op: list[int | str] = [self._place(part.tag, call_field(part.call_id)), part.refund]
        rules = self._rules
        for cell, amount in zip(part.cells, part.amounts, strict=True):
            op += (rules.get(cell) or self._rule(cell), amount)
        return op

    def _rule(self, cell: Cell) -> int:
        number = self._rules.get(cell)
        if number is None:
            place = self._set(cell) if cell.kind == PARALLEL else self._place(cell.tag, cell.name)
            self._rule_data.append([cell.kind, place, cell.bound, cell.is_shadow])
            number = self._rules[cell] = len(self._rule_data)
        return number

    def _set(self, cell: Cell) -> int:
        number = self._sets.get(cell.name)
        if number is None:
            number = self._sets[cell.name] = len(self._sets) + 1
            self._set_groups.append(self._group(cell.tag)[CLOCK_FIELD] // STRIDE)
        return number

    def _place(self, tag: str, field: str) -> int:
        group = self._groups.get(tag) or self._group(tag)
        place = group.get(field)
        if place is None:
            place = group[field] = group[CLOCK_FIELD] + len(group)
            self._places += 1
        return place

    def _group(self, tag: str) -> dict[str, int]:
        group = self._groups.get(tag)
        if group is None:
            group = self._groups[tag] = {CLOCK_FIELD: (len(self._groups) + 1) * STRIDE + 1}
        return group


_encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(Reply).decode
"""The reply to a batch. Raises msgspec.DecodeError."""
