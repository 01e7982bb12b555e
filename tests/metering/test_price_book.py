"""Prices follow their file, and outlive one that cannot be used."""

import asyncio
import logging
from pathlib import Path

import pytest

from gateway.metering.price_book import PriceBook
from gateway.metering.prices import PricesError

HEAD = "unit: microusd_per_million_tokens\nmodels:\n"
TEXT = f"{HEAD}  m: {{looked_up: 2026-11-22, output: 0, input: 2_000_000}}\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "prices.yaml"


@pytest.fixture
def book(file: Path) -> PriceBook:
    write(file, "1_000_000")
    return PriceBook(file)


def write(file: Path, amount: str) -> None:
    """A new file in place of the old one, as editors and configuration management write it."""
    new = file.with_suffix(".new")
    entry = f"{{looked_up: 2026-11-22, input: {amount}, output: 0}}"
    new.write_text(f"unit: microusd_per_million_tokens\nmodels:\n  m: {entry}\n")
    new.replace(file)


def overwrite(file: Path, text: str) -> None:
    """In its place, as a shell does."""
    file.write_text(text)


def remove(file: Path) -> None:
    file.unlink()


async def look_twice(book: PriceBook) -> None:
    """A change is believed when it is still the same at the next look."""
    await book.look()
    await book.look()


def price(book: PriceBook) -> int | None:
    found = book.price_of("m")
    return None if found is None else found.rates.input


async def test_a_file_that_has_changed_is_read_again_and_one_that_has_not_is_left_alone(
    book: PriceBook, file: Path
) -> None:
    await book.look()
    assert book.readings == {"loaded": 0, "failed": 0}
    write(file, "2_000_000")
    assert price(book) == 1_000_000
    await book.look()
    await book.look()
    assert price(book) == 2_000_000
    assert book.readings == {"loaded": 1, "failed": 0}


async def test_a_file_that_cannot_be_used_leaves_prices_as_they_are_and_is_told_once(
    book: PriceBook, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(file, "1.75")
    for _ in range(3):
        await book.look()
    assert price(book) == 1_000_000
    assert book.is_stale
    assert book.readings == {"loaded": 0, "failed": 1}
    told = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(told) == 1
    assert "m.input: is not a whole number" in told[0].getMessage()
    write(file, "3_000_000")
    await book.look()
    await book.look()
    assert (price(book), book.is_stale) == (3_000_000, False)


async def test_a_file_that_is_being_written_is_not_believed_before_it_is_whole(book: PriceBook, file: Path) -> None:
    for text in (TEXT.replace("2_000_000", "2_000"), TEXT):
        overwrite(file, text)
        await book.look()
        assert price(book) == 1_000_000, "it has changed since the look before"
    await book.look()
    assert price(book) == 2_000_000


@pytest.mark.parametrize("text", [HEAD, HEAD.removesuffix("models:\n")])
async def test_a_file_that_has_lost_all_its_prices_is_taken_for_a_mistake(
    book: PriceBook, file: Path, text: str
) -> None:
    overwrite(file, text)
    await look_twice(book)
    assert (price(book), book.is_stale) == (1_000_000, True)


async def test_a_file_that_is_gone_leaves_prices_as_they_are(book: PriceBook, file: Path) -> None:
    remove(file)
    await look_twice(book)
    assert (price(book), book.is_stale) == (1_000_000, True)
    write(file, "2_000_000")
    await look_twice(book)
    assert (price(book), book.is_stale) == (2_000_000, False)


async def test_a_file_that_was_not_there_is_read_once_it_is(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    book = PriceBook(None)
    await book.look()
    assert (price(book), book.is_stale) == (None, False)
    (tmp_path / "config").mkdir()
    write(tmp_path / "config" / file.name, "1_000_000")
    await look_twice(book)
    assert price(book) == 1_000_000


def test_a_file_that_cannot_be_used_to_begin_with_is_refused(file: Path) -> None:
    with pytest.raises(PricesError, match="cannot be read"):
        PriceBook(file)


async def test_a_book_at_work_looks_by_itself(file: Path) -> None:
    write(file, "1_000_000")
    told = Told()
    book = PriceBook(file, look_every_s=0.001)
    logging.getLogger("gateway").addHandler(told)
    book.start()
    try:
        write(file, "none")
        await asyncio.wait_for(told.event.wait(), 5)
    finally:
        await book.close()
        logging.getLogger("gateway").removeHandler(told)
    assert book.is_stale


class Told(logging.Handler):
    """Says when something was logged."""

    def __init__(self) -> None:
        super().__init__()
        self.event = asyncio.Event()

    def emit(self, record: logging.LogRecord) -> None:  # noqa: ARG002 - the base class names it
        self.event.set()
