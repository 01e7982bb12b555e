"""Tables for spreadsheets: CSV (RFC 4180), and sums of usage as rows of one. Pure.

What clients chose, such as tags and models, never becomes a formula there, nor cells of its own, though spreadsheets of
some languages take semicolons for separators, and some tabs. Money is there twice: in micro-dollars, to
add up, and in dollars; where nothing has a price, neither is.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, tzinfo

import msgspec

from gateway.metering.ledger_query import Sums, UsageGroup

_SUMS = Sums.__struct_fields__
_NAMED = ("team", "key")
_FORMULA = re.compile(r"""(\A|[;\t\r\n])(?=[\s"]*[=+\-@\uff1d\uff0b\uff0d\uff20])|\A(?=[\t\r\n])""")
"""Where what spreadsheets take for a formula may begin, also in wide forms, which some of them fold into it."""
_QUOTED = re.compile(r'[",;\t\r\n]')


def csv_text(rows: Iterable[Sequence[str | int | None]], *, line_end: str = "\r\n") -> str:
    """Lines of comma-separated values; None is an empty cell."""
    return "".join(",".join(map(_written, row)) + line_end for row in rows)


def usage_head(words: Sequence[str]) -> list[str]:
    """What the columns of groups by these words are called."""
    named = ((f"{word}_id", word) if word in _NAMED else (word,) for word in words)
    return [*(column for columns in named for column in columns), *_SUMS, "cost_usd"]


def usage_row(of: UsageGroup, name_of: Callable[[str], str], zone: tzinfo) -> list[str]:
    """One group, and what its calls came to. `name_of` knows teams and keys by their ids."""
    cells: list[str] = []
    for word, value in of.group.items():
        if word == "hour":
            cells.append(datetime.fromtimestamp(int(value or 0), zone).isoformat())
            continue
        cells.append("" if value is None else str(value))
        if word in _NAMED:
            cells.append(name_of(str(value)))
    sums = msgspec.structs.asdict(of.sums)
    if is_without_cost(of.sums):
        sums["cost_microusd"] = ""
    return [*cells, *map(str, sums.values()), "" if is_without_cost(of.sums) else _usd(of.sums.cost_microusd)]


def is_without_cost(sums: Sums) -> bool:
    """Whether nobody knows what these calls cost: 0 would say that they were free."""
    return not sums.cost_microusd and bool(sums.unknown_calls or sums.unpriced_calls)


def _usd(microusd: int) -> str:
    """Decimals, never a float."""
    return f"{microusd // 1_000_000}.{microusd % 1_000_000:06}"


def _written(cell: str | int | None) -> str:
    """An apostrophe keeps a spreadsheet from computing text (OWASP, CSV injection). A number is one, also below 0."""
    if not isinstance(cell, str):
        return "" if cell is None else str(cell)
    text = _FORMULA.sub(r"\1'", cell)
    return '"' + text.replace('"', '""') + '"' if _QUOTED.search(text) else text
