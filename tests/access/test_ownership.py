"""Whose an object is: known at once where it was made, soon everywhere, and to nobody else."""

import asyncio
import itertools
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy import URL, event, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.access import ownership as module
from gateway.access.ownership import Owner, Ownership
from gateway.call import Principal
from gateway.errors import NotFound, StoreUnavailable
from gateway.store.engine import Store
from gateway.store.journal import ROOM_BYTES, Journal
from gateway.store.tables import owners
from tests.support.stores import empty_sqlite_url, fresh_sqlite_url

ADA = Principal("ada", "engines", "key_ada", "team_engines")
BOB = Principal("bob", "engines", "key_bob", "team_engines")
EVE = Principal("eve", "others", "key_eve", "team_others")


def owner(principal: Principal) -> Owner:
    return Owner(principal.team_id, principal.key_id)


@asynccontextmanager
async def node(url: URL, directory: Path, *, shares: bool = True, starts: bool = True) -> AsyncIterator[Ownership]:
    """One process's view of a store that it may share with others."""
    store = Store(url, timeout_s=2.0)
    made = Ownership(store, Journal(directory, "owners"), share_within_team=shares)
    if starts:
        await made.start()
    try:
        yield made
    finally:
        await made.close()
        await store.close()


async def rows_of(url: URL) -> list[tuple[str, str, str]]:
    store = Store(url)
    async with store.reading() as connection:
        found = await connection.execute(select(owners.c.object_id, owners.c.team_id, owners.c.key_id))
        rows = [tuple(row) for row in found]
    await store.close()
    return sorted(rows)


async def is_found(node: Ownership, principal: Principal, object_id: str) -> bool:
    """Whether it is; takes a while to say no."""
    try:
        await node.check(principal, [object_id])
    except NotFound:
        return False
    return True


async def test_what_was_noted_is_seen_at_once_by_its_team_and_by_nobody_else(store_url: URL, tmp_path: Path) -> None:
    async with node(store_url, tmp_path, starts=False) as here:
        here.note(owner(ADA), ["resp_1"])
        assert here.sees(ADA, "resp_1")
        assert here.sees(BOB, "resp_1")
        assert not here.sees(EVE, "resp_1")
        await here.check(BOB, ["resp_1"])
        with pytest.raises(NotFound):
            await here.check(EVE, ["resp_1"])


async def test_where_nothing_is_shared_only_the_key_that_made_it_sees_it(store_url: URL, tmp_path: Path) -> None:
    async with node(store_url, tmp_path, shares=False) as here:
        here.note(owner(ADA), ["resp_1"])
        await here.check(ADA, ["resp_1"])
        for other in (BOB, EVE):
            with pytest.raises(NotFound):
                await here.check(other, ["resp_1"])


async def test_unknown_and_foreign_are_one_answer(store_url: URL, tmp_path: Path) -> None:
    async with node(store_url, tmp_path) as here:
        here.note(owner(ADA), ["resp_1"])
        answers = []
        for object_id in ("resp_1", "resp_unknown", "", "\x00", "x" * 10_000):
            with pytest.raises(NotFound) as refusal:
                await here.check(EVE, [object_id])
            answers.append((refusal.value.status, refusal.value.body()))
        assert answers == [answers[0]] * 5


async def test_one_foreign_id_among_many_is_enough(store_url: URL, tmp_path: Path) -> None:
    async with node(store_url, tmp_path) as here:
        here.note(owner(ADA), ["file-1", "file-2"])
        here.note(owner(EVE), ["file-3"])
        await here.check(ADA, ["file-1", "file-2"])
        with pytest.raises(NotFound):
            await here.check(ADA, ["file-1", "file-3", "file-2"])
        assert await here.seen(ADA, ["file-1", "file-3", "file-4"]) == {"file-1"}


