"""What the states of counters mean: how rules stand, and whether, why and for how long a call is refused.

Pure. States come as `calls.lua` tells them, so the same arithmetic judges what was just told and what is remembered.
"""

from collections.abc import Sequence

from gateway.limits.batch import Answer
from gateway.limits.counters import NEVER_US
from gateway.limits.gcra import PARALLEL_RETRY_US, wait_us
from gateway.limits.redis_keys import BUDGET, PARALLEL, RATE, Cell, Part
from gateway.limits.rules import Decision, Standing


def standing(cell: Cell, state: int, wall_us: int) -> Standing:
    """How a rule stands whose counter is in `state`."""
    rule = cell.rule
    if cell.kind == RATE:
        return Standing(rule, cell.remaining(state), state)
    remaining = rule.limit - state
    if cell.kind == PARALLEL or rule.resets_at_s is None:
        return Standing(rule, max(remaining, 0), 0)
    return Standing(rule, max(remaining, 0), max(rule.resets_at_s * 1_000_000 - wall_us, 0))


def waits_us(cell: Cell, state: int, amount: int, wall_us: int) -> int:
    """Time until `amount` fits; 0: it does."""
    if cell.kind == RATE:
        return wait_us(state, amount, cell.bound, 0)
    if state + amount <= cell.bound:
        return 0
    if cell.kind == PARALLEL:
        return PARALLEL_RETRY_US
    resets_at_s = cell.rule.resets_at_s
    return NEVER_US if resets_at_s is None else max(resets_at_s * 1_000_000 - wall_us, 1)


def admission(cells: Sequence[Cell], amounts: Sequence[int], states: Sequence[int], wall_us: int) -> Decision:
    """`states` after the charge."""
    exceeded = [
        cell.rule
        for cell, amount, state in zip(cells, amounts, states, strict=True)
        if cell.is_shadow and waits_us(cell, state - amount, amount, wall_us)
    ]
    return Decision(True, _standings(cells, states, wall_us), exceeded=tuple(exceeded))


def refusal(cells: Sequence[Cell], amounts: Sequence[int], states: Sequence[int], first: int, wall_us: int) -> Decision:
    """`states` before the charge that was not made. The endpoint's, after the `first`, are told only if that binds."""
    longest_us, binding = 0, None
    for cell, amount, state in zip(cells, amounts, states, strict=False):
        lasts_us = 0 if cell.is_shadow else waits_us(cell, state, amount, wall_us)
        if lasts_us > longest_us:
            longest_us, binding = lasts_us, cell.rule
    if binding is None:
        raise AssertionError("a call was refused that fits")
    standings = _standings(cells if binding.whose == "endpoint" else cells[:first], states, wall_us)
    return Decision(False, standings, binding, 0 if longest_us == NEVER_US else longest_us)


def told(
    parts: Sequence[Part], answers: Sequence[Answer], charged: int | None = None
) -> tuple[list[Cell], list[int], list[int]]:
    """The cells that `answers` are about, what was asked of all of `parts`, and the states.

    Given how many parts were `charged`, states are as they were before it.
    """
    if len(parts) == 1 and not charged and not parts[0].refund:
        return parts[0].cells, parts[0].amounts, answers[0][1:]
    cells = [cell for part in parts for cell in part.cells]
    amounts = [amount for part in parts for amount in part.amounts]
    found = [state for answer in answers for state in answer[1:]]
    states = [unspent(cell.kind, state) for cell, state in zip(cells, found, strict=False)]
    taken = sum(len(part.cells) for part in parts[:charged]) if charged else 0
    states[:taken] = [max(state - amount, 0) for state, amount in zip(states[:taken], amounts, strict=False)]
    return cells[: len(states)], amounts, states


def unspent(kind: int, state: int) -> int:
    """A budget without a counter stands at nothing."""
    return 0 if kind == BUDGET and state < 0 else state


def _standings(cells: Sequence[Cell], states: Sequence[int], wall_us: int) -> tuple[Standing, ...]:
    return tuple(
        [
            Standing(cell.rule, cell.remaining(state), state) if cell.kind == RATE else standing(cell, state, wall_us)
            for cell, state in zip(cells, states, strict=False)
        ]
    )
