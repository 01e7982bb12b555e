"""The ledger: a record of each call, which outlives the process that made the call.

A call's record is one `write` to a journal file, and a background task carries it from there into the database. So a
killed process loses nothing but how many calls of a key it refused in the last second, beyond the first ten; and a
database that is away costs disk. Where the disk takes nothing either, records wait in memory, as many as there is room
for; a call never fails for want of its record.

Knows how records get from a call to the database and when. What is in them is `ledger_line`'s business, how they become
rows and sums `ledger_drain`'s.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterable

import msgspec

from gateway.call import CallRecord, Principal, Recorded
from gateway.errors import StoreUnavailable
from gateway.metering.ledger_drain import Drain
from gateway.metering.ledger_line import encode
from gateway.metering.refusals import Refusals
from gateway.metering.refused_by import joined
from gateway.store.journal import Journal

MAX_HELD_BYTES = 8 * 1024 * 1024
"""What waits in memory while the journal cannot be written: some 25,000 calls."""

_GATHER_S = 0.5
"""How long records are gathered before they are written to the database."""
_LONGEST_REST_S = 0.02
"""After a batch the background task rests: one burst for all that was gathered would keep calls waiting that come
meanwhile."""
_BEHIND_BYTES = 4 * 1024 * 1024
"""With so much to write, about twelve thousand calls, it takes no rest and gives way to nobody."""
_ADOPT_EVERY_S = 2.0
_RETRY_S = 1.0
_CLOSE_S = 5.0
_DAY_US = 86_400_000_000
_TOO_MANY = 429

_log = logging.getLogger("gateway")


class Ledger:
    """Notes calls from `start` to `close`. Use it on one event loop. `now` is Unix time in seconds.

    `drained`, `lost` and `held_bytes` are how many records came into the database by this process, how many never will,
    and how much waits in memory.
    """

    def __init__(  # noqa: PLR0913 - its parts, and what tests choose
        self,
        journal: Journal,
        drain: Drain,
        *,
        kept_days: int = 0,
        max_held_bytes: int = MAX_HELD_BYTES,
        limit_of: Callable[[str], str | None] = lambda _: None,
        now: Callable[[], float] = time.time,
        rest: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`kept_days`: when the ledger deletes calls; 0: never. `limit_of`: what limit the detail of a 429 names."""
        self._journal = journal
        self._writer = drain
        self._kept_days = kept_days
        self._max_held_bytes = max_held_bytes
        self._now = now
        self._rest = rest
        self._limit_of = limit_of
        self._refusals = Refusals()
        self._held: list[bytes] = []
        self._noted = asyncio.Event()
        self._turn = asyncio.Lock()
        self._is_away = False
        self._tasks: list[asyncio.Task[None]] = []
        self.drained = 0
        self.lost = 0
        self.held_bytes = 0
        self._held_since_s = 0.0

    def __repr__(self) -> str:
        waiting = f"{self._journal.pending_bytes} bytes in the journal, {self.held_bytes} in memory"
        return f"<Ledger: {waiting}, {self.drained} calls drained, {self.lost} lost>"

    @property
    def pending_bytes(self) -> int:
        """What waits in this process's journal for the database."""
        return self._journal.pending_bytes

    @property
    def waiting_since_s(self) -> float | None:
        """When the oldest of what waits came, in Unix time, as the journal has it; None if nothing waits."""
        since_s = self._journal.waiting_since_s
        if not self._held:
            return since_s
        return self._held_since_s if since_s is None else min(since_s, self._held_since_s)

    @property
    def is_journal_writable(self) -> bool:
        """Whether the last record could be written to the journal."""
        return not self._held

    async def start(self) -> None:
        """Begin to drain, what dead processes have left too. Raises OSError where the journal cannot be written."""
        self._journal.open()
        self._tasks = [asyncio.create_task(self._drain_forever()), asyncio.create_task(self._adopt_forever())]

    async def close(self) -> None:
        """Write down what is left, if the database is there and quick; else the journal keeps it."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                await self._could_drain()
        if self._held:
            self._lose(len(self._held), "the gateway ends while neither disk nor database takes them")
        self._journal.close()

    def note(self, recorded: Iterable[Recorded]) -> None:
        """Keep what is known of calls, of those by a known key and on a route; never raises, never waits."""
        lines: list[bytes] = []
        for record, detail in recorded:
            if record.principal is None or record.route is None:
                continue
            try:
                if record.outcome != "refused":
                    lines.append(encode(record))
                else:
                    lines += self._lines_of_refused(record, record.principal, detail)
            except Exception:  # a bug here must not end calls
                if not self.lost:
                    _log.exception("A call cannot be written to the ledger on a bug, and its record is lost.")
                self.lost += 1
        if lines or self._refusals:
            self._keep(lines)
            self._noted.set()

    async def drain(self, *, to_the_end: bool = True) -> None:
        """Write all that waits to the database. Raises `StoreUnavailable` or OSError.

        Unless it is `to_the_end`, what is no whole batch is left for the next time, after the first: while calls keep
        coming, there would be a transaction for each few of them.
        """
        async with self._turn:
            if to_the_end or self._refusals.is_over(self._now()):
                self._keep(self._counted())
            self._put_held_back()
            most_bytes = self._writer.batch_bytes
            while (batch := self._journal.batch(most_bytes)) is not None:
                began_s = time.perf_counter()
                in_haste = to_the_end or self._journal.pending_bytes >= _BEHIND_BYTES
                await self._write(batch.lines, in_haste=in_haste)
                self._journal.acknowledge(batch)
                left_bytes = 0 if to_the_end else self._journal.pending_bytes
                if 0 < left_bytes < most_bytes:
                    self._noted.set()
                    return
                if 0 < left_bytes < _BEHIND_BYTES:
                    await self._rest(min(self._writer.rests * (time.perf_counter() - began_s), _LONGEST_REST_S))
            while self._held:
                some = self._held[:200]
                await self._write(some, in_haste=True)
                self._unhold(len(some))
            if self._refusals:  # the second that they are counted in is not over
                self._noted.set()

    async def _write(self, lines: list[bytes], *, in_haste: bool) -> None:
        kept_since_us = 0 if not self._kept_days else int(self._now() * 1e6) - self._kept_days * _DAY_US
        written = await self._writer.write(lines, kept_since_us=kept_since_us, in_haste=in_haste)
        self.drained += written.new
        self.lost += written.lost

    def _lines_of_refused(self, record: CallRecord, principal: Principal, detail: str) -> list[bytes]:
        """One of its own, or none where it is counted; and what was counted before, if that time is over."""
        lines = self._counted() if self._refusals.is_over(self._now()) else []
        limit = self._limit_of(detail) if record.status == _TOO_MANY else None
        if self._refusals.is_single(record, principal, limit):
            lines.append(encode(_refused_by(limit, record)))
        return lines

    def _counted(self) -> list[bytes]:
        return [encode(_refused_by(each.limit, each.record), each.more) for each in self._refusals.ended(self._now())]

    def _keep(self, lines: list[bytes]) -> None:
        """In the journal, or in memory what does not fit there."""
        if not lines:
            return
        try:
            self._journal.append(b"".join(lines))
        except StoreUnavailable:
            for line in lines:
                try:
                    self._journal.append(line)
                except StoreUnavailable as error:
                    self._hold(line, error.detail)

    def _hold(self, line: bytes, reason: str) -> None:
        """Keep a line in memory, which the journal does not take."""
        if not self._held:
            _log.error("The ledger's journal takes no more, and records of calls wait in memory: %s", reason)
        if self.held_bytes + len(line) > self._max_held_bytes:
            self._lose(1, "neither journal nor memory takes more")
            return
        if not self._held:
            self._held_since_s = self._now()
        self._held.append(line)
        self.held_bytes += len(line)

    def _unhold(self, count: int) -> None:
        self.held_bytes -= sum(map(len, self._held[:count]))
        del self._held[:count]
        if not self._held:
            _log.info("No record of a call waits in memory any more.")

    def _put_held_back(self) -> None:
        """Into the journal, if it takes lines again."""
        with contextlib.suppress(StoreUnavailable):
            while self._held:
                some = self._held[:200]
                self._journal.append(b"".join(some))
                self._unhold(len(some))

    def _lose(self, count: int, reason: str) -> None:
        if not self.lost:
            _log.error("Records of calls are lost, %d by now: %s", count, reason)
        self.lost += count

    async def _drain_forever(self) -> None:
        while True:
            await self._noted.wait()
            self._noted.clear()
            await asyncio.sleep(_GATHER_S)
            if not await self._could_drain(to_the_end=False):
                self._noted.set()
                await asyncio.sleep(_RETRY_S)

    async def _adopt_forever(self) -> None:
        while True:
            with contextlib.suppress(OSError):  # nobody can be adopted from what cannot be read
                if self._journal.adopt():
                    self._noted.set()
            await asyncio.sleep(_ADOPT_EVERY_S)

    async def _could_drain(self, *, to_the_end: bool = True) -> bool:
        """Drain; says once that it is not possible, and once that it is again."""
        try:
            await self.drain(to_the_end=to_the_end)
        except (StoreUnavailable, OSError) as error:
            self._note_away("The ledger cannot be written to the database; its journal keeps it: %s", error)
            return False
        except Exception as error:
            self._note_away("The ledger could not be written on a bug; its journal keeps it: %r", error, bug=error)
            return False
        if self._is_away:
            _log.info("The ledger is written to the database again.")
        self._is_away = False
        return True

    def _note_away(self, sentence: str, error: Exception, *, bug: Exception | None = None) -> None:
        if not self._is_away:
            _log.warning(sentence, getattr(error, "detail", "") or error, exc_info=bug)
        self._is_away = True


def _refused_by(limit: str | None, record: CallRecord) -> CallRecord:
    return record if limit is None else msgspec.structs.replace(record, error=joined(record.error, limit))
