"""The prices that hold now: of a file that is read again when it has changed.

Knows when to read. A file that cannot be used changes nothing: the prices before it stay in force, which is said once
in the log and shown by a metric until the file is mended.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

from gateway.metering.prices import DEFAULT_FILE, Price, PriceList, PricesError, load_prices
from gateway.observe.families import Counted, Family, Gauged

_LOOK_EVERY_S = 2.0

_log = logging.getLogger("gateway")

Stamp = tuple[int, int, int]
"""Of a file: when it was changed, its size, and which file it is."""


class PriceBook:
    """Begins with the file's prices; follows them from `start` to `close`. None: `config/prices.yaml`, if it is there.

    Raises PricesError where the file cannot be used to begin with.
    """

    price_of: Callable[[str], Price | None]
    """The price of a model now, None if it is unpriced. That of the prices themselves: it is asked for every call."""

    def __init__(self, path: Path | None, *, look_every_s: float = _LOOK_EVERY_S) -> None:
        self._path = DEFAULT_FILE if path is None else path
        self._look_every_s = look_every_s
        self._stamp = self._seen = self._stamped()
        self._use(load_prices(path))
        self._task: asyncio.Task[None] | None = None
        self.readings = {"loaded": 0, "failed": 0}
        """How often the file had changed and was read, by what came of it."""
        self.is_stale = False
        """The file as it is now cannot be used."""

    def __repr__(self) -> str:
        return f"PriceBook({self._prices!r}, is_stale={self.is_stale})"

    @property
    def priced(self) -> int:
        """How many entries have a price now."""
        return self._prices.priced

    def _use(self, prices: PriceList) -> None:
        self._prices = prices
        self.price_of = prices.price_of

    def start(self) -> None:
        """Begin to follow the file."""
        self._task = asyncio.create_task(self._follow())

    async def close(self) -> None:
        """Leave off."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def look(self) -> None:
        """Read the file, if it has changed, but not since the look before: half a file may be one too. Never raises."""
        stamp = await asyncio.to_thread(self._stamped)
        before, self._seen = self._seen, stamp
        if stamp == self._stamp or stamp != before:
            return
        self._stamp = stamp
        try:
            prices = await asyncio.to_thread(load_prices, self._path)
        except PricesError as error:
            self._keep(error.problems)
        except Exception as error:
            self._keep([repr(error)])
        else:
            if self._prices.priced and not prices.priced:
                self._keep([f"{self._path}: has no price any more; if that is meant, start the gateway anew"])
                return
            self._use(prices)
            self.readings["loaded"] += 1
            self.is_stale = False
            _log.info("prices were read again: %d of %d models priced", self._prices.priced, len(self._prices))

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(self._look_every_s)
            await self.look()

    def _keep(self, problems: list[str]) -> None:
        self.readings["failed"] += 1
        self.is_stale = True
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        _log.error("the new prices cannot be used, and those before stay in force: %s%s", problems[0], more)

    def _stamped(self) -> Stamp | None:
        """None: there is no such file."""
        try:
            found = self._path.stat()
        except (OSError, ValueError):  # ValueError: a NUL in the path
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino


def readings_of_prices(book: PriceBook) -> Iterator[Family]:
    """How the file does."""

    def read() -> dict[tuple[str, ...], int]:
        return {(result,): count for result, count in book.readings.items()}

    yield Counted("price_reloads", "Changes of the file of prices, by what came of it.", ("result",), read)
    yield Gauged("prices_stale", "Whether the file cannot be used.", (), lambda: {(): float(book.is_stale)}, "max")
