"""What commands print about teams and keys: tables for people, JSON for scripts.

Knows how money, times and terms read; nothing of where they come from. A secret is printed where one is given to
`secret` or `secrets`, and nowhere else. Everything raises OSError where standard output cannot be written.

Clients choose much of what is printed, such as the names of models: none of it moves the cursor of whoever reads.
"""

import contextlib
import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import typer

from gateway.limits.answers import dollars

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from gateway.cli.fitting import Layout

Record = dict[str, Any]

_NAME = "gmi-gateway"
_SCRIPT_VARIABLE = "GATEWAY_PROGRAM"
_COMMAND = re.compile(rf"(?<![\w./-]){_NAME}(?= [a-z])")
"""The name before the word of a command; with a path before it, it was shown as it is called."""
_BESIDE = 2
"""Cells between the name of a fact and what it is."""
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
        typer.echo(json_text(value, indent=2))

    def line(self, text: str) -> None:
        """A sentence, for people."""
        typer.echo(visible(text))

    def rows(
        self,
        headings: Sequence[str],
        rows: Iterable[Sequence[str]],
        *,
        numbers: Collection[str] = (),
        prose: Collection[str] = (),
        least: Sequence[str] = (),
    ) -> None:
        """A table with a line for each object; the columns `numbers` stand to the right.

        In a window that is too narrow, columns of `prose` are broken between words, and then those of `least` are left
        out, the first of them first. What fits into no table is a line an object.
        """
        from gateway.cli.fitting import GAP, Layout, fitted  # noqa: PLC0415 - rich takes 20 ms to import

        console = _console()
        shown = [[visible(cell) for cell in row] for row in rows]
        layout = Layout(numbers, prose, least)
        widths = fitted(headings, shown, layout, console.width if console.is_terminal else None)
        if widths is None:
            typer.echo("\n".join(_one_line(headings, row, {*numbers, *least}) for row in shown))
            return
        if not console.is_terminal:
            # Lines that are cut are of no use to grep.
            console.width = sum(widths.values()) + GAP * len(widths)
        _print(_table(headings, shown, layout, widths), console)
        missing = ", ".join(heading for heading in headings if heading and heading not in widths)
        if missing:
            typer.echo(f"Without {missing}: this window is too narrow.")

    def facts(self, facts: Iterable[tuple[str, str]]) -> None:
        """A table with a line for each member of one object; empty ones are left out."""
        from rich.table import Table  # noqa: PLC0415 - as above

        from gateway.cli.fitting import longest_word  # noqa: PLC0415

        console = _console()
        shown = [(name, visible(text)) for name, text in facts if text]
        names = max((len(name) for name, _ in shown), default=0)
        room = console.width - names - _BESIDE
        if not console.is_terminal or any(longest_word(text) > room for _, text in shown):
            # Where a terminal breaks a line by itself, whoever copies from it gets that back whole.
            typer.echo("\n".join(f"{name:<{names + _BESIDE}}{text}" for name, text in shown))
            return
        table = Table(box=None, show_header=False, pad_edge=False)
        table.add_column(no_wrap=True)
        table.add_column()
        for name, text in shown:
            table.add_row(name, text)
        _print(table, console)

    def secret(self, secret: str | None) -> None:
        """A secret on a line of its own."""
        if secret is None:
            typer.echo("The secret was shown when the key was made. Rotate the key if it is lost.")
            return
        typer.echo("The secret, shown once:")
        typer.echo(secret)

    def secrets(self, secrets: Iterable[tuple[str, str]]) -> None:
        """Secrets and whose they are, each on a line of its own: in a table, a narrow window would cut them."""
        lines = [f"{secret} {visible(name)}" for name, secret in secrets]
        if lines:
            typer.echo("\n".join(["The secrets, shown once:", *lines]))


def visible(text: str) -> str:
    r"""`text` as one line that a terminal shows and does not obey: control and format characters are `\x1b`, `\u202e`.

    Those change colours, titles and the order in which a line is read, or clear the screen.
    """
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def json_text(value: object, *, indent: int | None = None) -> str:
    """`value` as JSON, on one line unless `indent` is given; what `visible` escapes is escaped here, as JSON has it."""
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    return "".join(each if each.isprintable() or each == "\n" else json.dumps(each)[1:-1] for each in text)


