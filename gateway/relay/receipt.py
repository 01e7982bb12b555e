"""What a reply's head tells of its own call: which endpoint, how long here, what was used and what that costs.

Pure. Knows the names of these headers (docs/usage.md) and their units.
"""

from gateway.relay.live import ENDPOINT, LiveCall

Headers = list[tuple[bytes, bytes]]

_UPSTREAM = (b"x-gateway-upstream", ENDPOINT.encode())
_NOT_QUEUED = (b"x-gateway-queue-ms", b"0")
_MILLION = 1_000_000


def receipt(call: LiveCall, now: float) -> Headers:
    """The headers of a reply whose head is written `now` (`perf_counter`); of usage, where it is known already."""
    queue_s, usage = call.queue_s, call.usage
    headers = [
        (b"x-gateway-overhead-ms", b"%.3f" % (call.overhead_s(now) * 1000)),
        (b"x-gateway-queue-ms", b"%d" % round(queue_s * 1000)) if queue_s else _NOT_QUEUED,
    ]
    if call.sent_at is not None:
        headers.append(_UPSTREAM)
    if usage is not None:
        headers += (
            (b"x-gateway-input-tokens", b"%d" % usage.input_tokens),
            (b"x-gateway-output-tokens", b"%d" % usage.output_tokens),
        )
        if call.cost_microusd is not None:
            headers.append((b"x-gateway-cost-usd", b"%d.%06d" % divmod(call.cost_microusd, _MILLION)))
    return headers
