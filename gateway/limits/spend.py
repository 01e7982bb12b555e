"""What was spent of each budget, kept so that neither a restart nor a flush of Redis forgets it.

Gathers sums in memory and adds them to the store in batches, each exactly once: a batch whose commit was not
answered is asked for by its number before it is added again. Tells `Alerts` which parts of budgets were reached, in
the same transaction. Which call draws on which budget, and whether there is room, is the limiter's business.

A process that is killed loses what it gathered since the last batch: a second's worth, or with the database away all
since then.
"""

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from itertools import islice

from sqlalchemy import delete, exists, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.errors import StoreUnavailable
from gateway.limits.alerts import Alerts, Reached
from gateway.limits.budget_id import place
from gateway.limits.rules import Period, Rule
from gateway.store.engine import Store
from gateway.store.tables import alerts, due_responses, spend, spend_batches
from gateway.store.upsert import insert_into

_log = logging.getLogger(__name__)

MAX_BUDGETS = 100_000
"""How many budgets' sums are kept while the database is away."""
KEPT_S = 90 * 86_400
"""How long a window that is over can be looked at."""

_MOST_SHOWN = 1_000

_BATCH = 500
"""Rows of one transaction: a few milliseconds, for which SQLite lets nobody else write."""
_TIDY_EVERY_S = 3_600.0
_WRITERS_KEPT_S = 7 * 86_400


class _Gathered:
    """What has come together for a budget since its last batch."""

    __slots__ = ("has_refused", "microusd", "place", "rule")

    def __init__(self, rule: Rule, microusd: int) -> None:
        self.place = place(rule)
        self.rule = rule
        self.microusd = microusd
        self.has_refused = False


