"""Try a call again that lacks nothing but a slot: word of the end of another one may be on its way from its node.

Knows how often and after which pauses; how it is decided is the limiter's business.
"""

import asyncio
from collections.abc import Awaitable, Callable

from gateway.limits.limiter import ENDS_KNOWN_S
from gateway.limits.outlook import lacks_slots_alone
from gateway.limits.rules import Decision, Demand

_PAUSES_S = (ENDS_KNOWN_S, ENDS_KNOWN_S, 2 * ENDS_KNOWN_S)
"""More than one, since what comes free may go to another call whose own last slot is known to be free only later."""


async def decide_again(
    demand: Demand, refused: Decision, decide: Callable[[], Awaitable[Decision | None]]
) -> Decision | None:
    """The last word on a call that was `refused`, at once if it lacks more; None: there is none, as from `decide`."""
    decision: Decision | None = refused
    for pause_s in _PAUSES_S:
        if decision is None or not lacks_slots_alone(demand, decision):
            break
        await asyncio.sleep(pause_s)
        decision = await decide()
    return decision
