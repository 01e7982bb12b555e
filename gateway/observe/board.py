"""All that is measured in one process, and where several are one gateway, in all of them.

Knows which families there are by being given them, and that workers share a folder; nothing of what is measured.
"""

import contextlib
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from platform import python_version

from gateway import __version__
from gateway.observe.families import Family, Gauged, Reading
from gateway.observe.metrics import CallMetrics
from gateway.observe.process import ProcessFamilies
from gateway.observe.slots import Slots


class Board:
    """What `calls` and `families` tell. `folder` is that of all workers of this gateway; None: there is but one."""

    def __init__(self, calls: CallMetrics, families: Iterable[Family], folder: Path | None = None) -> None:
        self._calls = calls
        self._families = (*families, *_OWN)
        self._process = ProcessFamilies()
        self._slots = None if folder is None else Slots(folder, self._read)

    def collect(self) -> list[Reading]:
        """As it is now, of all workers."""
        return self._read() if self._slots is None else self._slots.collect()

    @contextlib.asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        """The other workers are told meanwhile. Raises OSError."""
        if self._slots is None:
            yield
            return
        self._slots.start()
        try:
            yield
        finally:
            await self._slots.close()

    def _read(self) -> list[Reading]:
        families = (family.collect() for family in self._families)
        return [*self._calls.collect(), *families, *self._process.collect()]


_OWN = (
    Gauged("workers", "Processes that take calls.", (), lambda: {(): 1.0}),
    Gauged(
        "build_info",
        "Versions, as labels.",
        ("version", "python"),
        lambda: {(__version__, python_version()): 1.0},
        "max",
    ),
)
