"""From lines of the journal to rows of the ledger: each call once, however often its line comes.

A batch is one transaction of a few statements. Which of its calls are new is told by the INSERT, or asked where not all
are, and only those are added to the sums. SQLite is handed an ordinary batch whole. What a response in the background
used is a call of the model that was asked for, whatever name its reply bore, and has the tags of the call that made it.
"""

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError, StatementError
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.call import Usage
from gateway.errors import StoreUnavailable
from gateway.metering import due, rollups
from gateway.metering.ledger_line import Line, decode, usage_of
from gateway.metering.ledger_rows import CALLS, NEW_CALLS, TAGS, row, tags
from gateway.metering.ledger_sqlite import write_ordinary
from gateway.metering.rollups import Days
from gateway.store.engine import Store
from gateway.store.failures import sqlstate
from gateway.store.tables import calls

_BATCH_BYTES = {"sqlite": 96 * 1024, "postgresql": 192 * 1024}
"""Some 300 calls, or 600. SQLite is written by a thread of this process, for which calls wait where that has one
processor; PostgreSQL may be milliseconds away, and a transaction of many costs it little more than one of few."""
_RESTS = {"sqlite": 1, "postgresql": 4}
"""SQLite is given rests within a batch as well; those after it let others write to the file."""
_DATA_CLASSES = ("22", "23")
"""Of PostgreSQL's SQLSTATEs for values that it cannot keep; SQLite keeps nearly all."""

_log = logging.getLogger("gateway")


CostOf = Callable[[str, Usage], int | None]


class Written(NamedTuple):
    """What became of some lines: so many are `new` in the ledger, so many can never be kept, and are `lost`."""

    new: int
    lost: int


