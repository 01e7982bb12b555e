"""What is measured of limits, budgets and alerts, as metric families. Reads; counts nothing itself."""

from collections.abc import Callable, Iterator, Mapping
from typing import get_args

from gateway.limits.alerts import Alerts
from gateway.limits.limiter import Limiter
from gateway.limits.overview import Mode, Overview
from gateway.limits.redis import RedisLimiter
from gateway.limits.spend import Spend
from gateway.limits.tally import Tally
from gateway.observe.families import Counted, Family, Gauged, Summed, Timed

_ALONE: tuple[str, ...] = ()
"""The label values of a family without labels."""


def readings_of_decisions(tally: Tally, overview: Overview, waiting: Callable[[], int]) -> Iterator[Family]:
    """How it was decided, and how it is now. `waiting`: the calls that wait for their turn."""

    def mode() -> dict[tuple[str, ...], float]:
        return {(each,): float(each == overview.mode) for each in get_args(Mode)}

    labels = ("dimension", "outcome", "whose")
    yield Counted("limit_decisions", "Calls that have limits, by how it was decided.", labels, tally.decisions)
    yield Timed("limit_wait_seconds", "How long calls waited for their turn, of those that did.", tally.waited)
    yield Gauged("limit_waiting", "Calls that wait for their turn.", (), lambda: {_ALONE: waiting()})
    yield Gauged("limit_mode", "Where limits are counted: 1 for what is so now.", ("mode",), mode, "max")


def readings_of_redis(limiter: Limiter) -> Iterator[Family]:
    """How Redis does; without samples where there is none."""
    redis = limiter if isinstance(limiter, RedisLimiter) else None

    def number(read: Callable[[RedisLimiter], int]) -> Callable[[], dict[tuple[str, ...], int]]:
        return lambda: {} if redis is None else {_ALONE: read(redis)}

    def unasked() -> dict[tuple[str, ...], int]:
        if redis is None:
            return {}
        return {("remembered",): redis.figures.remembered, ("away",): redis.figures.without}

    def round_trips() -> tuple[int, float] | None:
        return None if redis is None else (redis.figures.round_trips, redis.figures.seconds)

    yield Gauged("limit_nodes", "Gateways that share the limits.", (), number(lambda it: it.nodes), "max")
    yield Gauged("redis_breaker_open", "Whether Redis is taken to be away.", (), number(lambda it: it.is_away), "max")
    yield Summed("redis_round_trip_seconds", "Time for one batch of limits in Redis.", round_trips)
    yield Counted("redis_failures", "Batches without a reply.", (), number(lambda it: it.figures.failures))
    yield Counted("redis_unasked", "Decisions for which Redis was not asked.", ("reason",), unasked)
    yield Counted("redis_lost_ends", "Ends of calls untold to Redis.", (), number(lambda it: it.figures.lost_ends))


def readings_of_money(spend: Spend, alerts: Alerts | None, team_names: Mapping[str, str]) -> Iterator[Family]:
    """How budgets stand and are written down, and who is told. `team_names`: those that are known, by id."""

    def told() -> dict[tuple[str, ...], int]:
        return {} if alerts is None else {("sent",): alerts.sent, ("failed",): alerts.failed}

    def used() -> dict[tuple[str, ...], float]:
        found: dict[tuple[str, ...], float] = {}
        for (subject, period), part in spend.used().items():
            team_id, _, key_id = subject.partition("/")
            found[team_names.get(team_id, team_id), key_id, period or ""] = part
        return found

    labels = ("team", "key_id", "period")
    yield Gauged(
        "budget_used_ratio", "Part of a budget that is spent; key_id is empty for a team's.", labels, used, "max"
    )
    yield Gauged("spend_backlog", "Budgets with spending to be written down.", (), lambda: {_ALONE: len(spend)})
    yield Counted("spend_dropped_usd", "Spending lost.", (), lambda: {_ALONE: spend.dropped_microusd}, 1_000_000)
    yield Counted("alerts", "Attempts to tell the webhook.", ("result",), told)
