"""How many gateways share the limits, as Redis last said; kept in a small file for a start without it.

Knows a number and where it is kept. Nothing fails for want of it: what cannot be read or written is only not known.
"""

import contextlib
import os
from collections import deque
from pathlib import Path

from gateway.limits.patience import Patience
from gateway.limits.redis_keys import NODES
from gateway.limits.server import Server, script

_LIFE_US = 15_000_000
"""How long a gateway's word that it is there counts."""
_BELIEVED = 4
"""A lower number is believed after so many counts: where Redis has just begun anew, the others have yet to speak."""
_PATIENCE_S = 1.0


class Nodes:
    """A gateway here is a process that takes calls, so one with several workers is several.

    Args:
        file: Where the number is kept from one start to the next; None: nowhere.
        at_least: How many there are whatever Redis says.
    """

    def __init__(self, file: Path | None = None, *, at_least: int = 1) -> None:
        self._file = file
        self._at_least = at_least
        self._said = deque([_kept(file)], maxlen=_BELIEVED)

    def __repr__(self) -> str:
        return f"Nodes({self.number})"

    @property
    def number(self) -> int:
        """How many there are, this one included."""
        return max(self._at_least, *self._said)

    async def count(self, server: Server, node: str) -> None:
        """Say that `node` is there, and hear how many are. Raises Away."""
        before = self.number
        told = await server.run(script("nodes.lua"), [NODES], node, _LIFE_US, patience=Patience(_PATIENCE_S))
        self._said.append(int(told))
        if self._file is not None and self.number != before:
            _keep(self._file, self.number)


def _kept(file: Path | None) -> int:
    if file is not None:
        with contextlib.suppress(OSError, ValueError):
            return int(file.read_bytes())
    return 1


def _keep(file: Path, number: int) -> None:
    """One write of always the same length: whoever is killed or writes at the same time leaves no half a number."""
    with contextlib.suppress(OSError):
        kept = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.pwrite(kept, b"%-8d\n" % number, 0)
        finally:
            os.close(kept)