async def test_another_node_finds_what_was_made_just_now(store_url: URL, tmp_path: Path) -> None:
    async with node(store_url, tmp_path) as here, node(store_url, tmp_path) as there:
        here.note(owner(ADA), ["resp_1"])
        await there.check(BOB, ["resp_1"])
        with pytest.raises(NotFound):
            await there.check(EVE, ["resp_1"])
    assert await rows_of(store_url) == [("resp_1", "team_engines", "key_ada")]


async def test_the_first_owner_stands_on_every_node(store_url: URL, tmp_path: Path) -> None:
    async with node(store_url, tmp_path) as here, node(store_url, tmp_path, starts=False) as there:
        here.note(owner(ADA), ["resp_1"])
        here.note(owner(EVE), ["resp_1"])
        assert not here.sees(EVE, "resp_1")
        await here._drain()
        there.note(owner(EVE), ["resp_1"])
        await there._drain()
        assert there.owner_of("resp_1") == owner(ADA)
    assert await rows_of(store_url) == [("resp_1", "team_engines", "key_ada")]


async def test_what_a_dead_process_left_is_taken_over(store_url: URL, tmp_path: Path) -> None:
    dead = Journal(tmp_path, "owners")
    async with node(store_url, tmp_path, starts=False) as here:
        here.note(owner(ADA), ["resp_1"])
        here._journal.close()  # as a killed process lets go of its lock
        assert await rows_of(store_url) == []
        async with node(store_url, tmp_path) as there:
            await there.check(ADA, ["resp_1"])
            with pytest.raises(NotFound):
                await there.check(EVE, ["resp_1"])
    assert dead.adopt() == 0


async def test_with_the_database_away_what_is_in_memory_works_and_all_heals_by_itself(tmp_path: Path) -> None:
    folder = tmp_path / "database"
    folder.touch()  # where the database's folder should be
    async with node(empty_sqlite_url(folder), tmp_path / "state") as here:
        here.note(owner(ADA), ["resp_1"])
        await here.check(ADA, ["resp_1"])
        with pytest.raises(NotFound):
            await here.check(EVE, ["resp_1"])
        with pytest.raises(StoreUnavailable):
            await here.check(ADA, ["resp_unknown"])
        with pytest.raises(StoreUnavailable):
            await here.seen(ADA, ["resp_unknown"])
        folder.unlink()
        url = fresh_sqlite_url(folder)
        async with node(url, tmp_path / "elsewhere") as there:
            async with asyncio.timeout(10):
                while not await is_found(there, ADA, "resp_1"):
                    pass


async def test_what_cannot_be_kept_is_not_noted(tmp_path: Path) -> None:
    store = Store(fresh_sqlite_url(tmp_path))
    here = Ownership(store, Journal(tmp_path, "owners", max_bytes=80))
    here.note(owner(ADA), ["resp_1"])
    with pytest.raises(StoreUnavailable):
        here.note(owner(ADA), ["resp_2"])
    assert not here.sees(ADA, "resp_2")
    await here._drain()
    here.note(owner(ADA), ["resp_2"])
    assert here.sees(ADA, "resp_2")
    await here.close()
    await store.close()


async def test_ids_that_no_database_holds_are_seen_by_nobody_and_stop_nothing(store_url: URL, tmp_path: Path) -> None:
    async with node(store_url, tmp_path) as here:
        odd = ["", "nul\x00", "\ud800", "x" * 257, "line\nend"]
        here.note(owner(ADA), [*odd, "é" * 256])
        assert await here.seen(ADA, [*odd, "é" * 256]) == {"é" * 256}
        (tmp_path / "owners-dead.journal").write_bytes(b'no line\n["team_engines","key_ada",1,["resp_1"]]\n[1]\n')
        here._journal.adopt()
        await here._drain()
    assert [row[0] for row in await rows_of(store_url)] == ["resp_1", "é" * 256]


