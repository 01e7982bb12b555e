"""The table that a person reads, in Markdown, so that it can be pasted into a page as it is."""

from bench.results import Results, Row, Share, spread


def table(results: Results) -> str:
    """The whole report: machine, figures, who used which core, notes, limits that were missed."""
    parts = [
        ", ".join(f"{name} {value}" for name, value in results.machine.items()),
        _figures(results.rows),
        _shares(results.shares),
        *results.notes,
        *results.doubts(),
        "\n".join(results.missed()),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _figures(rows: list[Row]) -> str:
    head = ["", "unit", "direct", "nginx", "gateway", "gateway / nginx", "limit", "kept"]
    return markdown(head, [_cells(row) for row in rows])


def _cells(row: Row) -> list[str]:
    ratio = row.ratio()
    verdict = "" if row.limit is None else "no" if row.is_missed() else "yes"
    figures = [spread(row.direct), spread(row.nginx), spread(row.gateway)]
    return [row.name, row.unit, *figures, f"{ratio:.2f}" if ratio else "-", str(row.limit or ""), verdict]


def _shares(shares: list[Share]) -> str:
    head = [
        "while measuring",
        "a second",
        "proxy, of core 0",
        "upstream and clients, of core 1",
        "other processes, of 2 cores",
        "events alone",
    ]
    return markdown(head, [_share_cells(share) for share in shares])


def _share_cells(share: Share) -> list[str]:
    cores = [f"{used:.0%}" for used in (share.proxy, share.driver, share.others / 2)]
    alone = "" if share.alone is None else f"{share.alone:.1%}"
    return [share.what, f"{share.rate_hz:,.0f}", *cores, alone]


def markdown(head: list[str], lines: list[list[str]]) -> str:
    """A table; nothing where it has no lines."""
    if not lines:
        return ""
    widths = [max(len(line[column]) for line in [head, *lines]) for column in range(len(head))]
    padded = [
        " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in [head, *lines]
    ]
    rule = " | ".join("-" * width for width in widths)
    return "\n".join(f"| {line} |" for line in [padded[0], rule, *padded[1:]])
