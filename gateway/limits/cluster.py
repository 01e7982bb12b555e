"""A Redis Cluster: which node has which slot, and a few connections to each.

redis-py's own cluster client closes connections under commands that use them when it learns slots anew, and costs more
than the command; what is needed here is little, since every run of a script has its keys in one slot.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any

from gateway.limits.patience import Patience
from gateway.limits.server import Argument, Away, Script
from gateway.limits.single import ByAddress, Single, failures

_CONNECTIONS = 4
"""To each node: scripts of different tags cannot share a command, so some should be under way at once."""
_REDIRECTIONS = 4
_LEARN_TIMEOUT_S = 2.0

Address = tuple[str, int]


class Cluster:
    """`hosts` are asked who has what; `options` (user, password, TLS) hold for every node."""

    is_cluster = True

    def __init__(self, hosts: Sequence[Address], options: dict[str, Any]) -> None:
        self._hosts = hosts
        self._options = options
        self._slots: list[tuple[int, int, Address]] = []
        self._nodes: dict[Address, list[Single]] = {}
        self._learning: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"Cluster({len(self._nodes)} nodes, {len(self._slots)} ranges)"

    async def run(self, script: Script, keys: list[str], *arguments: Argument, patience: Patience) -> Any:
        """As `Server.run`."""
        try:
            async with patience:
                return await self._run(script, keys[0], (len(keys), *keys, *arguments))
        except TimeoutError:
            # The node may be gone, and another in its place.
            self._slots = []
            raise Away("no answer in time") from None
        except failures() as error:
            raise Away(type(error).__name__) from error

    async def close(self) -> None:
        """As `Server.close`."""
        if self._learning is not None:
            self._learning.cancel()
            await asyncio.gather(self._learning, return_exceptions=True)
        for single in [single for singles in self._nodes.values() for single in singles]:
            await single.close()

    async def _run(self, script: Script, key: str, arguments: tuple[Argument, ...]) -> Any:
        from redis.exceptions import AskError, MovedError, ResponseError  # noqa: PLC0415

        address, is_asking = None, False
        for _ in range(_REDIRECTIONS):
            single = self._single(address or await self._address(key))
            try:
                return await single.evaluate(script, arguments, is_asking=is_asking)
            except MovedError as moved:
                self._slots, address, is_asking = [], moved.node_addr, False
            except AskError as asked:
                address, is_asking = asked.node_addr, True
            except failures():
                self._slots = []
                raise
        raise ResponseError("sent from node to node")

    async def _address(self, key: str) -> Address:
        from redis.crc import key_slot  # noqa: PLC0415

        slot = key_slot(key.encode())
        if not self._slots:
            await self._learned()
        for first, last, address in self._slots:
            if first <= slot <= last:
                return address
        self._slots = []
        raise Away("a slot belongs to no node")

    def _single(self, address: Address) -> Single:
        singles = self._nodes.setdefault(address, [])
        for single in singles:
            if not single.is_busy:
                return single
        if len(singles) < _CONNECTIONS:
            singles.append(Single(ByAddress(*address, self._options)))
            return singles[-1]
        singles.append(singles.pop(0))
        return singles[-1]

    async def _learned(self) -> None:
        """Wait until it is known who has what; whoever asks meanwhile waits for the same answer."""
        if self._learning is None:
            self._learning = asyncio.create_task(self._learn())
            self._learning.add_done_callback(self._forget_learning)
        await asyncio.shield(self._learning)

    def _forget_learning(self, learning: asyncio.Task[None]) -> None:
        self._learning = None
        if not learning.cancelled():
            learning.exception()  # told to those who wait

    async def _learn(self) -> None:
        for address in list(dict.fromkeys([*self._nodes, *self._hosts])):
            with contextlib.suppress(*failures(), TimeoutError):
                async with asyncio.timeout(_LEARN_TIMEOUT_S):
                    told = await self._single(address).command("CLUSTER", "SLOTS")
                self._slots = [_range(entry, address) for entry in told]
                if self._slots:
                    return
        raise Away("no node of the cluster answers")


def _range(entry: list[Any], asked: Address) -> tuple[int, int, Address]:
    """Of CLUSTER SLOTS: first slot, last slot, master, replicas. A node that does not know its own name tells none."""
    first, last, (host, port, *_) = entry[:3]
    return first, last, (host.decode() if host else asked[0], port)
