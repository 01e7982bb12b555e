"""Tables for spreadsheets: CSV (RFC 4180, with plain line feeds).

What clients chose, such as tags and models, never becomes a formula there.
"""

import csv
import io
from collections.abc import Iterable, Sequence

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""How a cell begins that a spreadsheet runs (OWASP, CSV injection)."""


def csv_of(headings: Sequence[str], rows: Iterable[Sequence[str | int | None]]) -> str:
    """Lines of comma-separated values, that of the headings first; None is an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(headings)
    writer.writerows([_safe(cell) for cell in row] for row in rows)
    return text.getvalue()


def _safe(cell: str | int | None) -> str | int | None:
    # A number is one, also where it is below 0.
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell
