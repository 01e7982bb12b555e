"""Where a budget's sum is kept: what the id of its rule says of whose it is and of which window.

Pure. `team_1/key_1/budget/month/2026-11` is the key's, in that month; `team_1/budget/total` the team's, for ever.
"""

from gateway.limits.rules import Rule

_BETWEEN = "/budget/"


def place(rule: Rule) -> tuple[str, str]:
    """The subject's id and the window's. Raises ValueError for a rule that is no budget."""
    subject_id, _, window_id = rule.id.partition(_BETWEEN)
    if rule.dimension != "budget" or not subject_id or not window_id:
        raise ValueError(f"{rule.id!r} is not the id of a budget's rule")
    return subject_id, window_id