async def test_many_questions_share_few_queries(store_url: URL, tmp_path: Path) -> None:
    async with node(store_url, tmp_path) as here:
        async with here._store.writing() as connection:
            rows = [
                {"object_id": f"file-{number}", "team_id": ADA.team_id, "key_id": ADA.key_id, "created_at": 1}
                for number in range(1_000)
            ]
            await connection.execute(insert(owners), rows)
        queries: list[str] = []
        event.listen(here._store.engine.sync_engine, "before_cursor_execute", lambda *of: queries.append(of[2]))
        await asyncio.gather(*(here.check(ADA, [f"file-{number}"]) for number in range(1_000)))
        assert len(queries) <= 3
        await asyncio.gather(*(here.check(ADA, [f"file-{number}"]) for number in range(1_000)))
        assert len(queries) <= 3, "all of them are in memory now"


async def test_a_question_that_is_given_up_harms_no_other(store_url: URL, tmp_path: Path) -> None:
    async with node(store_url, tmp_path) as here:
        here.note(owner(ADA), ["file-1"])
        await here._drain()
        here._owners.clear()
        given_up = asyncio.create_task(here.check(ADA, ["file-1"]))
        kept = asyncio.create_task(here.check(ADA, ["file-1"]))
        await asyncio.sleep(0)
        given_up.cancel()
        await kept


async def test_memory_is_bounded_and_forgets_what_was_not_asked_for_longest(
    store_url: URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_REMEMBERED", 10)
    async with node(store_url, tmp_path) as here:
        here.note(owner(ADA), [f"file-{number}" for number in range(10)])
        assert here.sees(ADA, "file-0")
        here.note(owner(ADA), ["file-10"])
        assert here.owner_of("file-0") is not None
        assert here.owner_of("file-1") is None
        await here._drain()
        await here.check(BOB, ["file-1"])


async def test_the_state_directory_must_be_writable(tmp_path: Path) -> None:
    (tmp_path / "state").touch()
    store = Store(fresh_sqlite_url(tmp_path / "database"))
    with pytest.raises(OSError, match="state"):
        await Ownership(store, Journal(tmp_path / "state", "owners")).start()
    await store.close()
    shutil.rmtree(tmp_path / "database")


def ids_asked_for(node: Ownership) -> list[list[str]]:
    """The ids of each query from now on."""
    queries: list[list[str]] = []

    def listen(*of: object) -> None:
        parameters = of[3]
        queries.append([str(each) for each in parameters] if isinstance(parameters, tuple) else [])

    event.listen(node._store.engine.sync_engine, "before_cursor_execute", listen)
    return queries


async def test_unknown_ids_end_a_look_before_thousands_are_asked_for(store_url: URL, tmp_path: Path) -> None:
    async with node(store_url, tmp_path) as here:
        queries = ids_asked_for(here)
        with pytest.raises(NotFound):
            await here.check(EVE, [f"file-{number}" for number in range(2_000)])
        assert len({each for query in queries for each in query}) <= 100


async def test_who_names_thousands_keeps_nobody_waiting_for_more_than_one_turn(store_url: URL, tmp_path: Path) -> None:
    async with node(store_url, tmp_path, starts=False) as here:
        here.note(owner(ADA), [f"file-{number}" for number in range(2_000)])
        here.note(owner(BOB), ["file-bobs"])
        await here._drain()
        here._owners.clear()
        queries = ids_asked_for(here)
        greedy = [asyncio.create_task(here.check(ADA, [f"file-{n}" for n in range(2_000)])) for _ in range(10)]
        await asyncio.sleep(0)
        await here.check(BOB, ["file-bobs"])
        assert len(queries) <= 3
        await asyncio.gather(*greedy)


async def test_while_anothers_journal_cannot_be_drained_nobody_can_tell(store_url: URL, tmp_path: Path) -> None:
    async with node(store_url, tmp_path, starts=False) as here, node(store_url, tmp_path) as there:
        here._journal.open()
        here.note(owner(ADA), ["resp_1"])
        for object_id in ("resp_1", "resp_unknown"):
            with pytest.raises(StoreUnavailable):
                await there.check(ADA, [object_id])
        await here._drain()
        await there.check(ADA, ["resp_1"])
        with pytest.raises(NotFound):
            await there.check(ADA, ["resp_unknown"])


async def test_what_is_drained_meanwhile_leaves_no_doubt_about_what_is_unknown(store_url: URL, tmp_path: Path) -> None:
    async with node(store_url, tmp_path) as here, node(store_url, tmp_path) as there:

        async def keep_noting() -> None:
            for number in range(1_000):
                here.note(owner(ADA), [f"resp_{number}"])
                await asyncio.sleep(0.001)

        noting = asyncio.create_task(keep_noting())
        with pytest.raises(NotFound):
            await there.check(ADA, ["resp_unknown"])
        noting.cancel()


class BusyStore(Store):
    """Writes take a while, in which somebody makes one more object: at no moment is everything written."""

    write_s = 0.01
    meanwhile: Callable[[], None] = staticmethod(lambda: None)

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncConnection]:
        async with super().writing() as connection:
            self.meanwhile()
            await asyncio.sleep(self.write_s)
            yield connection


