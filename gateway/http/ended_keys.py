"""Send calls away that wait for their turn though their key has ended meanwhile.

Knows which of the calls in flight may wait, and asks whom their keys stand for now. How calls wait is the waiting
room's business, which says when to look; a call that is upstream is never touched.
"""

import asyncio
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, cast

from gateway.access.directory import KeyDirectory
from gateway.errors import InvalidKey, StoreUnavailable
from gateway.relay.live import LiveCall

if TYPE_CHECKING:
    from gateway.http.cycle import GatewayCycle
    from gateway.http.repeated import Repeated


class EndedKeys:
    """Looks through `calls`, which are in flight, whenever `look` is called."""

    def __init__(self, directory: KeyDirectory, calls: Collection[LiveCall]) -> None:
        self._directory = directory
        self._calls = calls
        self._task: asyncio.Task[None] | None = None

    def look(self) -> None:
        """Never waits; one look at a time is under way, since a key may have to be asked for."""
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._look())

    async def _look(self) -> None:
        for calls in self._waiting():
            try:
                await self._directory.look_up(_authorization(calls[0]))
            except InvalidKey as refusal:
                for call in filter(_may_wait, calls):
                    call.cut(refusal)
            except StoreUnavailable:
                continue  # a call is looked at again when its turn has come

    def _waiting(self) -> list[list[LiveCall]]:
        """Calls that may wait, those of one secret together."""
        found: dict[int, list[LiveCall]] = {}
        for call in filter(_may_wait, self._calls):
            found.setdefault(id(call.principal), []).append(call)
        return list(found.values())


def _may_wait(call: LiveCall) -> bool:
    """One that is upstream does not, though no limit may have bound it."""
    asked = call.asked
    return asked is not None and asked.demand is None and call.sent_at is None and call.outcome is None


def _authorization(call: LiveCall) -> bytes | None:
    scope = cast("dict[str, Any]", cast("GatewayCycle", call.wire).scope)
    repeated: Repeated | None = scope["repeated"]
    return dict(scope["headers"]).get(b"authorization") if repeated is None else repeated.head.authorization
