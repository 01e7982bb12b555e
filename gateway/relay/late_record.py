"""The record of usage that one call was told of and another one caused."""

from gateway.access.ownership import Owner
from gateway.call import CallRecord, Principal, Route
from gateway.metering.late import PREFIX, Late
from gateway.metering.meter import Meter
from gateway.relay.live import ENDPOINT

_LONGEST_NAME = 200


def late_record(told: CallRecord, late: Late, owner: Owner | None, route: Route, meter: Meter) -> CallRecord | None:
    """What `late` says, as a call of whoever made the response by `route`; `told` is the call that heard of it."""
    if told.principal is None:
        return None
    if told.route is route:  # the call that made it asked for a model by name; its reply may name a snapshot of that
        late = late._replace(model=told.model or late.model)
    return record_of(late, _maker(told.principal, owner), told.started_at_s, route, meter)


def record_of(late: Late, maker: Principal, at_s: float, route: Route, meter: Meter) -> CallRecord:
    """What `late` says, as a call of its `maker`'s by `route`, heard of at the Unix time `at_s`."""
    model = None if late.model is None else late.model[:_LONGEST_NAME]
    return CallRecord(
        id=PREFIX + late.response_id,
        upstream_request_id=None,
        principal=maker,
        route=route,
        method=route.method,
        model=model,
        status=200,
        outcome="done",
        streamed=False,
        started_at_s=at_s,
        duration_s=0.0,
        first_byte_s=None,
        overhead_s=None,
        sent_bytes=0,
        usage=late.usage,
        error=None,
        upstream_error=None,
        usage_source="unknown" if late.usage is None else "reported",
        cost_microusd=None if late.usage is None else meter.cost_of(model, late.usage),
        endpoint=ENDPOINT,
    )


def _maker(asking: Principal, owner: Owner | None) -> Principal:
    """Whoever asks is of the same team, and knows of another key of it no more than its id."""
    if owner is None or owner.key_id == asking.key_id:
        return asking
    return Principal(owner.key_id, asking.team, owner.key_id, owner.team_id, quota=asking.quota)
