"""Compare a provider's account of usage with the ledger, by day and model: pure.

Knows how such a file is read and what drift is; where the file is, and how the ledger is asked, others know. Money is
micro-dollars. A number that cannot be read is a problem with its line, never 0.
"""

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, tzinfo
from decimal import Context, Decimal, InvalidOperation
from typing import Literal, get_args

import msgspec

Measure = Literal["input_tokens", "output_tokens", "cost_microusd"]
MEASURES: tuple[Measure, ...] = get_args(Measure)
Place = tuple[str, str]
"""A day, as an ISO date, and a model."""
Amounts = dict[Measure, int]
_Exact = dict[Measure, Decimal]
"""With the fractions of micro-dollars that providers count in."""

_MOST_PROBLEMS = 10
_MOST = 10**15
"""Tokens, or micro-dollars, that no row of an account comes to."""
_YEARS = range(1970, 2998)
"""Of those the ledger can be asked."""
_WHOLE = re.compile(r"([0-9]{1,16})(\.0*)?")
_DOLLARS = re.compile(r"(?:\$?([+-]?)|([+-])\$)([0-9]*+\.?[0-9]*+(?:[eE][+-]?[0-9]++)?)")
_EXACTLY = Context(prec=100)
"""What an account says to the 80th decimal is added up without being rounded."""


