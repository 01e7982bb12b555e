"""Whose the objects are that upstream stores for the one account that all share.

Who made an object is noted before its id reaches the client: in memory and, with one write, in a journal file, from
where a background task carries it into the database. So noting costs no round trip, and a killed process loses
nothing. Whose an object is comes from memory, or else with one query, which many calls share.

Knows ids and who made what. How an id is found in a request or a reply is others' business.
"""

import asyncio
import contextlib
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Executable, select
from sqlalchemy.dialects import sqlite

from gateway.call import Principal
from gateway.errors import NotFound, StoreUnavailable
from gateway.store.engine import Store
from gateway.store.journal import Journal, Marks
from gateway.store.tables import owners

MAX_REMEMBERED = 50_000
"""Objects whose owner is kept in memory, about 300 bytes each."""
MAX_ID_LENGTH = 256

_DRAIN_AFTER_S = 0.05
"""How long what was noted is gathered before it is written to the database."""
_ADOPT_EVERY_S = 2.0
_RETRY_S = 1.0
_REFUSE_AFTER_S = 0.3
"""An id may have been made by another node just now; that long is it looked for."""
_LOOK_AGAIN_S = 0.1
_IDS_A_QUERY = 500
_IDS_A_LOOK = 100
"""How many ids one call has in a query: an unknown one among them ends it, and those who wait take turns."""

_log = logging.getLogger("gateway")


class Owner(NamedTuple):
    """Who made an object: a key and its team, by id."""

    team_id: str
    key_id: str


class _Line(msgspec.Struct, array_like=True):
    """What the journal says of some objects that were made at once."""

    team_id: str
    key_id: str
    at: int
    ids: list[str]


_line = msgspec.json.Decoder(_Line).decode


