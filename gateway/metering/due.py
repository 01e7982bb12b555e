"""Responses in the background whose usage is not known yet, as rows of the store.

A row comes with its call's record and goes with the record of what it used, each in the same transaction: so what is
due outlives every process, and whoever hears how a response ended, on whichever node, ends it for all. Knows when
upstream is to be asked next; how, is others' business.
"""

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

from sqlalchemy import delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.call import Due
from gateway.metering.late import PREFIX
from gateway.metering.ledger_line import Line
from gateway.store.engine import Store
from gateway.store.tables import call_tags, due_responses
from gateway.store.upsert import insert_into

FIRST_S, LONGEST_S = 60.0, 600.0
"""Upstream is asked so long after a response was made; then after twice as long each time, up to the second."""
GIVE_UP_AFTER_S = 86_400
LEAST_ATTEMPTS = 8
"""A response is not given up before, however old: the gateway itself may have been away."""
KNOWN_AFTER_S = 600
"""So long a node of upstream's may not know yet what another one makes; what is not known later is gone."""
AT_ONCE = 10

Answer = Literal["counted", "unfinished", "gone", "given_up", "failed"]
"""What came of asking: the response has ended; not yet; upstream does not know it, though it is not new;
it takes too long, or is too long to be read; no answer that can be read."""

_Reserved = Mapping[str, int]


class Claimed(NamedTuple):
    """A response that upstream is to be asked for now, and whether for the last time."""

    response_id: str
    team_id: str
    key_id: str
    model: str | None
    is_new: bool
    """Upstream may not know it yet: for its age, or since it has not been asked before."""
    is_last: bool


class Maker(NamedTuple):
    """What a call that made a response asked for, and is found under."""

    model: str | None
    tags: dict[str, str]


async def note(connection: AsyncConnection, dialect: Any, lines: Iterable[Line], first_after_s: float) -> None:
    """Keep what of these calls is due, in the transaction that writes their records."""
    rows = [_row(line, line.due, int(first_after_s * 1e6)) for line in lines if line.due is not None]
    if rows:
        await connection.execute(insert_into(due_responses, dialect).on_conflict_do_nothing(), rows)


def concerns(lines: Iterable[Line]) -> bool:
    """Whether one of these calls is due, or tells of one that was."""
    return any(line.due is not None or line.id.startswith(PREFIX) for line in lines)


async def makers(connection: AsyncConnection, lines: Collection[Line]) -> dict[str, Maker]:
    """Of calls whose responses these lines tell of, where that is due, or is so by one of the lines; by their ids."""
    found = {PREFIX + line.due.response_id: Maker(line.model, line.tags) for line in lines if line.due is not None}
    wanted = [line.id.removeprefix(PREFIX) for line in lines if line.id.startswith(PREFIX) and line.id not in found]
    if wanted:
        table, tag = due_responses.c, call_tags.c
        with_tags = due_responses.outerjoin(call_tags, tag.call_id == table.call_id)
        question = select(table.response_id, table.model, tag.name, tag.value).select_from(with_tags)
        for response_id, model, name, value in await connection.execute(question.where(table.response_id.in_(wanted))):
            maker = found.setdefault(PREFIX + response_id, Maker(model, {}))
            if name is not None:
                maker.tags[name] = value
    return found


async def settle(connection: AsyncConnection, ids: Iterable[str]) -> dict[str, _Reserved]:
    """What the records of these ids tell of is due no more; what was reserved for it, by these ids."""
    wanted = [each.removeprefix(PREFIX) for each in ids if each.startswith(PREFIX)]
    if not wanted:
        return {}
    # In one order, so that no two nodes wait for each other.
    held = select(due_responses.c.response_id).where(due_responses.c.response_id.in_(wanted))
    held = held.order_by(due_responses.c.response_id).with_for_update()
    found = list((await connection.execute(held)).scalars())
    if not found:
        return {}
    ended = delete(due_responses).where(due_responses.c.response_id.in_(found))
    gone = await connection.execute(ended.returning(due_responses.c.response_id, due_responses.c.reserved))
    return {PREFIX + response_id: reserved for response_id, reserved in gone}


class DueResponses:
    """Those of all nodes. `waiting` is how many there were when this process last looked, `answers` counts what came of
    its asking. `now` is Unix time in seconds.
    """

    def __init__(self, store: Store, *, first_after_s: float = FIRST_S, now: Callable[[], float] = time.time) -> None:
        self._store = store
        self._first_after_s = first_after_s
        self._now = now
        self.waiting = 0
        self.answers: dict[Answer, int] = dict.fromkeys(get_args(Answer), 0)

    def __repr__(self) -> str:
        return f"<DueResponses: {self.waiting} waiting>"

    async def claim(self) -> Sequence[Claimed]:
        """Some that are due now, and nobody else's for as long as the next attempt is away. Raises StoreUnavailable."""
        now_us = int(self._now() * 1e6)
        if not await self._is_any_due(now_us):
            return ()
        table = due_responses.c
        some = select(due_responses).where(table.due_at <= now_us).order_by(table.due_at).limit(AT_ONCE)
        async with self._store.writing() as connection:
            rows = (await connection.execute(some.with_for_update(skip_locked=True))).all()
            for row in rows:
                again = {"attempts": row.attempts + 1, "due_at": now_us + self._pause_us(row.attempts + 1)}
                await connection.execute(
                    update(due_responses).where(table.response_id == row.response_id).values(again)
                )
        return [_claimed(row, now_us) for row in rows]

    async def _is_any_due(self, now_us: int) -> bool:
        """Without a lock, so that a node with nothing to do is in nobody's way."""
        question = select(func.count(), func.min(due_responses.c.due_at))
        async with self._store.reading() as connection:
            count, due_at = (await connection.execute(question)).one()
        self.waiting = count
        return due_at is not None and due_at <= now_us

    def _pause_us(self, attempts: int) -> int:
        longest_s = max(LONGEST_S, self._first_after_s)
        return int(min(self._first_after_s * 2 ** min(attempts, 20), longest_s) * 1e6)


def _claimed(row: Any, now_us: int) -> Claimed:
    age_us, attempts = now_us - row.started_at, row.attempts + 1
    is_new = age_us < KNOWN_AFTER_S * 1_000_000 or attempts == 1
    is_last = age_us >= GIVE_UP_AFTER_S * 1_000_000 and attempts >= LEAST_ATTEMPTS
    return Claimed(row.response_id, row.team_id, row.key_id, row.model, is_new, is_last)


def _row(line: Line, due: Due, first_after_us: int) -> dict[str, Any]:
    return {
        "response_id": due.response_id,
        "call_id": line.id,
        "team_id": line.team_id,
        "key_id": line.key_id,
        "model": line.model,
        "started_at": line.started_at,
        "reserved": dict(due.reserved),
        "attempts": 0,
        "due_at": line.started_at + first_after_us,
    }
