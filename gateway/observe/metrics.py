"""Prometheus metrics out of call records.

Counts are kept in plain objects, found by one look-up a call, and turned into readings only when they are asked for.
Labels come from known sets alone: rows of the route table, teams of the store, outcomes, status codes, endpoints of
the settings, and models that upstream has reported usage of. The sets are capped; the rest is `other`.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import starmap
from typing import get_args

from msgspec.structs import astuple

from gateway.call import CallRecord, Principal, UpstreamErrorKind, Usage
from gateway.observe.families import PREFIX, Buckets, Counts, Labels, Reading

MAX_MODELS = 200
MAX_TEAMS = 1_000
MAX_LINES = 3_000
"""Label sets of `requests`, which has the most; beyond them neither model nor team is told apart."""
OTHER = "other"
NONE = "none"

LATENCY_S = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
GAP_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
OVERHEAD_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 10.0)

_MICROUSD = 1_000_000
_NAME = re.compile(r"[A-Za-z0-9][\w.:/@+-]{0,99}", re.ASCII)
"""Of a model that is told apart; what else a client may have put into one, a terminal or a browser need not meet."""

OutputCost = Callable[[str | None, Usage], int]
"""How many micro-dollars of what a call of this model cost are for output."""

_Key = tuple[str, str, str, str, int, str, bool]
"""What the calls of a line share: method, path, model, team, status, outcome, and whether they were streams."""


class _Times:
    """The histograms of one route and model, streams and plain replies apart."""

    __slots__ = ("duration", "first_byte", "gap", "longest_gap")

    def __init__(self) -> None:
        self.duration = Buckets(LATENCY_S)
        self.first_byte = Buckets(LATENCY_S)
        self.gap = Buckets(GAP_S)
        self.longest_gap = Buckets(GAP_S)

    def observe(self, record: CallRecord) -> None:
        if record.outcome != "refused":  # they would make all others look fast
            self.duration.observe(record.duration_s)
        first_byte_s = record.first_byte_s
        if first_byte_s is not None:
            self.first_byte.observe(first_byte_s)
            if record.pieces > 1:
                self.gap.observe((record.duration_s - first_byte_s) / (record.pieces - 1))
                self.longest_gap.observe(record.longest_gap_s)


_FIRST_DETAIL = Usage.__struct_fields__.index("total_tokens") + 1
"""Where the special kinds begin, of which most calls use none."""


class _Used:
    """What one team used of one model."""

    __slots__ = ("details", "input", "input_microusd", "output", "output_microusd", "sources", "unpriced")

    def __init__(self) -> None:
        self.input = self.output = self.input_microusd = self.output_microusd = self.unpriced = 0
        self.details: dict[str, int] = {}
        self.sources: dict[str, int] = {}

    @property
    def totals(self) -> dict[str, int]:
        return {"input": self.input, "output": self.output} if self.input or self.output else {}

    @property
    def costs(self) -> dict[str, int]:
        costs = {"input": self.input_microusd, "output": self.output_microusd}
        return costs if any(costs.values()) else {}

    def add(self, record: CallRecord, output_cost: OutputCost) -> None:
        usage, source = record.usage, record.usage_source
        if source != "none":
            self.sources[source] = self.sources.get(source, 0) + 1
        cost = record.cost_microusd
        if cost:
            # Prices may have changed since the call was counted.
            output = 0 if usage is None else min(output_cost(record.model, usage), cost)
            self.output_microusd += output
            self.input_microusd += cost - output
        elif cost is None and usage is not None:
            self.unpriced += 1
        if usage is not None:
            self.input += usage.input_tokens
            self.output += usage.output_tokens
            if any(astuple(usage)[_FIRST_DETAIL:]):
                for kind, tokens in _details(usage):
                    if tokens:
                        self.details[kind] = self.details.get(kind, 0) + tokens


def _details(usage: Usage) -> tuple[tuple[str, int], ...]:
    """The tokens of special kinds, which are among those of input and output too."""
    return (
        ("cached", usage.cached_tokens),
        ("cache_write", usage.cache_write_tokens),
        ("reasoning", usage.reasoning_tokens),
        ("audio_input", usage.audio_input_tokens),
        ("audio_output", usage.audio_output_tokens),
        ("accepted_prediction", usage.accepted_prediction_tokens),
        ("rejected_prediction", usage.rejected_prediction_tokens),
    )


class _Line:
    """One label set of `requests`, and where else a call with it is counted."""

    __slots__ = ("calls", "overhead", "times", "used")

    def __init__(self, times: _Times, overhead: Buckets, used: _Used) -> None:
        self.calls = 0
        self.times = times
        self.overhead = overhead
        self.used = used


class CallMetrics:
    """Observes call records.

    `models` are those whose names are known before upstream has answered for them. Errors of `endpoints` are counted
    from 0: of a count that begins with 1 nobody could tell that it has grown. `output_cost` tells costs apart; without
    it all are for input.
    """

    def __init__(
        self,
        models: Iterable[str] = (),
        endpoints: Iterable[str] = (),
        *,
        output_cost: OutputCost = lambda _model, _usage: 0,
    ) -> None:
        self._output_cost = output_cost
        self._models = set(models)
        self._most_models = len(self._models) + MAX_MODELS
        self.team_names: dict[str, str] = {}
        """The newest names of teams that have called, by id."""
        self._teams: set[str] = set()
        self._lines: dict[_Key, _Line] = {}
        self._times: dict[tuple[str, str, bool], _Times] = {}
        self._overheads: dict[str, Buckets] = {}
        self._used: dict[tuple[str, str], _Used] = {}
        self._upstream_errors: dict[Labels, int] = {
            (kind, endpoint): 0 for endpoint in endpoints for kind in get_args(UpstreamErrorKind)
        }

    def observe(self, record: CallRecord, _detail: str = "") -> None:
        """Count one call."""
        route, principal = record.route, record.principal
        line = self._lines.get(
            (
                record.method,
                OTHER if route is None else route.path,
                record.model or NONE,
                NONE if principal is None else principal.team,
                record.status,
                record.outcome,
                record.streamed,
            )
        )
        if line is None:
            line = self._line_of(self._key_of(record))
        line.calls += 1
        line.times.observe(record)
        if record.overhead_s is not None:
            line.overhead.observe(record.overhead_s)
        line.used.add(record, self._output_cost)
        if record.upstream_error is not None:
            labels = (record.upstream_error, record.endpoint or NONE)
            self._upstream_errors[labels] = self._upstream_errors.get(labels, 0) + 1

    def observe_late(self, record: CallRecord) -> None:
        """Count what was used by a call that was counted before that was known."""
        self._line_of(self._key_of(record)).used.add(record, self._output_cost)

    def _key_of(self, record: CallRecord) -> _Key:
        """The labels of a call, in which nothing is left that its client could have made up."""
        route = record.route
        method, path = (OTHER, OTHER) if route is None else (record.method, route.path)
        team = NONE if record.principal is None else self._team_label(record.principal)
        model = self._model_label(record)
        ending = (record.status, record.outcome, record.streamed)
        key = (method, path, model, team, *ending)
        is_full = key not in self._lines and len(self._lines) >= MAX_LINES
        return (method, path, OTHER, OTHER, *ending) if is_full else key

    def _line_of(self, key: _Key) -> _Line:
        line = self._lines.get(key)
        if line is None:
            _, path, model, team, _, _, streamed = key
            times = self._times.setdefault((path, model, streamed), _Times())
            overhead = self._overheads.setdefault(path, Buckets(OVERHEAD_S))
            used = self._used.setdefault((model, team), _Used())
            line = self._lines[key] = _Line(times, overhead, used)
        return line

    def _model_label(self, record: CallRecord) -> str:
        model = record.model
        if model is None or model in self._models:
            return model or NONE
        # Only usage that upstream reports vouches for a name: any other reply would for whatever its request holds.
        has_run = record.usage_source == "reported" and record.outcome == "done" and 200 <= record.status < 300
        if has_run and len(self._models) < self._most_models and _NAME.fullmatch(model):
            self._models.add(model)
            return model
        return OTHER

    def _team_label(self, principal: Principal) -> str:
        team = principal.team
        if team not in self._teams and len(self._teams) >= MAX_TEAMS:
            return OTHER
        self._teams.add(team)
        self.team_names[principal.team_id] = team
        return team

    def collect(self) -> Iterator[Reading]:
        """All that is counted here, as it is now."""
        yield _counter("requests", "Calls that have ended.", _REQUEST, self._requests())
        yield from starmap(self._collect_times, _TIMES)
        yield _histogram("overhead_seconds", _OVERHEAD, ("route",), self._collect_overheads(), OVERHEAD_S)
        yield from self._collect_used()
        yield _counter("upstream_errors", _ERRORS, ("kind", "endpoint"), dict(self._upstream_errors))

    def _requests(self) -> dict[Labels, int]:
        samples: dict[Labels, int] = {}
        for (method, path, model, team, status, outcome, _), line in self._lines.items():
            labels = (method, path, model, team, str(status), outcome)
            samples[labels] = samples.get(labels, 0) + line.calls
        return samples

    def _collect_times(
        self, name: str, help_text: str, bounds: tuple[float, ...], choose: Callable[[_Times], Buckets]
    ) -> Reading:
        samples: dict[Labels, Counts] = {
            (path, model, "true" if streamed else "false"): choose(times).read()
            for (path, model, streamed), times in self._times.items()
            if any(choose(times).counts)
        }
        return _histogram(name, help_text, ("route", "model", "streamed"), samples, bounds)

    def _collect_overheads(self) -> dict[Labels, Counts]:
        return {(path,): buckets.read() for path, buckets in self._overheads.items()}

    def _collect_used(self) -> Iterator[Reading]:
        of = ("model", "team")
        every = self._used.items()
        yield _counter("tokens", _TOKENS, (*of, "kind"), _by_kind((who, used.totals) for who, used in every))
        yield _counter("token_details", _DETAILS, (*of, "kind"), _by_kind((who, used.details) for who, used in every))
        yield _counter("usage_records", _SOURCES, (*of, "source"), _by_kind((who, used.sources) for who, used in every))
        yield _counter(
            "cost_usd", _COST, (*of, "kind"), _by_kind((who, used.costs) for who, used in every), divisor=_MICROUSD
        )
        yield _counter("unpriced_requests", _UNPRICED, of, {who: used.unpriced for who, used in every if used.unpriced})


_REQUEST = ("method", "route", "model", "team", "status", "outcome")
_TIMES: tuple[tuple[str, str, tuple[float, ...], Callable[[_Times], Buckets]], ...] = (
    ("request_duration_seconds", "Time from request to end of reply.", LATENCY_S, lambda it: it.duration),
    ("first_byte_seconds", "Time from request to upstream's first body byte.", LATENCY_S, lambda it: it.first_byte),
    ("stream_gap_seconds", "Mean time between two pieces of a stream.", GAP_S, lambda it: it.gap),
    ("stream_longest_gap_seconds", "Longest time between two pieces of a stream.", GAP_S, lambda it: it.longest_gap),
)
_OVERHEAD = "The gateway's own share of the time to the first byte."
_ERRORS = "Calls that failed on the way to upstream."
_TOKENS = "Tokens that calls used, reported or estimated."
_DETAILS = "Those of the tokens that are of a special kind."
_SOURCES = "Calls by how their usage is known."
_COST = "What calls cost, by the price list."
_UNPRICED = "Calls whose usage is known and whose model has no price."


def _by_kind(used: Iterable[tuple[Labels, Mapping[str, int]]]) -> dict[Labels, int]:
    return {(*who, kind): count for who, counts in used for kind, count in counts.items()}


def _counter(name: str, help_text: str, labels: Labels, samples: Mapping[Labels, int], *, divisor: int = 1) -> Reading:
    return Reading(PREFIX + name, help_text, "counter", labels, samples, divisor=divisor)


def _histogram(
    name: str, help_text: str, labels: Labels, samples: Mapping[Labels, Counts], bounds: tuple[float, ...]
) -> Reading:
    return Reading(PREFIX + name, help_text, "histogram", labels, samples, bounds=bounds)
