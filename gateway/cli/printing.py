"""What commands print about teams and keys: tables for people, JSON for scripts.

Knows how money, times and terms read; nothing of where they come from. A secret is printed where one is given to
`secret` or `secrets`, and nowhere else. Everything raises OSError where standard output cannot be written.
"""

import contextlib
import json
import os
import shlex
import shutil
import sys
from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import typer

from gateway.limits.answers import dollars

if TYPE_CHECKING:
    from rich.table import Table

Record = dict[str, Any]

_NAME = "gmi-gateway"
_WIDE = 400
"""Columns where nobody's window is to be fitted: lines that are cut are of no use to grep."""
_LIMITS = {
    "requests_per_minute": "requests/min",
    "requests_per_hour": "requests/h",
    "requests_per_day": "requests/day",
    "tokens_per_minute": "tokens/min",
    "tokens_per_hour": "tokens/h",
    "tokens_per_day": "tokens/day",
    "parallel": "at one time",
    "max_wait_s": "s of waiting",
}


class Printer:
    """Standard output, as one reader wants it."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json

    def json(self, value: object) -> None:
        """`value`, for scripts."""
        typer.echo(json.dumps(value, indent=2, ensure_ascii=False))

    def line(self, text: str) -> None:
        """A sentence, for people."""
        typer.echo(text)

    def rows(self, headings: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: Collection[str] = ()) -> None:
        """A table with a line for each object; the columns `numbers` stand to the right."""
        from rich import box  # noqa: PLC0415 - it takes 20 ms to import, which other commands need not wait for
        from rich.table import Table  # noqa: PLC0415

        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
        for heading in headings:
            # What identifies an object is copied, so it is not broken into two lines.
            justify: Literal["left", "right"] = "right" if heading in numbers else "left"
            table.add_column(heading, justify=justify, no_wrap=heading == "id" or heading in numbers, overflow="fold")
        for row in rows:
            table.add_row(*row)
        _print(table)

    def facts(self, facts: Iterable[tuple[str, str]]) -> None:
        """A table with a line for each member of one object; empty ones are left out."""
        from rich.table import Table  # noqa: PLC0415 - as above

        table = Table(box=None, show_header=False, pad_edge=False)
        for name, text in facts:
            if text:
                table.add_row(name, text)
        _print(table)

    def secret(self, secret: str | None) -> None:
        """A secret on a line of its own."""
        if secret is None:
            typer.echo("The secret was shown when the key was made. Rotate the key if it is lost.")
            return
        typer.echo("The secret, shown once:")
        typer.echo(secret)

    def secrets(self, secrets: Iterable[tuple[str, str]]) -> None:
        """Secrets and whose they are, each on a line of its own: in a table, a narrow window would cut them."""
        lines = [f"{secret} {name}" for name, secret in secrets]
        if lines:
            typer.echo("\n".join(["The secrets, shown once:", *lines]))


def program() -> str:
    """This program as whoever called it would call it again: by its path where it is not to be found otherwise."""
    here = Path(sys.argv[0])
    if here.name != _NAME or shutil.which(_NAME) is not None:
        return _NAME
    with contextlib.suppress(ValueError):
        here = here.relative_to(Path.cwd())
    return shlex.quote(str(here))


def drop_output() -> None:
    """Once standard output failed: what waits to be written would fail again when Python ends, with another message."""
    if sys.stdout is not None:
        # A test's has no number.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _print(table: "Table") -> None:
    from rich.console import Console  # noqa: PLC0415 - as above

    # Names are printed as they are: brackets in them are no colours.
    console = Console(markup=False, highlight=False, emoji=False)
    if not console.is_terminal:
        console.width = _WIDE
    # Where nobody reads on, rich would end the process by itself.
    with console.capture() as shown:
        console.print(table)
    typer.echo(shown.get(), nl=False)


def moment(at: int | None) -> str:
    """A Unix time, in UTC wherever one is: `2027-01-31 18:00Z`."""
    return "" if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%MZ")


def money(microusd: int) -> str:
    """Micro-dollars as dollars to read: `$500.00`, and below a dollar to four digits that count, `$0.0021`."""
    amount = Decimal(microusd) / 1_000_000
    last = -2 if abs(amount) >= 1 else min(-2, amount.adjusted() - 3)
    return dollars(int(amount.quantize(Decimal(1).scaleb(last)) * 1_000_000))


def grants_of(record: Record) -> list[tuple[str, str]]:
    """What may be used, a line for each kind."""
    return [
        (name, "any" if given is None else ", ".join(given) or "nothing") for name, given in record["grants"].items()
    ]


def limits(given: Record) -> str:
    """How much in a time: `60 requests/min, 4 at one time`."""
    return ", ".join(f"{value:,} {_LIMITS[name]}" for name, value in given.items() if value is not None)


def budgets(given: Record) -> str:
    """How much money: `$5.00/day`."""
    return ", ".join(f"{dollars(value)}/{name.partition('_')[0]}" for name, value in given.items() if value is not None)


def tags(given: Record) -> str:
    """`cost-centre=42, stage=prod`."""
    return ", ".join(f"{name}={value}" for name, value in given.items())


def terms_of(record: Record) -> list[tuple[str, str]]:
    """All terms, a line for each kind."""
    return [
        *grants_of(record),
        ("limits", limits(record["limits"]) or "none"),
        ("budgets", budgets(record["budgets"]) or "none"),
        ("tags", tags(record["tags"])),
    ]


def differences(before: Record | None, after: Record | None) -> str:
    """What a change changed: `limits.parallel 4 → 8`; empty where something was made."""
    if before is None or after is None:
        return ""
    old, new = _flat(before), _flat(after)
    names = [name for name in {**old, **new} if old.get(name) != new.get(name) and name not in _BOOK_KEEPING]
    return ", ".join(f"{name} {_short(name, old)} → {_short(name, new)}" for name in names)


_BOOK_KEEPING = frozenset(("version", "updated_at"))


def _flat(record: Record, prefix: str = "") -> Record:
    flat: Record = {}
    for name, value in record.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        elif value is not None:
            flat[prefix + name] = value
    return flat


def _short(name: str, record: Record) -> str:
    value = record.get(name)
    if value is None:
        return "none"
    if name.endswith(("_at", "_until")) and isinstance(value, int):
        return moment(value)
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