class Drain:
    """Writes lines into `store`, whose days are `days`."""

    def __init__(
        self,
        store: Store,
        days: Days,
        *,
        cost_of: CostOf = lambda *_: None,
        due_after_s: float = due.FIRST_S,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`cost_of`: micro-dollars of a model's usage, None without a price. `due_after_s`: when upstream is first
        asked for a response whose usage is due.
        """
        self.written: Callable[[Iterable[Line], Mapping[str, Mapping[str, int]]], None] | None = None
        """Is told the lines that are new, as the database has them by then, and what calls had reserved of whose
        usage they tell, by their ids."""
        self.rests = _RESTS[store.dialect]
        """So many times as long as a batch took it is best to rest after it."""
        self.batch_bytes = _BATCH_BYTES[store.dialect]
        """How many bytes of lines are best written at a time."""
        self._store = store
        self._due_after_s = due_after_s
        self._cost_of = cost_of
        self._days = days
        self._sleep = sleep

    async def write(self, raw: Sequence[bytes], *, kept_since_us: int = 0, in_haste: bool = True) -> Written:
        """Write lines, `in_haste` without giving way to calls.

        Raises `StoreUnavailable`; then, and if it is cancelled, they may have been written or not. What the
        ledger has deleted before `kept_since_us` it would count once more: such lines are lost.
        """
        if self._store.dialect == "sqlite":
            ordinary = await self._write_ordinary(raw, kept_since_us, in_haste=in_haste)
            if ordinary is not None:
                if self.written is not None:
                    self.written(ordinary, {})
                return Written(len(ordinary), 0)
        kept = [line for line in _readable(raw) if line.started_at >= kept_since_us]
        lines, lost = _each_once(kept), len(raw) - len(kept)
        if not lines:
            return Written(0, lost)
        try:
            return Written(await self._write({line.id: line for line in lines}), lost)
        except StoreUnavailable:
            raise
        except Exception as error:
            if len(lines) > 1:
                each = await self._write_each(lines, error)
                return Written(each.new, each.lost + lost)
            if not _is_of_a_line(error):
                raise
            _log_lost(lines[0], error)
            return Written(0, lost + 1)

    async def _write_each(self, lines: Iterable[Line], reason: Exception) -> Written:
        """One of them at least is refused, and must not keep the others.

        Where all are, and not for what is in them, the fault is not theirs: raises `reason`.
        """
        new = taken = 0
        refused: list[tuple[Line, Exception]] = []
        for line in lines:
            try:
                new += await self._write({line.id: line})
                taken += 1
            except StoreUnavailable:
                raise
            except Exception as error:
                refused.append((line, error))
        if not taken and not all(_is_of_a_line(why) for _, why in refused):
            raise reason
        for line, why in refused:
            _log_lost(line, why)
        return Written(new, len(refused))

    async def _write_ordinary(self, raw: Sequence[bytes], kept_since_us: int, *, in_haste: bool) -> list[Line] | None:
        """The lines, all of which were new; None, and nothing is written, where not all are ordinary."""
        sleep = None if in_haste else self._sleep
        try:
            return await self._store.at_once(
                lambda connection: write_ordinary(connection, raw, self._days, kept_since_us, sleep),
                gives_way=not in_haste,
            )
        except StoreUnavailable:
            raise
        except Exception:  # whichever line it is, it is found where each is looked at
            return None

    async def _write(self, lines: dict[str, Line]) -> int:
        """The number of those that are new."""
        new, reserved = await self._step_by_step(lines)
        if self.written is not None:
            self.written(new, reserved)
        return len(new)

    async def _step_by_step(self, lines: dict[str, Line]) -> tuple[list[Line], Mapping[str, Mapping[str, int]]]:
        """Those that are new, and what had been reserved for what is told of others."""
        async with self._store.writing() as connection:
            for line_id, maker in (await due.makers(connection, lines.values())).items():
                if line_id in lines:
                    lines[line_id] = _of_maker(lines[line_id], maker, self._cost_of)
            new = await self._insert(connection, lines)
            if new:
                if rows := tags(new):
                    await TAGS.run(connection, self._store.dialect, rows)
                await rollups.add(connection, self._store.dialect, rollups.sums(new, self._days))
                await due.note(connection, self._store.dialect, new, self._due_after_s)
            return new, await due.settle(connection, lines)

    async def _insert(self, connection: AsyncConnection, lines: dict[str, Line]) -> list[Line]:
        if self._store.dialect == "postgresql":
            # In one order, so that no two nodes wait for each other.
            in_order = [row(lines[line_id]) for line_id in sorted(lines)]
            added = set((await NEW_CALLS.run(connection, "postgresql", in_order)).scalars())
            return [line for line in lines.values() if line.id in added]
        # Nobody else writes meanwhile, so that what is not there now is new.
        known = await connection.execute(select(calls.c.id).where(calls.c.id.in_(list(lines))))
        there = set(known.scalars())
        new = [line for line in lines.values() if line.id not in there]
        if new:
            await CALLS.run(connection, "sqlite", [row(line) for line in new])
        return new


def _readable(raw: Iterable[bytes]) -> list[Line]:
    lines = []
    for each in raw:
        try:
            lines.append(decode(each))
        except msgspec.DecodeError:
            _log.warning("a line of the journal of usage cannot be read, and its call is lost (%d bytes)", len(each))
    return lines


def _each_once(lines: Iterable[Line]) -> list[Line]:
    """Of lines that tell of one call the first stands, unless it knows no usage and a later one does."""
    found: dict[str, Line] = {}
    for line in lines:
        known = found.setdefault(line.id, line)
        if known.usage is None and line.usage is not None:
            found[line.id] = line
    return list(found.values())


def _is_of_a_line(error: Exception) -> bool:
    """Whether it is what a line says that cannot be kept; else time may mend it."""
    cause = (error.orig or error) if isinstance(error, StatementError) else error
    is_odd_value = isinstance(cause, (ValueError, ArithmeticError)) or isinstance(error, IntegrityError)
    return is_odd_value or (sqlstate(error) or "").startswith(_DATA_CLASSES)


def _log_lost(line: Line, error: Exception) -> None:
    _log.error("The ledger's database refuses the record of call %s, which is lost.", line.id, exc_info=error)


def _of_maker(line: Line, maker: due.Maker, cost_of: CostOf) -> Line:
    """The same as the call that asked for it is found: upstream may name a snapshot of a model, which has no price."""
    tags_of_both = {**maker.tags, **line.tags}
    if maker.model is None or line.model == maker.model:
        return msgspec.structs.replace(line, tags=tags_of_both)
    usage = usage_of(line)
    cost = None if usage is None else cost_of(maker.model, usage)
    return msgspec.structs.replace(line, model=maker.model, cost_microusd=cost, tags=tags_of_both)