class ExportError(Exception):
    """The file is no such account. `problems` say why, each with its line: `line 3: ...`."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class Columns(msgspec.Struct, frozen=True):
    """What the columns of the file are called; None: there is none, and this is not compared."""

    day: str
    model: str
    input_tokens: str | None
    output_tokens: str | None
    cost: str | None
    """In dollars."""

    def measured(self) -> dict[Measure, str]:
        """The column of each measure that there is one of."""
        names = zip(MEASURES, (self.input_tokens, self.output_tokens, self.cost), strict=True)
        return {measure: name for measure, name in names if name is not None}


class Drift(msgspec.Struct, frozen=True):
    """One measure of one day and model: what the provider says, and the ledger."""

    theirs: int
    ours: int

    @property
    def difference(self) -> int:
        """How much more the ledger has."""
        return self.ours - self.theirs

    @property
    def percent(self) -> float | None:
        """The same of what the provider has; None where it has nothing and the ledger something."""
        if self.theirs == 0:
            return 0.0 if self.ours == 0 else None
        return self.difference * 100 / self.theirs

    def is_above(self, tolerance_percent: float) -> bool:
        """Whether the two differ by more than this many percent."""
        percent = self.percent
        return percent is None or abs(percent) > tolerance_percent


class Row(msgspec.Struct, frozen=True):
    """One day and model, and its drift by measure."""

    day: str
    model: str
    drifts: dict[Measure, Drift]

    def is_above(self, tolerance_percent: float) -> bool:
        """Whether any measure differs by more than this many percent."""
        return any(drift.is_above(tolerance_percent) for drift in self.drifts.values())


def read_export(lines: Iterable[str], columns: Columns, zone: tzinfo) -> dict[Place, Amounts]:
    """Sums by day and model of a CSV file, whose lines keep their ends.

    A day is an ISO date, or a time; one with an offset is counted to its day in `zone`. Raises `ExportError`.
    """
    reader = csv.reader(lines, strict=True)
    sums: dict[Place, _Exact] = {}
    problems: list[str] = []
    try:
        head = next(reader, [])
        at = _positions(head, columns)
        for cells in reader:
            if not any(map(str.strip, cells)):
                continue
            try:
                _check_no_more(cells, head)
                place, amounts = _read(cells, at, columns, zone)
            except ValueError as error:
                problems.append(f"line {reader.line_num}: {error}")
                if len(problems) == _MOST_PROBLEMS:
                    break
                continue
            known = sums.setdefault(place, dict.fromkeys(amounts, Decimal(0)))
            for measure, amount in amounts.items():
                known[measure] = _EXACTLY.add(known[measure], amount)
    except csv.Error as error:
        problems.append(f"line {reader.line_num}: is no CSV ({error})")
    except UnicodeDecodeError:
        problems.append(f"line {reader.line_num + 1} or later: is not UTF-8")
    if problems:
        raise ExportError(problems)
    if not sums:
        raise ExportError(["the file has no rows"])
    return {place: _rounded(amounts) for place, amounts in sums.items()}


def compare(theirs: Mapping[Place, Amounts], ours: Mapping[Place, Amounts], measures: Sequence[Measure]) -> list[Row]:
    """Every day and model that either knows something of, by day and model."""
    nothing: Amounts = dict.fromkeys(MEASURES, 0)
    rows = []
    for place in sorted({*theirs, *ours}):
        one, other = theirs.get(place, nothing), ours.get(place, nothing)
        drifts = {measure: Drift(one[measure], other[measure]) for measure in measures}
        if place in theirs or any(drift.ours for drift in drifts.values()):
            rows.append(Row(*place, drifts))
    return rows


def total(rows: Iterable[Row], measure: Measure) -> Drift:
    """The drift of all rows together."""
    drifts = [row.drifts[measure] for row in rows]
    return Drift(sum(drift.theirs for drift in drifts), sum(drift.ours for drift in drifts))


def _positions(header: list[str], columns: Columns) -> dict[str, int]:
    """Where each column is. Raises `ExportError`."""
    names = [name.strip().removeprefix("\ufeff") for name in header]
    if not any(names):
        raise ExportError(["line 1: must name the columns"])
    wanted = [columns.day, columns.model, *columns.measured().values()]
    missing = [name for name in wanted if name not in names]
    if missing:
        there = ", ".join(names)
        raise ExportError([f"line 1: has no column {name}; there are {there}" for name in missing])
    twice = [name for name in wanted if names.count(name) > 1]
    if twice:
        raise ExportError([f"line 1: has the column {name} more than once" for name in twice])
    return {name: names.index(name) for name in wanted}


def _check_no_more(cells: list[str], head: list[str]) -> None:
    """Raises ValueError where there are cells of no column: then nobody knows which of them are of which."""
    if any(map(str.strip, cells[len(head) :])):
        raise ValueError(f"has {len(cells)} cells, and the columns are {len(head)}; a number with commas needs quotes")


def _read(cells: list[str], at: Mapping[str, int], columns: Columns, zone: tzinfo) -> tuple[Place, _Exact]:
    """One row. Raises ValueError."""
    if len(cells) <= max(at.values()):
        raise ValueError(f"has {len(cells)} cells, and the columns are more")
    found = {name: cells[index].strip() for name, index in at.items()}
    model = found[columns.model]
    if not model:
        raise ValueError(f"{columns.model} is empty")
    readers = {"input_tokens": _count, "output_tokens": _count, "cost_microusd": _microusd}
    amounts = {measure: readers[measure](name, found[name]) for measure, name in columns.measured().items()}
    return (_day(columns.day, found[columns.day], zone), model), amounts


def _rounded(amounts: _Exact) -> Amounts:
    return {measure: int(amount.to_integral_value()) for measure, amount in amounts.items()}


def _day(name: str, text: str, zone: tzinfo) -> str:
    try:
        if len(text) == len("2026-11-22"):
            day = date.fromisoformat(text)
        else:
            moment = datetime.fromisoformat(text)
            day = (moment if moment.tzinfo is None else moment.astimezone(zone)).date()
    except (ValueError, OverflowError):  # the latter for a time that is of no year in the zone
        day = date.min
    if day.year not in _YEARS:
        raise ValueError(f"{name} must be a date such as 2026-11-22, or a time, and is {text[:40]!r}")
    return day.isoformat()


def _count(name: str, text: str) -> Decimal:
    found = _WHOLE.fullmatch(text)
    if found is None or int(found[1]) > _MOST:
        raise ValueError(f"{name} must be a whole number such as 1200, and is {text[:40]!r}")
    return Decimal(found[1])


def _microusd(name: str, text: str) -> Decimal:
    found = _DOLLARS.fullmatch(text)
    try:
        dollars = Decimal("NaN" if found is None else (found[1] or found[2] or "") + found[3])
    except InvalidOperation:
        dollars = Decimal("NaN")
    # Compared as it is written: to compute with a number of a million digits fails.
    if not dollars.is_finite() or dollars.copy_abs() > _MOST // 1_000_000:
        raise ValueError(f"{name} must be dollars such as 1.25, and is {text[:40]!r}")
    return _EXACTLY.multiply(dollars, 1_000_000)
