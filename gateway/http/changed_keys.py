"""Calls that wait for their turn while their key is changed: they leave where it has ended, or wait by its new limits.

Knows which of the calls in flight wait, and asks whom their keys stand for now. How calls wait is the waiting room's
business, which says when to look; a call that is upstream is never touched.
"""

import asyncio
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, cast

from gateway.access.directory import KeyDirectory
from gateway.errors import InvalidKey, StoreUnavailable
from gateway.relay.allowance import Allowance
from gateway.relay.live import LiveCall

if TYPE_CHECKING:
    from gateway.http.cycle import GatewayCycle
    from gateway.http.repeated import Repeated


class ChangedKeys:
    """Looks through `calls`, which are in flight, whenever `look` is called."""

    def __init__(self, directory: KeyDirectory, allowance: Allowance, calls: Collection[LiveCall]) -> None:
        self._directory = directory
        self._allowance = allowance
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
                for call in filter(_is_in_line, calls):
                    call.cut(refusal)
            except StoreUnavailable:
                continue  # a call is looked at again when its turn has come
            else:
                if principal is not calls[0].principal:
                    await asyncio.sleep(0)  # a team may have thousands of them, and others are not to wait for that
                for call in filter(_is_in_line, calls):
                    self._allowance.change(call, principal)
        self._allowance.room.look()

    def _waiting(self) -> list[list[LiveCall]]:
        """Calls that wait, those of one secret together."""
        found: dict[int, list[LiveCall]] = {}
        for call in filter(_is_in_line, self._calls):
            found.setdefault(id(call.principal), []).append(call)
        return list(found.values())


def _is_in_line(call: LiveCall) -> bool:
    return call.in_line


def _authorization(call: LiveCall) -> bytes | None:
    scope = cast("dict[str, Any]", cast("GatewayCycle", call.wire).scope)
    repeated: Repeated | None = scope["repeated"]
    return dict(scope["headers"]).get(b"authorization") if repeated is None else repeated.head.authorization