class Spend:
    """Writes every `every_s` seconds, from `start` to `close`. `now` is Unix time in seconds."""

    def __init__(
        self,
        store: Store,
        *,
        alerts: Alerts | None = None,
        every_s: float = 1.0,
        max_budgets: int = MAX_BUDGETS,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._alerts = alerts
        self._every_s = every_s
        self._max_budgets = max_budgets
        self._now = now
        self._gathered: dict[str, _Gathered] = {}
        self._batch: dict[str, _Gathered] = {}
        self._refused: dict[str, int] = {}
        """The budgets, with their limits, that refused a call since their spending was last written."""
        self._writer_id = uuid.uuid4().hex
        self._number = 0
        self._turn = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._has_failed = False
        self.dropped_microusd = 0
        """What could not be kept, for want of room."""
        self._reset_at: dict[str, float] = {}
        self._newest: dict[tuple[str, Period | None], Reached] = {}

    def __repr__(self) -> str:
        return f"Spend({len(self)} budgets wait to be written, {self.dropped_microusd} micro-dollars dropped)"

    def __len__(self) -> int:
        return len(self._gathered.keys() | self._batch.keys())

    def note(self, rule: Rule, microusd: int) -> None:
        """So much was spent of the budget `rule`. Runs in every call; never waits."""
        gathered = self._gathered.get(rule.id)
        if gathered is not None:
            gathered.rule = rule
            gathered.microusd += microusd
        elif microusd > 0:
            self._keep(_Gathered(rule, microusd))

    def note_refusal(self, rule: Rule) -> None:
        """A call did not fit in what is left of the budget: where that is little, who gets alerts is told."""
        if self._alerts is None or self._refused.get(rule.id) == rule.limit:
            return
        if len(self._refused) >= self._max_budgets:
            self._refused.clear()
        self._refused[rule.id] = rule.limit
        if rule.id not in self._gathered:
            self._keep(_Gathered(rule, 0))
        if rule.id in self._gathered:
            self._gathered[rule.id].has_refused = True

    def used(self) -> dict[tuple[str, Period | None], float]:
        """The part of each budget that is spent, by its subject and period, as this process last saw it.

        Of at most `_MOST_SHOWN` budgets, those whose window is over left out.
        """
        now_s = self._now()
        return {
            which: reached.after_microusd / reached.rule.limit
            for which, reached in self._newest.items()
            if reached.rule.resets_at_s is None or reached.rule.resets_at_s > now_s
        }

    async def load(self, rules: Sequence[Rule]) -> dict[str, int]:
        """What was spent of each budget so far, by rule id: by all nodes up to their last batch, by this one until now.

        For a limiter that has no counter of the window. Raises StoreUnavailable.
        """
        if self._turn.locked() and self._store.is_away:
            raise StoreUnavailable("What was spent cannot be read until the gateway's database is back.")
        async with self._turn:
            found = await self._read(rules)
        for gathered in (*self._batch.values(), *self._gathered.values()):
            if gathered.rule.id in found:
                found[gathered.rule.id] += gathered.microusd
        return found

    def was_reset_since(self, rule_id: str, at_s: float) -> bool:
        """Whether this process has reset a budget after that Unix time; which others did, `due_responses` tells."""
        return self._reset_at.get(rule_id, 0.0) > at_s

    async def reset(self, rules: Sequence[Rule]) -> None:
        """Nothing was spent of these budgets, and nobody was told of it. Raises StoreUnavailable.

        What responses in the background had reserved of them is forgotten as well: it is in no counter any more.
        """
        async with self._turn:
            await self._write_all()
            for rule in rules:
                self._gathered.pop(rule.id, None)
                self._refused.pop(rule.id, None)
                self._newest.pop((place(rule)[0], rule.period), None)
                if len(self._reset_at) >= self._max_budgets:
                    self._reset_at.clear()
                self._reset_at[rule.id] = self._now()
            places = [place(rule) for rule in rules]
            async with self._store.writing() as connection:
                for table in (spend, alerts):
                    here = tuple_(table.c.subject_id, table.c.window_id).in_(places)
                    await connection.execute(delete(table).where(here))
                await _forget_reserved(connection, [rule.id for rule in rules])

    def start(self) -> None:
        """Write in the background."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="spend")

    async def close(self) -> None:
        """Write what is gathered, and stop."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self.flush()

    async def flush(self) -> None:
        """Write what is gathered. Never raises: what cannot be written is kept for the next time."""
        async with self._turn:
            try:
                await self._write_all()
                if self._has_failed:
                    _log.info("What was spent can be written again.")
                self._has_failed = False
            except StoreUnavailable as error:
                self._fail(error.detail)
            except Exception as error:  # a bug here must not keep calls from being made, nor later batches from trying
                self._fail(repr(error), error)

    async def tidy(self) -> None:
        """Delete windows that ended long ago. Raises StoreUnavailable."""
        now_s = int(self._now())
        windows = select(spend.c.subject_id).where(
            spend.c.subject_id == alerts.c.subject_id, spend.c.window_id == alerts.c.window_id
        )
        async with self._store.writing() as connection:
            await connection.execute(delete(spend).where(spend.c.resets_at < now_s - KEPT_S))
            await connection.execute(
                delete(alerts).where(alerts.c.created_at < now_s - KEPT_S, ~exists(windows.correlate(alerts)))
            )
            await connection.execute(delete(spend_batches).where(spend_batches.c.at < now_s - _WRITERS_KEPT_S))

    def _fail(self, reason: str, bug: Exception | None = None) -> None:
        if not self._has_failed:
            _log.warning("What was spent cannot be written, and is kept until it can: %s", reason, exc_info=bug)
        self._has_failed = True

    def _keep(self, gathered: _Gathered) -> None:
        if len(self._gathered) < self._max_budgets:
            self._gathered[gathered.rule.id] = gathered
            return
        if not self.dropped_microusd:
            _log.error("Spending of %d budgets waits for the database; that of others is dropped.", self._max_budgets)
        self.dropped_microusd += gathered.microusd

    async def _write_all(self) -> None:
        while self._batch or self._gathered:
            if not self._batch:
                self._next_batch()
            await self._write()
            self._batch = {}

    def _next_batch(self) -> None:
        """From here on it is what its number stands for: what comes now goes into the next one."""
        self._batch = dict(islice(self._gathered.items(), _BATCH))
        for rule_id in self._batch:
            del self._gathered[rule_id]
        self._number += 1

    async def _write(self) -> None:
        at = int(self._now())
        async with self._store.writing() as connection:
            # An earlier attempt may have gone through without an answer.
            if not await self._claim_number(connection, at):
                return
            reached = await self._add(connection, at)
            has_alerts = self._alerts is not None and await self._alerts.record(connection, reached, at)
        self._show(reached)
        if self._alerts is not None:
            self._alerts.recorded(reached, has_alerts)

    def _show(self, reached: Sequence[Reached]) -> None:
        for each in reached:
            if each.after_microusd > each.before_microusd and not each.has_refused:
                self._refused.pop(each.rule.id, None)  # now it may be little
            which = (place(each.rule)[0], each.rule.period)
            if which in self._newest or len(self._newest) < _MOST_SHOWN:
                self._newest[which] = each

    async def _claim_number(self, connection: AsyncConnection, at: int) -> bool:
        """Whether the batch is new; if so, it is noted as added."""
        statement = insert_into(spend_batches, self._store.dialect)
        new = statement.excluded
        statement = statement.on_conflict_do_update(
            index_elements=["writer_id"],
            set_={"number": new.number, "at": new.at},
            where=spend_batches.c.number < new.number,
        )
        row = {"writer_id": self._writer_id, "number": self._number, "at": at}
        done = await connection.execute(statement.values(row).returning(spend_batches.c.number))
        return done.first() is not None

    async def _add(self, connection: AsyncConnection, at: int) -> list[Reached]:
        statement = insert_into(spend, self._store.dialect)
        new = statement.excluded
        statement = statement.on_conflict_do_update(
            index_elements=["subject_id", "window_id"],
            set_={
                "microusd": spend.c.microusd + new.microusd,
                "resets_at": new.resets_at,
                "updated_at": new.updated_at,
            },
        )
        by_place = {gathered.place: gathered for gathered in self._batch.values()}
        # In one order on all nodes, so that no two transactions wait for each other.
        rows = [_row(by_place[where], at) for where in sorted(by_place)]
        sums = statement.returning(spend.c.subject_id, spend.c.window_id, spend.c.microusd)
        return [
            _reached(by_place[subject_id, window_id], microusd)
            for subject_id, window_id, microusd in await connection.execute(sums, rows)
        ]

    async def _read(self, rules: Sequence[Rule]) -> dict[str, int]:
        """What the store says, but for the batch that is under way."""
        ids = {place(rule): rule.id for rule in rules}
        query = select(spend).where(tuple_(spend.c.subject_id, spend.c.window_id).in_(list(ids)))
        async with self._store.reading() as connection:
            if self._batch:
                await self._forget_if_added(connection)
            rows: Mapping[tuple[str, str], int] = {
                (row.subject_id, row.window_id): row.microusd for row in await connection.execute(query)
            }
        return {rule_id: rows.get(where, 0) for where, rule_id in ids.items()}

    async def _forget_if_added(self, connection: AsyncConnection) -> None:
        query = select(spend_batches.c.number).where(spend_batches.c.writer_id == self._writer_id)
        if (await connection.execute(query)).scalar_one_or_none() == self._number:
            self._batch = {}

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        tidy_at_s = loop.time()
        while True:
            await asyncio.sleep(self._every_s)
            await self.flush()
            if loop.time() >= tidy_at_s:
                tidy_at_s = loop.time() + _TIDY_EVERY_S
                await self._try_to_tidy()

    async def _try_to_tidy(self) -> None:
        try:
            await self.tidy()
        except StoreUnavailable:
            _log.info("Windows of budgets that are over cannot be deleted now; the database is away.")
        except Exception:  # what is over does no harm, and what is spent must still be written
            _log.exception("Windows of budgets that are over cannot be deleted.")


async def _forget_reserved(connection: AsyncConnection, rule_ids: Sequence[str]) -> None:
    table = due_responses.c
    teams = {rule_id.partition("/")[0] for rule_id in rule_ids}
    query = select(table.response_id, table.reserved).where(table.team_id.in_(teams)).order_by(table.response_id)
    for response_id, reserved in (await connection.execute(query.with_for_update())).all():
        kept = {rule_id: amount for rule_id, amount in reserved.items() if rule_id not in rule_ids}
        if len(kept) < len(reserved):
            here = table.response_id == response_id
            await connection.execute(update(due_responses).where(here).values(reserved=kept))


def _row(gathered: _Gathered, at: int) -> dict[str, object]:
    subject_id, window_id = gathered.place
    return {
        "subject_id": subject_id,
        "window_id": window_id,
        "microusd": gathered.microusd,
        "resets_at": gathered.rule.resets_at_s,
        "updated_at": at,
    }


def _reached(gathered: _Gathered, total_microusd: int) -> Reached:
    return Reached(gathered.rule, total_microusd - gathered.microusd, total_microusd, gathered.has_refused)
