"""Metrics out of call records."""

from msgspec.structs import replace
from prometheus_client.parser import text_string_to_metric_families

from gateway.call import CallRecord, Principal, Usage
from gateway.http.routes import ROUTES
from gateway.observe.families import Buckets, Counted, Family, Gauged, Summed, Timed
from gateway.observe.metrics import MAX_MODELS, CallMetrics

RECORD = CallRecord(
    id="req_1",
    upstream_request_id=None,
    principal=Principal("ada", "engines"),
    route=ROUTES[0],
    method="POST",
    model="openai/gpt-5.2",
    status=200,
    outcome="done",
    streamed=False,
    started_at_s=0.0,
    duration_s=0.3,
    first_byte_s=0.2,
    overhead_s=0.0002,
    sent_bytes=10,
    usage=Usage(10, 5, 15, cached_tokens=4),
    error=None,
    upstream_error=None,
)

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(metrics: CallMetrics) -> Samples:
    families = text_string_to_metric_families(metrics.render().decode())
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def value(metrics: CallMetrics, name: str, **labels: str) -> float:
    found = [v for (key, own), v in samples(metrics).items() if key == name and set(labels.items()) <= own]
    return sum(found)


def observed(*records: CallRecord) -> CallMetrics:
    metrics = CallMetrics()
    for record in records:
        metrics.observe(record)
    return metrics


def test_a_call_is_counted_once_with_all_its_labels() -> None:
    labels = {
        "method": "POST",
        "route": "/v1/chat/completions",
        "model": "openai/gpt-5.2",
        "team": "engines",
        "status": "200",
        "outcome": "done",
    }
    assert samples(observed(RECORD))["gmi_gateway_requests_total", frozenset(labels.items())] == 1


def test_tokens_are_counted_by_kind() -> None:
    metrics = observed(RECORD, RECORD)
    kinds = {kind: value(metrics, "gmi_gateway_tokens_total", kind=kind) for kind in ("input", "output", "cached")}
    assert kinds == {"input": 20, "output": 10, "cached": 8}


def test_buckets_are_cumulative_and_hold_their_bound() -> None:
    metrics = observed(replace(RECORD, duration_s=0.25), replace(RECORD, duration_s=700.0))
    name = "gmi_gateway_request_duration_seconds_bucket"
    assert [value(metrics, name, le=le) for le in ("0.1", "0.25", "0.5", "600.0", "+Inf")] == [0, 1, 1, 1, 2]
    assert value(metrics, "gmi_gateway_request_duration_seconds_count") == 2
    assert value(metrics, "gmi_gateway_request_duration_seconds_sum") == 700.25


def test_a_phase_that_was_not_reached_is_not_counted() -> None:
    metrics = observed(replace(RECORD, first_byte_s=None, overhead_s=None, usage=None))
    assert value(metrics, "gmi_gateway_first_byte_seconds_count") == 0
    assert value(metrics, "gmi_gateway_overhead_seconds_count") == 0


def test_upstream_errors_are_counted_by_kind() -> None:
    metrics = observed(replace(RECORD, outcome="failed", status=504, upstream_error="timeout_stream"))
    assert value(metrics, "gmi_gateway_upstream_errors_total", kind="timeout_stream") == 1


def test_a_client_cannot_make_labels_up() -> None:
    refused = [replace(RECORD, model=f"made-up-{n}", status=404) for n in range(1000)]
    unknown = [replace(RECORD, route=None, method=f"M{n}", principal=None, model=None, status=404) for n in range(1000)]
    metrics = observed(*refused, *unknown)
    assert value(metrics, "gmi_gateway_requests_total", model="other") == 1000
    assert value(metrics, "gmi_gateway_requests_total", route="other", method="other") == 1000
    assert len([1 for (name, _) in samples(metrics) if name == "gmi_gateway_requests_total"]) == 2


def test_even_models_that_answer_are_capped() -> None:
    metrics = observed(*(replace(RECORD, model=f"m{n}") for n in range(MAX_MODELS + 10)))
    assert value(metrics, "gmi_gateway_requests_total", model="other") == 10


def test_gauges_are_read_when_they_are_asked_for() -> None:
    now = [1.0]
    metrics = CallMetrics([("open_calls", "Calls in flight.", lambda: now[0])])
    assert value(metrics, "gmi_gateway_open_calls") == 1
    now[0] = 7
    assert value(metrics, "gmi_gateway_open_calls") == 7


def test_what_is_counted_elsewhere_is_read_when_it_is_asked_for() -> None:
    counts: dict[tuple[str, ...], int] = {("requests", "key"): 1}
    waits = Buckets((0.1, 1.0))
    metrics = CallMetrics(
        (),
        [
            Counted("refusals", "Refusals.", ("dimension", "whose"), lambda: counts),
            Timed("wait_seconds", "Waits.", waits),
            Gauged("nodes", "Nodes.", (), lambda: {(): 3.0}),
            Summed("round_trip_seconds", "Round trips.", lambda: (2, 0.5)),
        ],
    )
    counts["requests", "key"] = 2
    waits.observe(0.5)
    assert value(metrics, "gmi_gateway_refusals_total", dimension="requests", whose="key") == 2
    assert [value(metrics, "gmi_gateway_wait_seconds_bucket", le=le) for le in ("0.1", "1.0", "+Inf")] == [0, 1, 1]
    assert value(metrics, "gmi_gateway_nodes") == 3
    assert value(metrics, "gmi_gateway_round_trip_seconds_count") == 2
    assert value(metrics, "gmi_gateway_round_trip_seconds_sum") == 0.5


def test_a_family_that_reads_nothing_is_there_without_samples() -> None:
    families: list[Family] = [
        Gauged("nodes", "Nodes.", (), dict),
        Summed("round_trip_seconds", "Round trips.", lambda: None),
    ]
    text = CallMetrics((), families).render().decode()
    assert "# TYPE gmi_gateway_nodes gauge\n# " in text
    assert "# TYPE gmi_gateway_round_trip_seconds summary\n# " in text
