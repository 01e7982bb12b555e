"""Where a rule's counter lives in Redis: names of keys and fields, and a rule's numbers as scripts take them.

Pure. All of a team is in one hash, its leases beside it, under one hash tag, so that a script can see it whole on a
Redis Cluster; so are the endpoints. `calls.lua` says what the fields hold.
"""

from collections.abc import Mapping

from gateway.limits.gcra import burst, capacity_us, pace
from gateway.limits.rules import Charge, Demand, Rule

PREFIX = "gateway:limits:"
ENDPOINTS = "endpoints"
"""The tag of all endpoint rules; ids of teams look otherwise."""
NODES = PREFIX + "nodes"
CLOCK_FIELD = "@"

RATE, BUDGET, PARALLEL = 1, 2, 3
_KINDS = {"requests": RATE, "tokens": RATE, "budget": BUDGET, "parallel": PARALLEL}

MAX_US = 1 << 50
"""35 years, the longest time that is told from never. A sum of two and a Unix time is exact in a double, as Lua has."""
_MAX_AMOUNT = 1 << 52


class Cell:
    """One rule's counter: which `kind`, in the hash (or the sorted set) of which `tag`, under which `name`."""

    __slots__ = ("_gain_us", "_units", "bound", "is_shadow", "kind", "name", "rule", "tag")

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.kind = _KINDS[rule.dimension]
        self.tag = ENDPOINTS if rule.whose == "endpoint" else rule.id.partition("/")[0]
        self.name = _name(rule, self.tag)
        self.bound = min(capacity_us(rule), MAX_US) if self.kind == RATE else min(rule.limit, _MAX_AMOUNT)
        self.is_shadow = rule.shadow
        self._gain_us, self._units = pace(rule) if self.kind == RATE else (1, 1)

    def __repr__(self) -> str:
        return f"Cell({self.rule.id})"

    def amount(self, units: int) -> int:
        """`units` as the scripts take them: microseconds of a rate, else as they are."""
        if self.kind == RATE:
            return min(-(-units * self._gain_us // self._units), MAX_US)
        return min(units, _MAX_AMOUNT)

    def remaining(self, state_us: int) -> int:
        """Whole units that a rate admits at once which drains in `state_us`."""
        if not state_us:
            return burst(self.rule)
        return max((self.bound - state_us) * self._units // self._gain_us, 0)


class Part:
    """What one call asks under one lane: `amounts`, as scripts take them, of `cells`.

    `refund` is what the hash remembers of reserved budgets, for a call that is never heard of again.
    """

    __slots__ = ("amounts", "call_id", "cells", "charges", "refund", "tag")

    def __init__(self, call_id: str, charges: tuple[Charge, ...], cells: list[Cell]) -> None:
        self.call_id = call_id
        self.charges = charges
        self.cells = cells
        self.tag = cells[0].tag
        self.amounts = [cell.amount(charge.amount) for cell, charge in zip(cells, charges, strict=True)]
        self.refund = ""
        for cell, amount in zip(cells, self.amounts, strict=True):
            if cell.kind == BUDGET:
                self.refund += f"\n{1 if cell.tag == self.tag else 2}:{amount}:{cell.name}"

    def __repr__(self) -> str:
        return f"Part({self.call_id}, {self.cells})"

    def came_to(self, actual: Mapping[str, int] | None) -> list[int]:
        """What was true, by rule id, as scripts take it; None: the call never went upstream."""
        if actual is None:
            return [0] * len(self.amounts)
        if not actual:
            return self.amounts
        return [
            cell.amount(actual[charge.rule.id]) if charge.rule.id in actual else amount
            for cell, charge, amount in zip(self.cells, self.charges, self.amounts, strict=True)
        ]


class Cells:
    """The cells of rules that were seen; a rule is known by its identity, since plans make each one once."""

    def __init__(self, most: int = 20_000) -> None:
        self._cells: dict[int, Cell] = {}
        self._most = most

    def of(self, rule: Rule) -> Cell:
        cell = self._cells.get(id(rule))
        if cell is None:
            if len(self._cells) >= self._most:
                self._cells.clear()
            # The cell holds its rule, so that no other can get the same identity.
            cell = self._cells[id(rule)] = Cell(rule)
        return cell

    def parts(self, demand: Demand, *, by_tag: bool) -> tuple[Part, ...]:
        """What `demand` asks, in order: in one part, or in one of each tag."""
        charges = (*demand.charges, *demand.endpoint) if demand.endpoint else demand.charges
        if not by_tag:
            return (self._part(demand, charges),) if charges else ()
        own: dict[str, list[Charge]] = {}
        for charge in charges:
            own.setdefault(self.of(charge.rule).tag, []).append(charge)
        return tuple([self._part(demand, tuple(charges)) for charges in own.values()])

    def _part(self, demand: Demand, charges: tuple[Charge, ...]) -> Part:
        cells_of = self.of
        return Part(demand.call_id, charges, [cells_of(charge.rule) for charge in charges])


def hash_key(tag: str) -> str:
    """The hash of a team, or of the endpoints."""
    return f"{PREFIX}{{{tag}}}"


def node_key(lane: str, node: str) -> str:
    """What a gateway notes of its own batches; `lane` is a tag, or empty where one lane carries all."""
    return f"{PREFIX}{{{lane}}}:node:{node}" if lane else f"{PREFIX}node:{node}"


def call_field(call_id: str) -> str:
    """The field of an admitted call."""
    return "c:" + call_id


def _name(rule: Rule, tag: str) -> str:
    match rule.dimension:
        case "parallel":
            return f"{hash_key(tag)}:leases:{rule.id}"
        case "budget":
            return f"b{rule.resets_at_s or 0}:{rule.id}"
        case _:
            return f"r:{rule.id}"
