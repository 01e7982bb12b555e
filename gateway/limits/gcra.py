"""The arithmetic of rates: a bucket is one number, the time at which it will have drained (GCRA, in microseconds).

Pure: no clock, no storage. All is in integers of any size and is rounded against the caller, so that no rounding can
admit more than a rule allows; scripts that run elsewhere are given the results, and only add and compare.

A bucket's `tat_us` (theoretical arrival time) is a Unix time in microseconds. At or before now: nothing is in it. A
charge adds the time in which the rule gains as much again. What is admitted in any interval of length t is therefore
at most `burst + limit * t / period` units, or one amount where that alone is larger than the burst.

What a call was charged too much is given back as far as it has not drained: what has is gone, as if it had been used.
So the promise holds for what calls took in truth, whenever they tell, as long as none took more than it was charged.
The measure is `given_back`, and errs on the safe side: what was given back to calls charged later counts as if they
had come earlier, since a bucket knows only how much it gave back in all, and not to whom.
"""

from gateway.limits.rules import PERIOD_S, Period, Rule

LEASE_US = 30_000_000
"""How long a parallel call holds its slot without a renewal."""
PARALLEL_RETRY_US = 1_000_000
"""When to ask again for a slot: one that is held may come free at any time, or in an hour."""

PERIOD_US: dict[Period | None, int] = {period: period_s * 1_000_000 for period, period_s in PERIOD_S.items()}


def pace(rule: Rule) -> tuple[int, int]:
    """How fast a rate gains: (microseconds, units gained in them). Raises ValueError for a rule that is no rate.

    Requests come one by one, and so are rounded one by one: else a burst of them would be a request short.
    """
    if rule.period not in PERIOD_US:
        raise ValueError(f"{rule.id} is not a rate")
    period_us = PERIOD_US[rule.period]
    return (-(-period_us // rule.limit), 1) if rule.dimension == "requests" else (period_us, rule.limit)


def increment_us(rule: Rule, amount: int) -> int:
    """The time in which a rate gains `amount` units, rounded up."""
    gain_us, units = pace(rule)
    return -(-amount * gain_us // units)


def capacity_us(rule: Rule) -> int:
    """How far ahead of now a bucket may be filled: its burst as time, rounded down, since charges are rounded up."""
    gain_us, units = pace(rule)
    return burst(rule) * gain_us // units


def burst(rule: Rule) -> int:
    """Units that a rate admits at once when nothing was used before."""
    return rule.burst or rule.limit


def wait_us(tat_us: int, amount_us: int, depth_us: int, now_us: int) -> int:
    """Time until a charge of `amount_us` fits into a bucket of `depth_us` (its `capacity_us`); 0: it fits now.

    More than the bucket holds is admitted when the bucket is empty, and leaves it in debt: a limit below one estimate
    would otherwise admit nothing, ever.
    """
    backlog_us, room_us = tat_us - now_us, depth_us - amount_us
    if backlog_us <= 0 or backlog_us <= room_us:
        return 0
    return backlog_us - max(room_us, 0)


def charged(tat_us: int, amount_us: int, now_us: int) -> int:
    """The bucket after a charge that was made now."""
    if tat_us < now_us:
        return now_us + amount_us
    return tat_us + amount_us


def given_back(over_us: int, mark_us: int, given_us: int, now_us: int) -> int:
    """How much of `over_us`, which a call was charged too much, has not drained and is given back.

    `given_us` is all that the bucket has given back, but for what it gave to the last call in it: nobody stood on that.
    `mark_us` is the bucket after the call's charge and its `given_us` at that time, added up. So what is left now of
    all that was in the bucket then, is at least the difference. Charges behind the call's began at or before now; so
    without all of that, the bucket stands no lower than if they alone had come.
    """
    left_us = mark_us - given_us - now_us
    if left_us <= 0:
        return 0
    return over_us if over_us < left_us else left_us  # noqa: FURB136 - min() takes as long as all else


def remaining(rule: Rule, tat_us: int, now_us: int) -> int:
    """Whole units that would be admitted now, all at once; never negative."""
    if tat_us <= now_us:
        return burst(rule)
    gain_us, units = pace(rule)
    return max((capacity_us(rule) - (tat_us - now_us)) * units // gain_us, 0)


def reset_us(tat_us: int, now_us: int) -> int:
    """Time until the bucket has drained, and all of the rule is there again."""
    return max(tat_us - now_us, 0)
