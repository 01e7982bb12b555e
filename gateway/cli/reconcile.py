"""`gmi-gateway usage reconcile`: a provider's account of usage beside the ledger, by day and model."""

from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.api import Refused
from gateway.cli.asking import StoreDesk, asks_store
from gateway.cli.printing import visible
from gateway.cli.usage import notes
from gateway.limits.answers import dollars
from gateway.metering.reconcile import (
    MEASURES,
    Amounts,
    Columns,
    Drift,
    ExportError,
    Measure,
    Place,
    Row,
    compare,
    read_export,
    total,
)

if TYPE_CHECKING:
    from gateway.metering.ledger_query import Sums, UsageGroup

_EPOCH = date(1970, 1, 1)
_NO_MODEL = "(none)"
_SHOWN: dict[Measure, str] = {"input_tokens": "input", "output_tokens": "output", "cost_microusd": "cost"}
_PAGE = 1_000


class BadExport(Refused):
    """The file cannot be compared with anything."""

    exit_code = 2


@asks_store
async def reconcile(
    desk: StoreDesk,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="CSV, by day and model.", show_default=False)],
    tolerance: Annotated[
        float | None,
        typer.Option(
            "--tolerance",
            min=0,
            metavar="PERCENT",
            help="Drift that is no error (default: reconcile.tolerance_percent).",
            show_default=False,
        ),
    ] = None,
    *,
    everything: Annotated[bool, typer.Option("--all", metavar="", help="What is equal too.")] = False,
) -> None:
    """Compare a provider's account of usage with the ledger; exit code 1 where they drift apart."""
    columns = _columns(desk)
    theirs = _theirs(desk, file, columns)
    sums = await _ours(desk, theirs)
    measures = tuple(columns.measured())
    rows = compare(theirs, {place: _amounts(each) for place, each in sums.items()}, measures)
    allowed = desk.settings.reconcile.tolerance_percent if tolerance is None else tolerance
    is_above = any(row.is_above(allowed) for row in rows)
    if desk.printer.as_json:
        desk.printer.json(_document(rows, sums, measures, allowed))
    else:
        _show(desk, rows, sums, measures, everything=everything)
        desk.printer.line(_verdict(rows, allowed))
    if is_above:
        raise typer.Exit(1)


def _columns(desk: StoreDesk) -> Columns:
    said = desk.settings.reconcile
    return Columns(
        said.day_column, said.model_column, said.input_tokens_column, said.output_tokens_column, said.cost_column
    )


def _theirs(desk: StoreDesk, file: Path, columns: Columns) -> dict[Place, Amounts]:
    """What the file says. Raises `BadExport`."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            return read_export(lines, columns, desk.days.zone)
    except OSError as error:
        raise BadExport(f"{file} cannot be read: {error.strerror}.") from None
    except ExportError as error:
        cure = "The settings reconcile.*_column say what the columns are called."
        raise BadExport("\n".join([*(f"{file}: {visible(problem)}" for problem in error.problems), cure])) from None


async def _ours(desk: StoreDesk, theirs: Iterable[Place]) -> dict[Place, "Sums"]:
    """What the ledger has of the days that the file is about."""
    from gateway.metering.ledger_query import UsageQuery  # noqa: PLC0415 - with the store

    days = [(date.fromisoformat(day) - _EPOCH).days for day, _ in theirs]
    found: dict[Place, Sums] = {}
    after: str | None = None
    while True:
        page = await desk.ledger.usage(
            UsageQuery(
                since_us=max(0, desk.days.begin_us(min(days))),
                until_us=max(0, desk.days.begin_us(max(days) + 1)),
                group_by=("day", "model"),
                sort="day",
                limit=_PAGE,
                after=after,
            )
        )
        found |= {_place(each): each.sums for each in page.groups}
        after = page.next
        if after is None:
            return found


def _place(each: "UsageGroup") -> Place:
    model = each.group["model"]
    return str(each.group["day"]), _NO_MODEL if model is None else str(model)


def _amounts(sums: "Sums") -> Amounts:
    return {measure: getattr(sums, measure) for measure in MEASURES}


def _show(
    desk: StoreDesk,
    rows: list[Row],
    sums: dict[Place, "Sums"],
    measures: tuple[Measure, ...],
    *,
    everything: bool,
) -> None:
    shown = [
        [row.day, row.model, *_cells(measure, drift), _notes(sums.get((row.day, row.model)))]
        for row in rows
        for measure, drift in row.drifts.items()
        if everything or drift.difference
    ]
    totals = [["total", "", *_cells(measure, total(rows, measure)), ""] for measure in measures]
    numbers = ("provider", "ledger", "drift", "percent")
    headings = ("day", "model", "what", *numbers, "of which")
    desk.printer.rows(headings, [*shown, *totals], numbers=numbers, prose=("of which",), least=("of which",))


def _notes(sums: "Sums | None") -> str:
    """Why the ledger may differ."""
    return "no calls" if sums is None else notes(sums)


def _cells(measure: Measure, drift: Drift) -> list[str]:
    amounts = (_amount(measure, each) for each in (drift.theirs, drift.ours))
    sign = {True: "+", False: "-"}[drift.difference > 0] if drift.difference else ""
    percent = "not theirs" if drift.percent is None else f"{drift.percent:+.2f} %" if drift.difference else ""
    return [_SHOWN[measure], *amounts, f"{sign}{_amount(measure, abs(drift.difference))}", percent]


def _amount(measure: Measure, amount: int) -> str:
    return dollars(amount) if measure == "cost_microusd" else f"{amount:,}"


def _verdict(rows: list[Row], allowed: float) -> str:
    above = sum(row.is_above(allowed) for row in rows)
    what = "days and models, each by itself"
    if above:
        return f"{above} of {len(rows)} {what}, drift by more than {allowed:g} %."
    return f"None of {len(rows)} {what}, drifts by more than {allowed:g} %."


def _document(
    rows: list[Row], sums: dict[Place, "Sums"], measures: tuple[Measure, ...], allowed: float
) -> dict[str, Any]:
    return {
        "tolerance_percent": allowed,
        "is_within": not any(row.is_above(allowed) for row in rows),
        "data": [
            {
                "day": row.day,
                "model": row.model,
                **{measure: _described(drift) for measure, drift in row.drifts.items()},
                **_counts(sums.get((row.day, row.model))),
            }
            for row in rows
        ],
        "totals": {measure: _described(total(rows, measure)) for measure in measures},
    }


def _counts(sums: "Sums | None") -> dict[str, int]:
    names = ("calls", "estimated_calls", "unknown_calls", "unpriced_calls")
    return {name: 0 if sums is None else getattr(sums, name) for name in names}


def _described(drift: Drift) -> dict[str, int | float | None]:
    return {
        "provider": drift.theirs,
        "ledger": drift.ours,
        "difference": drift.difference,
        "percent": None if drift.percent is None else round(drift.percent, 4),
    }
