"""Tables for spreadsheets: CSV (RFC 4180). Pure.

What clients chose, such as tags and models, never becomes a formula there.
"""

import csv
import io
from collections.abc import Iterable, Sequence

_FORMULAS = "=+-@\uff1d\uff0b\uff0d\uff20"
"""What spreadsheets take for the beginning of a formula, and the wide forms that some of them fold into it."""


def csv_text(rows: Iterable[Sequence[str | int | None]], *, line_end: str = "\r\n") -> str:
    """Lines of comma-separated values; None is an empty cell."""
    text = io.StringIO()
    csv.writer(text, lineterminator=line_end).writerows([_safe(cell) for cell in row] for row in rows)
    return text.getvalue()


def _safe(cell: str | int | None) -> str | int | None:
    """An apostrophe keeps a spreadsheet from computing text (OWASP, CSV injection). A number is one, also below 0."""
    if not isinstance(cell, str):
        return cell
    start = cell.lstrip()[:1]
    return f"'{cell}" if (start and start in _FORMULAS) or cell[:1] in ("\t", "\r", "\n") else cell
