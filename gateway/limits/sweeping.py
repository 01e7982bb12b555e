"""What says nothing any more is taken out of Redis, team by team, a piece at a time.

Knows who asked and where they keep their counters; what is still of use is `sweep.lua`'s to say.
"""

import contextlib

from gateway.limits.patience import Patience
from gateway.limits.redis_keys import ENDPOINTS, hash_key
from gateway.limits.server import Away, Server, script

_SWEPT_AT_ONCE = 300
_PATIENCE_S = 1.0


class Sweeper:
    """Sweeps in `server` after those whose tags are in `tags`."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.tags: set[str] = set()
        """Whose calls asked since the last sweep, refused ones too: those may be so for what a lost call holds."""

    def __repr__(self) -> str:
        return f"Sweeper({len(self.tags)} tags)"

    async def sweep(self, held: set[str]) -> None:
        """Sweep once; `held` are tags of calls that go on, which are swept again the next time."""
        tags, self.tags = self.tags, held
        for tag in tags:
            with contextlib.suppress(Away):
                await self.sweep_one(tag)

    async def sweep_one(self, tag: str) -> None:
        """Sweep after one of them. Raises `Away`."""
        keys = [hash_key(tag)] if self._server.is_cluster else [hash_key(tag), hash_key(ENDPOINTS)]
        cursor = b"0"
        while True:
            told = self._server.run(script("sweep.lua"), keys, cursor, _SWEPT_AT_ONCE, patience=Patience(_PATIENCE_S))
            cursor = await told
            if cursor == b"0":
                return
