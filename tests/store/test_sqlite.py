"""The file of a store that needs no server: safe on the disk, and for the owner's eyes alone."""

import stat
from pathlib import Path

import pytest
from sqlalchemy import text

from gateway.errors import StoreUnavailable
from gateway.store.engine import Store
from gateway.store.migrate import migrate
from gateway.store.url import parse
from tests.support.stores import fresh_sqlite_url


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def pragma(store: Store, name: str) -> object:
    async with store.reading() as connection:
        return (await connection.execute(text(f"PRAGMA {name}"))).scalar_one()


async def test_folder_and_files_are_made_for_the_owner_alone(tmp_path: Path) -> None:
    url = parse(f"sqlite:///{tmp_path}/made/data/gateway.db")
    await migrate(url)
    store = Store(url)
    async with store.writing() as connection:
        await connection.execute(text("UPDATE revision SET value = 7"))
        files = {path.name: mode(path) for path in (tmp_path / "made/data").iterdir()}
    await store.close()
    assert files == dict.fromkeys(["gateway.db", "gateway.db-wal", "gateway.db-shm"], 0o600)
    assert mode(tmp_path / "made/data") == 0o700


async def test_a_commit_is_on_the_disk_when_it_is_answered_and_readers_do_not_wait(tmp_path: Path) -> None:
    store = Store(fresh_sqlite_url(tmp_path))
    found = [await pragma(store, name) for name in ("journal_mode", "synchronous", "foreign_keys")]
    await store.close()
    assert found == ["wal", 2, 1]


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("folder", "unable to open database file"),
        ("text", "file is not a database"),
        ("text/gateway.db", "File exists"),
    ],
)
async def test_a_file_that_cannot_be_used_is_an_outage_that_says_why(tmp_path: Path, name: str, cause: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "text").write_bytes(b"no database" * 100)
    store = Store(parse(f"sqlite:///{tmp_path}/{name}"))
    with pytest.raises(StoreUnavailable) as refusal:
        await pragma(store, "user_version")
    assert cause in refusal.value.detail
    assert store.is_away
    await store.close()


async def test_a_file_that_is_deleted_is_an_outage_and_not_a_new_store_without_keys(tmp_path: Path) -> None:
    url = fresh_sqlite_url(tmp_path / "data")
    store = Store(url)
    await write_much(store)
    folder = Path(url.database or "").parent
    kept = {path: path.read_bytes() for path in folder.iterdir()}
    for path in kept:
        path.unlink()
    for work in (pragma(store, "user_version"), write_much(store), pragma(store, "user_version")):
        with pytest.raises(StoreUnavailable):
            await work
        assert store.is_away
        assert list(folder.iterdir()) == []
    for path, content in kept.items():
        path.write_bytes(content)
    assert await audited(store) == 1
    assert not store.is_away
    await store.close()


def put_in_place(file: Path, place: Path) -> None:
    for of_the_old_one in place.parent.iterdir():
        of_the_old_one.unlink()
    file.replace(place)


async def test_another_file_in_its_place_is_used_from_then_on(tmp_path: Path) -> None:
    url, other = fresh_sqlite_url(tmp_path / "data"), fresh_sqlite_url(tmp_path / "other")
    store, there = Store(url), Store(other)
    await write_much(store)
    await write_much(there)
    await write_much(there)
    await there.close()
    put_in_place(Path(other.database or ""), Path(url.database or ""))
    assert await audited(store) == 2
    await store.close()


async def test_a_file_without_tables_is_an_outage_that_says_why(tmp_path: Path) -> None:
    store = Store(parse(f"sqlite:///{tmp_path}/gateway.db"))
    with pytest.raises(StoreUnavailable) as refusal:
        await audited(store)
    assert refusal.value.detail == "no such table: audit"
    await store.close()


async def test_a_full_disk_is_an_outage_and_heals(tmp_path: Path) -> None:
    store = Store(fresh_sqlite_url(tmp_path), pool_size=1)
    pages = await pragma(store, "page_count")
    await pragma(store, f"max_page_count = {pages}")
    with pytest.raises(StoreUnavailable) as refusal:
        await write_much(store)
    assert refusal.value.detail == "database or disk is full"
    await pragma(store, "max_page_count = 1000000")
    await write_much(store)
    assert not store.is_away
    await store.close()


async def write_much(store: Store) -> None:
    async with store.writing() as connection:
        await connection.execute(
            text(
                "INSERT INTO audit (at, actor, action, object_id, address) VALUES (1, 'a', 'b', 'c', zeroblob(100000))"
            )
        )


async def audited(store: Store) -> object:
    async with store.reading() as connection:
        return (await connection.execute(text("SELECT count(*) FROM audit"))).scalar_one()
