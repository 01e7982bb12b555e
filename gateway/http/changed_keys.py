"""Calls that wait for their turn while their key is changed: they leave where it has ended, or ask by its new terms.

Knows which of the calls in flight may wait, and asks whom their keys stand for now. How calls wait is the waiting
room's business, which says when to look; a call that is upstream is never touched.
"""

import asyncio
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any, cast

from gateway.access.directory import KeyDirectory
from gateway.call import Principal
from gateway.errors import InvalidKey, StoreUnavailable
from gateway.relay.live import LiveCall

if TYPE_CHECKING:
    from gateway.http.cycle import GatewayCycle
    from gateway.http.repeated import Repeated


class ChangedKeys:
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
                principal = await self._directory.look_up(_authorization(calls[0]))
            except InvalidKey as refusal:
                for call in _waiting(calls):
                    call.cut(refusal)
            except StoreUnavailable:
                continue  # a call is looked at again when its turn has come
            else:
                for call in _waiting(calls):
                    if have_other_terms(principal, call.principal):
                        call.recall()

    def _waiting(self) -> list[list[LiveCall]]:
        """Calls that may wait, those of one secret together."""
        found: dict[int, list[LiveCall]] = {}
        for call in _waiting(self._calls):
            found.setdefault(id(call.principal), []).append(call)
        return list(found.values())


def have_other_terms(principal: Principal, before: Principal | None) -> bool:
    """Whether a key may use something else than it might before, or more or less of it."""
    if principal is before or before is None:
        return False
    return (principal.grants, principal.quota) != (before.grants, before.quota)


def _waiting(calls: Iterable[LiveCall]) -> list[LiveCall]:
    """Those that may wait, in the order in which they came."""
    return sorted((call for call in calls if call.may_wait), key=lambda call: call.started_at)


def _authorization(call: LiveCall) -> bytes | None:
    scope = cast("dict[str, Any]", cast("GatewayCycle", call.wire).scope)
    repeated: Repeated | None = scope["repeated"]
    return dict(scope["headers"]).get(b"authorization") if repeated is None else repeated.head.authorization
