"""The figures of a run: rows of rounds, medians, ratios, and whether a limit is kept."""

from dataclasses import asdict, dataclass, field
from statistics import median

Rounds = list[float]

_CORES = 2
_MOST_OTHERS = 0.05
_LEAST_ALONE = 0.95


@dataclass(frozen=True, slots=True)
class Limit:
    """The most that is allowed of: `ratio` to nginx, `added` to direct calls, or the gateway's own `value`."""

    of: str
    most: float

    def __str__(self) -> str:
        words = {"ratio": "≤ {} times nginx", "added": "≤ direct + {}", "value": "≤ {}"}
        return words[self.of].format(f"{self.most:g}")


@dataclass(slots=True)
class Row:
    """One line of the table: a number from each round for nginx, the gateway and, where it exists, no proxy."""

    name: str
    unit: str
    limit: Limit | None = None
    direct: Rounds = field(default_factory=list)
    nginx: Rounds = field(default_factory=list)
    gateway: Rounds = field(default_factory=list)

    def compared(self) -> float:
        """What the limit is about: the median over the rounds."""
        rounds = {"ratio": self._ratios(), "added": self._added(), "value": self.gateway}
        return median(rounds[self.limit.of if self.limit else "value"])

    def is_missed(self) -> bool:
        return self.limit is not None and self.compared() > self.limit.most

    def ratio(self) -> float | None:
        return median(self._ratios()) if self.nginx and self.gateway else None

    def _ratios(self) -> Rounds:
        return [ours / theirs for ours, theirs in zip(self.gateway, self.nginx, strict=False)]

    def _added(self) -> Rounds:
        return [ours - none for ours, none in zip(self.gateway, self.direct, strict=False)]


@dataclass(slots=True)
class Share:
    """Cores in use while one figure was taken, and how much was carried a second.

    `alone`: of a stream's events, the share that reached the client in an HTTP chunk of its own.
    """

    what: str
    rate_hz: float
    proxy: float
    driver: float
    others: float
    alone: float | None = None


@dataclass(slots=True)
class Results:
    """Everything that a run found out."""

    machine: dict[str, str]
    rows: list[Row] = field(default_factory=list)
    shares: list[Share] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def missed(self) -> list[str]:
        return [
            f"MISSED {row.name}: {row.compared():.3g} {_about(row)}, the limit is {row.limit}"
            for row in self.rows
            if row.is_missed()
        ]

    def doubts(self) -> list[str]:
        """Why figures of this run should not be quoted."""
        others = max((share.others / _CORES for share in self.shares), default=0.0)
        alone = min((share.alone for share in self.shares if share.alone is not None), default=1.0)
        doubts = []
        if others > _MOST_OTHERS:
            doubts.append(
                f"NOT TO BE QUOTED: other processes used up to {others:.0%} of the machine; run again when it is quiet."
            )
        if alone < _LEAST_ALONE:
            doubts.append(
                f"NOT TO BE QUOTED: only {alone:.0%} of events came alone; joined ones cost less than they should."
            )
        return doubts

    def as_json(self) -> dict[str, object]:
        rows = [asdict(row) | {"ratio": row.ratio(), "missed": row.is_missed()} for row in self.rows]
        shares = [asdict(share) for share in self.shares]
        return {"machine": self.machine, "rows": rows, "shares": shares, "notes": self.notes, "doubts": self.doubts()}


def _about(row: Row) -> str:
    words = {"ratio": "times nginx", "added": f"{row.unit} more than direct", "value": row.unit}
    return words[row.limit.of] if row.limit else row.unit


def spread(rounds: Rounds) -> str:
    """Median and, where there was more than one round, the least and the most."""
    if not rounds:
        return "-"
    shown = _figure(median(rounds))
    return shown if len(rounds) == 1 else f"{shown} ({_figure(min(rounds))} to {_figure(max(rounds))})"


def _figure(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