def program() -> str:
    """This program as whoever called it would call it again: by its path where its name leads elsewhere or nowhere.

    Scripts of a clone say in a variable that they are what was called: they know the settings that belong to it.
    """
    here = Path(os.environ.get(_SCRIPT_VARIABLE) or sys.argv[0])
    if here.name != _NAME:
        # `python -m gateway`: installed, it has its script beside that Python.
        here = Path(sys.executable).with_name(_NAME)
        if not here.exists():
            return _NAME
    if _is_found_as(here):
        return _NAME
    with contextlib.suppress(ValueError):
        here = here.relative_to(Path.cwd())
    return shlex.quote(str(here))


def runnable(message: str) -> str:
    """`message` of who knows but the program's name, with `program()` in each command that it shows."""
    return _COMMAND.sub(lambda _: program(), message)


def _is_found_as(here: Path) -> bool:
    """Whether a shell that is told the name runs `here`, and not what another installation has."""
    found = shutil.which(_NAME)
    try:
        return found is not None and here.samefile(found)
    except OSError:
        return False


def drop_output() -> None:
    """Once standard output failed: what waits to be written would fail again when Python ends, with another message."""
    if sys.stdout is not None:
        # A test's has no number.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _console() -> "Console":
    from rich.console import Console  # noqa: PLC0415 - as above

    # Names are printed as they are: brackets in them are no colours.
    return Console(markup=False, highlight=False, emoji=False)


def _table(
    headings: Sequence[str], rows: Sequence[Sequence[str]], layout: "Layout", widths: Mapping[str, int]
) -> "Table":
    from rich import box  # noqa: PLC0415 - as above
    from rich.table import Table  # noqa: PLC0415

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    for heading in headings:
        if heading in widths:
            justify: Literal["left", "right"] = "right" if heading in layout.numbers else "left"
            table.add_column(heading, justify=justify, width=widths[heading], no_wrap=heading not in layout.prose)
    for row in rows:
        table.add_row(*(cell for heading, cell in zip(headings, row, strict=True) if heading in widths))
    return table


def _one_line(headings: Sequence[str], cells: Sequence[str], named: Collection[str]) -> str:
    """`key_… engines  state active`: those of `named` would not be understood by themselves."""
    shown = [
        f"{heading} {cell}" if heading in named else cell
        for heading, cell in zip(headings, cells, strict=True)
        if heading and cell
    ]
    return "  ".join(shown)


def _print(table: "Table", console: "Console") -> None:
    # Where nobody reads on, rich would end the process by itself.
    with console.capture() as shown:
        console.print(table)
    typer.echo(shown.get(), nl=False)


def moment(at: int | None) -> str:
    """A Unix time, in UTC wherever one is: `2027-01-31 18:00Z`."""
    return "" if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%MZ")


def second(at: int) -> str:
    """The same of what came in an order that matters: `2027-01-31 18:00:09Z`."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def money(microusd: int) -> str:
    """Micro-dollars as dollars to read: `$500.00`, and below a dollar to four digits that count, `$0.0021`."""
    amount = Decimal(microusd) / 1_000_000
    last = -2 if abs(amount) >= 1 else min(-2, amount.adjusted() - 3)
    return dollars(int(amount.quantize(Decimal(1).scaleb(last)) * 1_000_000))


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
    # Those of its team bind a key too, and are not in its record.
    is_key = record["object"] == "key"
    every, none = ("any of its team's", "none of its own") if is_key else ("any", "none")
    grants = record["grants"].items()
    return [
        *((name, every if given is None else ", ".join(given) or "nothing") for name, given in grants),
        ("limits", limits(record["limits"]) or none),
        ("budgets", budgets(record["budgets"]) or none),
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
    if name.startswith("grants."):
        # As they are shown: of what may be used, `none` would read as nothing.
        return "any" if value is None else ",".join(value) or "nothing"
    if value is None:
        return "none"
    if name.endswith(("_at", "_until")) and isinstance(value, int):
        return moment(value)
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