class Ownership:
    """Whose each object is. Use it on one event loop; `start` it first, `close` it at the end.

    `share_within_team`: a team's keys see each other's objects. `now` is Unix time in seconds.
    """

    def __init__(
        self, store: Store, journal: Journal, *, share_within_team: bool = True, now: Callable[[], float] = time.time
    ) -> None:
        self._store = store
        self._journal = journal
        self._shares = share_within_team
        self._now = now
        self._owners: OrderedDict[str, Owner] = OrderedDict()
        self._uses = 0
        """How often an object came into memory, or was moved away from being forgotten next."""
        self._drained_uses = 0
        """What was noted up to this use is in the database."""
        self._next_drained = (0, 0)
        """Once so many bytes of the journal are drained, what was noted up to this use is."""
        self._lookups = _Lookups(store)
        self._noted = asyncio.Event()
        self._is_away = False
        self._tasks: list[asyncio.Task[None]] = []

    def __repr__(self) -> str:
        return f"<Ownership of {len(self._owners)} objects in memory, {self._journal.pending_bytes} bytes to drain>"

    async def start(self) -> None:
        """Begin to drain, what dead processes have left too. Raises OSError where the journal cannot be written."""
        self._journal.open()
        self._tasks = [asyncio.create_task(self._drain_forever()), asyncio.create_task(self._adopt_forever())]

    async def close(self) -> None:
        """Write down what is left, if the database is there; else the journal keeps it."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with contextlib.suppress(StoreUnavailable, OSError):
            await self._drain()
        await self._lookups.close()
        self._journal.close()

    def note(self, owner: Owner, ids: Iterable[str]) -> None:
        """These objects are `owner`'s, unless they are known to be somebody's; never waits.

        Raises StoreUnavailable where that cannot be kept: then the ids must not reach the client.
        """
        new = [each for each in ids if each not in self._owners and self._can_be_kept(each)]
        if not new:
            return
        line = _Line(owner.team_id, owner.key_id, int(self._now()), new)
        self._journal.append(msgspec.json.encode(line) + b"\n")
        for each in new:
            self._remember(each, owner)
        self._noted.set()

    @property
    def pending_bytes(self) -> int:
        """What waits in this process's journal for the database."""
        return self._journal.pending_bytes

    def check_room(self) -> None:
        """Raise StoreUnavailable if a new object could not be noted now."""
        self._journal.check_room()

    def sees(self, principal: Principal, object_id: str) -> bool:
        """Whether it is known here, without asking, that the object is among those that `principal` may see."""
        owner = self._owners.get(object_id)
        if owner is None or not self._is_seen(principal, owner):
            return False
        self._owners.move_to_end(object_id)
        self._uses += 1
        return True

    def owner_of(self, object_id: str) -> Owner | None:
        """Who made an object, as far as memory knows."""
        return self._owners.get(object_id)

    async def check(self, principal: Principal, ids: Collection[str]) -> None:
        """Raise `NotFound` unless `principal` may see every one of the objects; StoreUnavailable if nobody can tell.

        What is unknown and what is another's take the same time and give the same answer. Where journals of others
        on this disk have not come into the database meanwhile, nobody can tell.
        """
        unseen = [each for each in dict.fromkeys(ids) if not self.sees(principal, each)]
        if unseen:
            patience = _Patience(self._undrained())
            for some in _slices(unseen):
                await self._check_some(principal, some, patience)

    async def seen(self, principal: Principal, ids: Collection[str]) -> set[str]:
        """Those of `ids` that `principal` may see. Raises StoreUnavailable."""
        for some in _slices([each for each in ids if each not in self._owners]):
            await self._look_up(some)
        return {each for each in ids if self.sees(principal, each)}

    async def _check_some(self, principal: Principal, unseen: list[str], patience: "_Patience") -> None:
        while True:
            is_last = patience.waited_s >= _REFUSE_AFTER_S
            is_stuck = is_last and patience.waited_s >= _LOOK_AGAIN_S and patience.undrained & self._undrained()
            await self._look_up(unseen)
            unseen = [each for each in unseen if not self.sees(principal, each)]
            if not unseen:
                return
            if is_last:
                is_sure = not is_stuck or any(each in self._owners for each in unseen)
                raise NotFound(_NOT_FOUND) if is_sure else StoreUnavailable(_NOT_NOW, detail=_STUCK)
            await asyncio.sleep(_LOOK_AGAIN_S)

    def _undrained(self) -> Marks:
        with contextlib.suppress(OSError):  # then nobody can say, and what the database has counts
            return self._journal.undrained(own=not self._remembers_its_own())
        return set()

    def _remembers_its_own(self) -> bool:
        """Whether memory still has whatever was noted here and is not in the database yet."""
        return self._uses - self._drained_uses < MAX_REMEMBERED

    def _is_seen(self, principal: Principal, owner: Owner) -> bool:
        return owner.team_id == principal.team_id and (self._shares or owner.key_id == principal.key_id)

    def _can_be_kept(self, object_id: str) -> bool:
        if _is_id(object_id):
            return True
        _log.warning(
            "upstream gave an object an id that cannot be noted (%d characters): nobody will see it", len(object_id)
        )
        return False

    def _remember(self, object_id: str, owner: Owner) -> None:
        self._owners[object_id] = owner
        self._uses += 1
        if len(self._owners) > MAX_REMEMBERED:
            self._owners.popitem(last=False)

    async def _look_up(self, ids: Iterable[str]) -> None:
        unknown = [each for each in ids if each not in self._owners and _is_id(each)]
        if not unknown:
            return
        for object_id, owner in (await self._lookups.find(unknown)).items():
            self._remember(object_id, owner)

    async def _drain_forever(self) -> None:
        while True:
            await self._noted.wait()
            self._noted.clear()
            await asyncio.sleep(_DRAIN_AFTER_S)
            if not await self._could_drain():
                self._noted.set()
                await asyncio.sleep(_RETRY_S)

    async def _adopt_forever(self) -> None:
        while True:
            with contextlib.suppress(OSError):  # nobody can be adopted from what cannot be read
                if self._journal.adopt():
                    self._noted.set()
            await asyncio.sleep(_ADOPT_EVERY_S)

    async def _could_drain(self) -> bool:
        """Drain; says once that it is not possible, and once that it is again."""
        try:
            await self._drain()
        except (StoreUnavailable, OSError) as error:
            if not self._is_away:
                _log.warning("whose objects are cannot be written to the database; the journal keeps it: %s", error)
            self._is_away = True
            return False
        except Exception:
            _log.exception("whose objects are could not be written to the database on a bug; the journal keeps it")
            return False
        if self._is_away:
            _log.info("whose objects are is written to the database again")
        self._is_away = False
        return True

    async def _drain(self) -> None:
        while (batch := self._journal.batch()) is not None:
            rows = _rows(batch.lines)
            if rows:
                await self._write(rows)
            self._journal.acknowledge(batch)
            if self._journal.drained_bytes >= self._next_drained[0]:
                self._drained_uses = self._next_drained[1]
                self._next_drained = (self._journal.written_bytes, self._uses)

    async def _write(self, rows: list[dict[str, Any]]) -> None:
        """Add what the table does not have; where it knows another owner it is right, and memory learns."""
        async with self._store.writing() as connection:
            added = set((await connection.execute(_insert(self._store.dialect), rows)).scalars())
        known = [row["object_id"] for row in rows if row["object_id"] not in added]
        if known:
            for object_id, owner in (await self._lookups.find(known)).items():
                if object_id in self._owners:
                    self._owners[object_id] = owner