@asynccontextmanager
async def busy_node(url: URL, directory: Path, *, write_s: float) -> AsyncIterator[Ownership]:
    """A node on which ada makes objects, again and again."""
    store = BusyStore(url, timeout_s=2.0)
    store.write_s = write_s
    made, numbers = Ownership(store, Journal(directory, "owners")), itertools.count()
    store.meanwhile = lambda: made.note(owner(ADA), [f"busy_{next(numbers)}"])
    await made.start()
    store.meanwhile()
    try:
        yield made
    finally:
        store.meanwhile = lambda: None
        await made.close()
        await store.close()


async def test_what_is_unknown_is_so_on_a_node_that_notes_all_the_time_however_slow_the_database(
    store_url: URL, tmp_path: Path
) -> None:
    async with busy_node(store_url, tmp_path, write_s=0.5) as busy:
        for number in range(3):
            with pytest.raises(NotFound):
                await busy.check(EVE, [f"resp_{number}"])
        assert busy.pending_bytes
        assert busy._journal.undrained()


async def test_what_is_unknown_is_so_beside_a_node_that_notes_all_the_time(store_url: URL, tmp_path: Path) -> None:
    async with busy_node(store_url, tmp_path, write_s=0.01), node(store_url, tmp_path) as there:
        for number in range(3):
            with pytest.raises(NotFound):
                await there.check(EVE, [f"resp_{number}"])
        assert there._journal.undrained()


async def test_what_memory_has_lost_before_it_was_written_is_not_called_unknown(
    store_url: URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_REMEMBERED", 10)
    async with node(store_url, tmp_path, starts=False) as here:
        for number in range(11):
            here.note(owner(ADA), [f"resp_{number}"])
        for object_id in ("resp_0", "resp_unknown"):
            with pytest.raises(StoreUnavailable):
                await here.check(ADA, [object_id])
        for _ in range(2):
            await here._drain()
            here.note(owner(ADA), [f"resp_{here.pending_bytes}"])
        await here.check(ADA, ["resp_0"])
        with pytest.raises(NotFound):
            await here.check(ADA, ["resp_unknown"])


async def test_what_memory_lost_by_looking_at_others_before_it_was_written_is_not_called_unknown(
    store_url: URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_REMEMBERED", 10)
    async with node(store_url, tmp_path, starts=False) as here:
        here.note(owner(ADA), [f"file-{number}" for number in range(9)])
        await here._drain()
        here.note(owner(ADA), ["resp_0"])
        assert all(here.sees(ADA, f"file-{number}") for number in range(9))
        here.note(owner(ADA), ["resp_1"])
        with pytest.raises(StoreUnavailable):
            await here.check(ADA, ["resp_0"])


async def test_room_is_asked_for_before_it_is_needed(tmp_path: Path) -> None:
    store = Store(fresh_sqlite_url(tmp_path))
    here = Ownership(store, Journal(tmp_path, "owners", max_bytes=ROOM_BYTES))
    here.check_room()
    here.note(owner(ADA), ["resp_1"])
    with pytest.raises(StoreUnavailable, match="database"):
        here.check_room()
    await here._drain()
    here.check_room()
    await here.close()
    await store.close()
