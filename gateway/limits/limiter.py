"""What every limiter does, wherever it keeps its counters.

Knows no arithmetic and no storage: the memory limiter and the Redis one both are this, and one contract suite asks the
same of both. One call's way is `admit_now` (or `admit`), then exactly one of `settle` and `cancel`.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from gateway.limits.rules import Decision, Demand, Rule, Standing

ENDS_KNOWN_S = 0.01
"""So long after a client has the last byte of a call every node knows of its end: word of it waits for company."""


@runtime_checkable
class Limiter(Protocol):
    """Admits calls all or nothing, and is told afterwards what they came to."""

    def admit_now(self, demand: Demand) -> Decision | None:
        """Decide without waiting. None: only `admit` can tell.

        A call id that was admitted and has not ended yet gets the same admission again and is charged nothing more.
        """

    async def admit(self, demand: Demand, *, asks_again: bool = False) -> Decision:
        """Decide, if need be by asking a server.

        `asks_again`: whoever asks does so again after `ENDS_KNOWN_S` where a slot is all that is missing. Otherwise
        that is done here, a few times: calls may just have ended on other nodes.

        Raises:
            gateway.errors.StoreUnavailable: The server is away, and settings say that nobody is admitted then.
        """

    def settle(self, demand: Demand, actual: Mapping[str, int]) -> None:
        """Put what was true in place of what was reserved, by rule id: tokens, or micro-dollars; and free the slots.

        Rules that are not named keep their charge. The difference is given back, or becomes debt. Never waits, never
        raises; for a call that has ended, or was never admitted, it does nothing.
        """

    def cancel(self, demand: Demand) -> None:
        """Give everything back: the call never went upstream. As `settle`, once and never waiting."""

    def charge(self, demand: Demand) -> None:
        """Charge what became known only after a call's end, whether it fits or not. Never waits, never raises.

        `demand` has an id of its own and holds nothing afterwards; to charge it twice is to charge twice. It names
        rates and budgets alone. The amount of a budget may be negative: as much had been reserved too much. A budget
        that has no counter yet stays without, since what will be read for it holds this.
        """

    async def standings(self, rules: Sequence[Rule]) -> list[Standing]:
        """How each rule stands now, in the order asked.

        Raises:
            gateway.errors.StoreUnavailable: As in `admit`.
        """

    async def reset(self, rules: Sequence[Rule]) -> None:
        """Make all of each rule available again. What calls under way come to counts in full against budgets; of rates
        only what they take beyond what they had reserved.

        Raises:
            gateway.errors.StoreUnavailable: As in `admit`.
        """

    def start(self) -> None:
        """Begin what has to run in the background: renewing leases, sweeping. Needs a running event loop."""

    async def close(self) -> None:
        """Stop it, and let go of connections."""
