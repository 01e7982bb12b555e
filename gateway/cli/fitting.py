"""Which columns of a table a window has room for, and how wide each is: pure.

Knows that no word is broken. What the columns are about, and how a table is drawn, others know.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from rich.cells import cell_len

GAP = 3
"""Cells between two columns, as tables are drawn here."""


@dataclass(frozen=True)
class Layout:
    """How a table is to be read: columns by their headings, and what may be done to them where room is short."""

    numbers: Collection[str] = ()
    """They stand to the right."""
    prose: Collection[str] = ()
    """They may go on in the next line, between words."""
    least: Sequence[str] = ()
    """They may be left out, the first of them first."""


def fitted(
    headings: Sequence[str], rows: Sequence[Sequence[str]], layout: Layout, room: int | None
) -> dict[str, int] | None:
    """Widths of the columns to show, in cells; None: these rows fit into no table. `room` of None is endless."""
    for left_out in range(len(layout.least) + 1):
        columns = {
            heading: [heading, *(row[index] for row in rows)]
            for index, heading in enumerate(headings)
            if heading not in layout.least[:left_out]
        }
        widths = _widths(columns, layout.prose, room)
        if widths is not None:
            return widths
    return None


def _widths(columns: dict[str, list[str]], prose: Collection[str], room: int | None) -> dict[str, int] | None:
    widths = {heading: max(map(cell_len, cells)) for heading, cells in columns.items()}
    excess = 0 if room is None else sum(widths.values()) + GAP * (len(widths) - 1) - room
    slack = {
        heading: widths[heading] - max(map(longest_word, columns[heading])) for heading in columns if heading in prose
    }
    for heading in sorted(slack, key=slack.__getitem__, reverse=True):
        taken = max(0, min(excess, slack[heading]))
        widths[heading] -= taken
        excess -= taken
    return widths if excess <= 0 else None


def longest_word(text: str) -> int:
    """Cells of the longest run of `text` without a space."""
    return max(map(cell_len, text.split(" ")))