class _Patience:
    """How long a call has waited for ids to be known; `undrained` is what all journals held when it began."""

    __slots__ = ("_began_at", "undrained")

    def __init__(self, undrained: Marks) -> None:
        self._began_at = time.monotonic()
        self.undrained = undrained

    @property
    def waited_s(self) -> float:
        return time.monotonic() - self._began_at


class _Lookups:
    """Questions to the database about owners: one query at a time, for all who ask meanwhile."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._asked: dict[str, asyncio.Future[Owner | StoreUnavailable | None]] = {}
        self._task: asyncio.Task[None] | None = None

    async def find(self, ids: Collection[str]) -> dict[str, Owner]:
        """The owners of those that the table has. Raises StoreUnavailable."""
        loop = asyncio.get_running_loop()
        futures = {each: self._asked.get(each) or self._asked.setdefault(each, loop.create_future()) for each in ids}
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._answer())
        await asyncio.wait(futures.values())
        answers = {each: future.result() for each, future in futures.items()}
        for answer in answers.values():
            if isinstance(answer, StoreUnavailable):
                raise answer
        return {each: answer for each, answer in answers.items() if isinstance(answer, Owner)}

    async def close(self) -> None:
        """Wait for the query that is under way."""
        if self._task is not None:
            await self._task

    async def _answer(self) -> None:
        while self._asked:
            asked = {each: self._asked.pop(each) for each in list(self._asked)[:_IDS_A_QUERY]}
            found: dict[str, Owner] = {}
            failure: StoreUnavailable | None = None
            try:
                found = await self._query(list(asked))
            except StoreUnavailable as error:
                failure = error
            except Exception as error:
                _log.exception("whose objects are could not be looked up on a bug")
                failure = StoreUnavailable(_NOT_NOW, detail=repr(error))
            for object_id, future in asked.items():
                future.set_result(failure or found.get(object_id))

    async def _query(self, ids: list[str]) -> dict[str, Owner]:
        columns = select(owners.c.object_id, owners.c.team_id, owners.c.key_id)
        async with self._store.reading() as connection:
            rows = await connection.execute(columns.where(owners.c.object_id.in_(ids)))
            return {object_id: Owner(team_id, key_id) for object_id, team_id, key_id in rows}


def _slices(ids: list[str]) -> Iterator[list[str]]:
    return (ids[start : start + _IDS_A_LOOK] for start in range(0, len(ids), _IDS_A_LOOK))


def _is_id(text: str) -> bool:
    """Whether upstream can have made this id, and the database can hold it."""
    return 0 < len(text) <= MAX_ID_LENGTH and text.isprintable()


def _rows(lines: Iterable[bytes]) -> list[dict[str, Any]]:
    """What the lines say, each object once: the first owner stands."""
    rows: dict[str, dict[str, Any]] = {}
    for raw in lines:
        try:
            line = _line(raw)
        except msgspec.DecodeError:
            _log.warning("a line of the journal of owners cannot be read and is dropped (%d bytes)", len(raw))
            continue
        for each in line.ids:
            row = {"object_id": each, "team_id": line.team_id, "key_id": line.key_id, "created_at": line.at}
            rows.setdefault(each, row)
    return [rows[each] for each in sorted(rows)]  # in one order, so that two nodes cannot lock each other out


def _insert(dialect: str) -> Executable:
    if dialect == "postgresql":
        # Those who keep to SQLite need not wait 25 ms for it to be imported.
        from sqlalchemy.dialects import postgresql  # noqa: PLC0415

        return postgresql.insert(owners).on_conflict_do_nothing().returning(owners.c.object_id)
    return sqlite.insert(owners).on_conflict_do_nothing().returning(owners.c.object_id)


_NOT_FOUND = "No such object, or it is not yours. Check the id, and that the key is of the team that made it."
_STUCK = "what this or another process made has been in a journal for long and is not in the database yet"
_NOT_NOW = "Whose this object is cannot be told at the moment. Please try again."
