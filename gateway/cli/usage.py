"""`gmi-gateway usage`: who used what, and what it cost, by groups.

What is unknown, unpriced or estimated is said in every row that it is in, and never shown as 0.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from gateway.cli import values
from gateway.cli.asking import LedgerDesk, Names, Which, asks, begin_us, end_us, shown_time
from gateway.cli.options import read
from gateway.cli.printing import money, visible
from gateway.metering.sheets import csv_text, usage_head, usage_row

if TYPE_CHECKING:
    from gateway.metering.ledger_query import GroupValue, Sums, UsageGroup, UsageQuery

commands = typer.Typer(
    name="usage",
    help="Who used what, and what it cost.",
    subcommand_metavar="[COMMAND [ARGS]...]",  # it may stand alone
)

_SHOWN = 50
"""Groups of a table for people, unless they say."""
_PAGE = 500
_BAR = 20
_DAY_US = 86_400_000_000
_NUMBERS = ("calls", "input", "output", "cost")
_LEAST = ("", "output", "input")
"""Columns that a narrow window may do without, the bar first."""
_TAG = "tag:"
_NAMED = ("team", "key")


@dataclass(frozen=True)
class Asked:
    """What is asked, and how it is shown."""

    by: Annotated[
        str,
        typer.Option(
            "--by", "--group-by", metavar="A,B", help="Any of team, key, model, route, tag:NAME, and day or hour."
        ),
    ] = "team"
    since: Annotated[
        str,
        typer.Option(
            "--since",
            metavar="7d|12h|today|2027-01-31",
            help="From then on; 7d are the last seven days, today among them.",
        ),
    ] = "7d"
    until: Annotated[
        str | None,
        typer.Option(
            "--until",
            metavar="today|2027-01-31",
            help="Before that begins (default: the end of today).",
            show_default=False,
        ),
    ] = None
    sort: Annotated[
        str | None,
        typer.Option("--sort", help="Such as -cost_microusd, -total_tokens or team.", show_default=False),
    ] = None
    limit: Annotated[
        int | None,
        typer.Option("--limit", min=1, help=f"Most groups (default: {_SHOWN}; all for scripts).", show_default=False),
    ] = None
    csv: Annotated[bool, typer.Option("--csv", metavar="", help="Print CSV, for spreadsheets.")] = False


@dataclass(frozen=True)
class Answer:
    """What the ledger said: of `query`, groups up to what was asked for."""

    query: "UsageQuery"
    groups: tuple["UsageGroup", ...]
    totals: "Sums"
    is_all: bool
    source: str


async def usage(desk: LedgerDesk, _context: typer.Context, asked: Asked, which: Which) -> None:
    """Show who used what, and what it cost: `usage --by team,model --since 30d`."""
    answer = await _answer(desk, asked, await which.filters(desk))
    names = Names(desk)
    await names.learn(str(each.group[word]) for each in answer.groups for word in _NAMED if word in each.group)
    if desk.printer.as_json:
        desk.printer.json(_document(answer, names, str(desk.days.zone)))
    elif asked.csv:
        typer.echo(_sheet(answer, names, desk.days.zone), nl=False)
    else:
        _show(desk, answer, names)


async def _answer(desk: LedgerDesk, asked: Asked, filters: dict[str, Any]) -> Answer:
    from gateway.metering.ledger_query import UsageQuery  # noqa: PLC0415 - with the store, which other commands need not wait for

    if desk.printer.as_json and asked.csv:
        raise typer.BadParameter("does not go with --json", param_hint="--csv")
    words = tuple(read("--by", lambda text: values.names(text) or ["any"], asked.by))
    most = asked.limit or (None if desk.printer.as_json or asked.csv else _SHOWN)
    query = UsageQuery(
        since_us=begin_us("--since", asked.since, desk.days),
        until_us=end_us("--until", asked.until, desk.days),
        group_by=words,
        sort=asked.sort or next((word for word in words if word in ("day", "hour")), "-cost_microusd"),
        limit=_PAGE if most is None else min(most, _PAGE),
        **filters,
    )
    first = await desk.ledger.usage(query)
    if asked.sort is None and query.sort.startswith("-") and first.totals.cost_microusd == 0:
        # Without prices, cost tells nothing of who used most.
        query = msgspec.structs.replace(query, sort="-total_tokens")
        first = await desk.ledger.usage(query)
    if first.next is None or (most is not None and len(first.groups) >= most):
        return Answer(query, first.groups[:most], first.totals, first.next is None, first.source)
    groups, is_all = await _groups(desk, query, most)
    return Answer(query, groups, first.totals, is_all, first.source)


async def _groups(desk: LedgerDesk, query: "UsageQuery", most: int | None) -> tuple[tuple["UsageGroup", ...], bool]:
    """Groups of many pages, each once, and whether these are all, though calls end meanwhile.

    A group whose sums grow moves to another page, which may have been read already. So all groups are read in their own
    order, and are sorted here.
    """
    name = query.sort.removeprefix("-")
    is_sorted_here = name not in query.group_by
    asked = msgspec.structs.replace(query, sort=query.group_by[0]) if is_sorted_here else query
    found: dict[tuple[GroupValue, ...], UsageGroup] = {}
    has_more = True
    while has_more and (is_sorted_here or most is None or len(found) <= most):
        page = await desk.ledger.usage(asked)
        for each in page.groups:
            found.setdefault(tuple(each.group.values()), each)
        asked = msgspec.structs.replace(asked, after=page.next)
        has_more = page.next is not None
    groups = list(found.values())
    if is_sorted_here:
        groups.sort(key=lambda each: int(getattr(each.sums, name)), reverse=query.sort.startswith("-"))
    return tuple(groups[:most]), not has_more and len(groups) <= (most or len(groups))


def _show(desk: LedgerDesk, answer: Answer, names: Names) -> None:
    query, zone = answer.query, desk.days.zone
    period = f"{shown_time(query.since_us, zone)} to {shown_time(query.until_us, zone)}, {zone}"
    if not any(msgspec.structs.astuple(answer.totals)):
        desk.printer.line(f"No calls from {period}.")
        _tell_of_aliases(desk, query.models or ())
        return
    value = _measure(answer.totals)
    most = max((value(each.sums) for each in answer.groups), default=0)
    rows = []
    for each in answer.groups:
        shown = [_value(word, each.group[word], names, desk) for word in query.group_by]
        rows.append([*shown, *_cells(each.sums), _bar(value(each.sums), most)])
    rows.append(["total", *[""] * (len(query.group_by) - 1), *_cells(answer.totals), ""])
    # The bar is last but for what is said in words.
    headings = [*query.group_by, *_NUMBERS, "", "of which"]
    in_order = [[*row[:-2], row[-1], row[-2]] for row in rows]
    desk.printer.rows(headings, in_order, numbers=_NUMBERS, prose=("of which",), least=_LEAST)
    desk.printer.line(f"From {period}.")
    if not answer.totals.calls:
        desk.printer.line("No call was made then: responses in the background, which were made before, used this.")
    if not answer.is_all:
        desk.printer.line(
            f"There are more than these {len(answer.groups)}, all of them in the total; --limit shows more."
        )
    _warn_of_retention(desk, answer)


def _tell_of_aliases(desk: LedgerDesk, models: tuple[str, ...]) -> None:
    aliases = {} if desk.settings is None else desk.settings.models.aliases
    for alias in models:
        if alias in aliases:
            desk.printer.line(f"{alias} is an alias: its calls count as {aliases[alias]}, --model {aliases[alias]}.")


def _warn_of_retention(desk: LedgerDesk, answer: Answer) -> None:
    if desk.settings is None:
        return
    kept = desk.settings.ledger.calls_retention_days
    begin = int(datetime.now(desk.days.zone).timestamp()) * 1_000_000 - kept * _DAY_US
    if kept and answer.source == "calls" and answer.query.since_us < begin:
        cure = "ask by whole days, and not by hour or tag, for what is older"
        desk.printer.line(f"This is counted from single calls, which are kept {kept} days: {cure}.")


def _cells(sums: "Sums") -> list[str]:
    return [
        f"{sums.calls:,}",
        tokens(sums.input_tokens, sums),
        tokens(sums.output_tokens, sums),
        cost(sums),
        notes(sums),
    ]


def tokens(count: int, sums: "Sums") -> str:
    """A sum of tokens: `1,200`, `~1,200` with estimates in it, `>1,200` or `unknown` where something is not in it."""
    if sums.unknown_calls:
        return f">{count:,}" if count else "unknown"
    return f"~{count:,}" if sums.estimated_calls and count else f"{count:,}"


def cost(sums: "Sums") -> str:
    """A sum of money, in the same way; `unpriced` where nothing has a price."""
    amount = money(sums.cost_microusd)
    if sums.unknown_calls or sums.unpriced_calls:
        without = "unpriced" if sums.unpriced_calls else "unknown"
        return f">{amount}" if sums.cost_microusd else without
    return f"~{amount}" if sums.estimated_calls and sums.cost_microusd else amount


def notes(sums: "Sums") -> str:
    """What there is besides plain successes: `2 refused, 1 unknown`."""
    counts = {
        "refused": sums.refused_calls,
        "failed": sums.failed_calls,
        "estimated": sums.estimated_calls,
        "unknown": sums.unknown_calls,
        "unpriced": sums.unpriced_calls,
    }
    return ", ".join(f"{count:,} {word}" for word, count in counts.items() if count)


def _measure(totals: "Sums") -> Callable[["Sums"], int]:
    """What bars are of: money, else tokens, else calls."""
    for name in ("cost_microusd", "total_tokens"):
        if getattr(totals, name):
            return lambda sums: int(getattr(sums, name))
    return lambda sums: sums.calls


def _bar(value: int, most: int) -> str:
    if not value or not most:
        return ""
    try:
        "█".encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return "#" * max(1, _BAR * value // most)
    return "█" * (_BAR * value // most) or "▏"


def _value(word: str, value: "GroupValue", names: Names, desk: LedgerDesk) -> str:
    if value is None:
        return "(none)"
    if word == "hour":
        return shown_time(int(value) * 1_000_000, desk.days.zone)[:16]
    return names.of(str(value)) if word in _NAMED else str(value)


def _document(answer: Answer, names: Names, zone: str) -> dict[str, Any]:
    query = answer.query
    return {
        "since": query.since_us // 1_000_000,
        "until": query.until_us // 1_000_000,
        "time_zone": zone,
        "group_by": list(query.group_by),
        "source": answer.source,
        "data": [{"group": _members(each.group, names), **msgspec.structs.asdict(each.sums)} for each in answer.groups],
        "totals": msgspec.structs.asdict(answer.totals),
        "has_more": not answer.is_all,
    }


def _members(group: dict[str, "GroupValue"], names: Names) -> dict[str, Any]:
    """A group as the API has it, names beside ids, and tags an object of their own."""
    found: dict[str, Any] = {}
    for word, value in group.items():
        if word in _NAMED:
            found |= {word: names.of(str(value)), f"{word}_id": value}
        elif not word.startswith(_TAG):
            found[word] = value
    tags = {word.removeprefix(_TAG): value for word, value in group.items() if word.startswith(_TAG)}
    return {**found, "tags": tags} if tags else found


def _sheet(answer: Answer, names: Names, zone: tzinfo) -> str:
    rows = (usage_row(each, names.of, zone) for each in answer.groups)
    cells = ([visible(cell) for cell in row] for row in [usage_head(answer.query.group_by), *rows])
    return csv_text(cells, line_end="\n")


commands.callback(invoke_without_command=True)(asks(usage))
