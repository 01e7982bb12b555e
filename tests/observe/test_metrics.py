"""Metrics out of call records."""

from typing import get_args

import pytest
from msgspec.structs import replace
from prometheus_client.parser import text_string_to_metric_families

from gateway.call import CallRecord, Principal, UpstreamErrorKind, Usage
from gateway.http.routes import ROUTES
from gateway.observe import metrics as limits
from gateway.observe.metrics import MAX_MODELS, MAX_TEAMS, CallMetrics
from gateway.observe.text import render

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
    usage_source="reported",
)

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(metrics: CallMetrics) -> Samples:
    families = text_string_to_metric_families(render(metrics.collect()).decode())
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
    kinds = {kind: value(metrics, "gmi_gateway_tokens_total", kind=kind) for kind in ("input", "output")}
    assert kinds == {"input": 20, "output": 10}
    assert value(metrics, "gmi_gateway_tokens_total") == 30, "the sum over all kinds is all tokens"


def test_tokens_of_special_kinds_are_told_beside_the_totals_that_hold_them() -> None:
    usage = Usage(10, 9, 19, 1, 2, 3, 4, 5, 6, 7)
    metrics = observed(replace(RECORD, usage=usage), replace(RECORD, usage=usage))
    name = "gmi_gateway_token_details_total"
    kinds = {dict(labels)["kind"]: count for (key, labels), count in samples(metrics).items() if key == name}
    assert kinds == {
        "cached": 2,
        "reasoning": 4,
        "audio_input": 6,
        "audio_output": 8,
        "accepted_prediction": 10,
        "rejected_prediction": 12,
        "cache_write": 14,
    }


def test_cost_is_summed_exactly_and_shown_in_dollars() -> None:
    metrics = observed(*[replace(RECORD, cost_microusd=100_001)] * 30)
    assert value(metrics, "gmi_gateway_cost_usd_total", team="engines", model="openai/gpt-5.2") == 3.00003


def test_cost_is_told_by_kind_and_its_sum_is_all_of_it_whatever_prices_are_now() -> None:
    metrics = CallMetrics(output_cost=lambda model, usage: 7 * usage.output_tokens if model == "openai/gpt-5.2" else 0)
    metrics.observe(replace(RECORD, cost_microusd=100_000))
    metrics.observe_late(replace(RECORD, cost_microusd=20))
    metrics.observe(replace(RECORD, cost_microusd=5, usage=Usage(10, 0, 10)))
    name = "gmi_gateway_cost_usd_total"
    assert [value(metrics, name, kind=kind) for kind in ("input", "output")] == [0.09997, 0.000055]
    assert value(metrics, name) == 0.100025
    assert value(observed(replace(RECORD, cost_microusd=12)), name, kind="output") == 0


def test_calls_are_counted_by_how_their_usage_is_known() -> None:
    metrics = observed(
        replace(RECORD, usage_source="reported", cost_microusd=1),
        replace(RECORD, usage_source="estimated", outcome="cut"),
        replace(RECORD, usage_source="unknown", usage=None),
        replace(RECORD, usage_source="unknown", usage=None),
    )
    sources = ("reported", "estimated", "unknown")
    assert [value(metrics, "gmi_gateway_usage_records_total", source=source) for source in sources] == [1, 1, 2]
    metrics.observe(replace(RECORD, usage_source="none", usage=None, cost_microusd=0))
    assert value(metrics, "gmi_gateway_usage_records_total") == 4, "what used nothing is in none"
    assert value(metrics, "gmi_gateway_unpriced_requests_total") == 1, "unknown usage is not the price list's fault"


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


def test_upstream_errors_are_counted_by_kind_and_endpoint() -> None:
    failed = replace(RECORD, outcome="failed", status=504, upstream_error="timeout_stream")
    metrics = observed(replace(failed, endpoint="upstream"), failed)
    name = "gmi_gateway_upstream_errors_total"
    assert value(metrics, name, kind="timeout_stream", endpoint="upstream") == 1
    assert value(metrics, name, kind="timeout_stream", endpoint="none") == 1


def test_upstream_errors_are_there_before_the_first_one_so_that_it_is_a_rise() -> None:
    kinds = {dict(labels)["kind"] for _, labels in samples(CallMetrics((), ["upstream"]))}
    assert kinds == set(get_args(UpstreamErrorKind))


def test_streams_and_plain_replies_are_timed_apart() -> None:
    metrics = observed(RECORD, replace(RECORD, streamed=True), replace(RECORD, streamed=True))
    name = "gmi_gateway_first_byte_seconds_count"
    assert [value(metrics, name, streamed=streamed) for streamed in ("false", "true")] == [1, 2]


def test_the_time_between_pieces_is_that_of_streams_with_two_or_more() -> None:
    stream = replace(RECORD, streamed=True, duration_s=1.2, first_byte_s=0.2, pieces=5, longest_gap_s=0.7)
    metrics = observed(stream, replace(stream, pieces=1), RECORD)
    assert value(metrics, "gmi_gateway_stream_gap_seconds_count") == 1
    assert value(metrics, "gmi_gateway_stream_gap_seconds_sum") == 0.25
    assert value(metrics, "gmi_gateway_stream_longest_gap_seconds_sum") == 0.7


def test_calls_that_were_refused_do_not_make_the_others_look_fast() -> None:
    metrics = observed(replace(RECORD, status=429, outcome="refused", first_byte_s=None, overhead_s=None))
    assert value(metrics, "gmi_gateway_requests_total") == 1
    assert value(metrics, "gmi_gateway_request_duration_seconds_count") == 0


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


def test_a_model_is_known_once_it_has_worked_and_not_because_a_request_names_it() -> None:
    conversations = next(route for route in ROUTES if route.path == "/v1/conversations" and route.method == "POST")
    nothing_used = {"usage": None, "usage_source": "none"}
    metrics = observed(
        replace(RECORD, route=conversations, model="made-up", **nothing_used), replace(RECORD, status=404, model="m")
    )
    assert value(metrics, "gmi_gateway_requests_total", model="other") == 2
    metrics.observe(replace(RECORD, model="m"))
    metrics.observe(replace(RECORD, model="m", status=500))
    assert value(metrics, "gmi_gateway_requests_total", model="m") == 2


@pytest.mark.parametrize("model", ["m\x1b[2J", "m\n", "a b", "{x}", "\u202em", "-m", "m" * 101])
def test_no_odd_name_becomes_a_label(model: str) -> None:
    assert value(observed(replace(RECORD, model=model)), "gmi_gateway_requests_total", model="other") == 1


def test_models_of_the_settings_are_known_before_they_have_answered() -> None:
    metrics = CallMetrics(["openai/gpt-5.2"])
    metrics.observe(replace(RECORD, status=502, outcome="failed"))
    assert value(metrics, "gmi_gateway_requests_total", model="openai/gpt-5.2") == 1


def test_teams_are_capped() -> None:
    metrics = observed(*(replace(RECORD, principal=Principal("k", f"t{n}")) for n in range(MAX_TEAMS + 10)))
    assert value(metrics, "gmi_gateway_requests_total", team="other") == 10


def test_label_sets_are_capped_and_no_call_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_LINES", 3)
    metrics = observed(*(replace(RECORD, model=f"m{n}", principal=Principal("k", f"t{n}")) for n in range(10)))
    lines = [labels for (name, labels) in samples(metrics) if name == "gmi_gateway_requests_total"]
    assert len(lines) == 4
    assert value(metrics, "gmi_gateway_requests_total") == 10
    assert value(metrics, "gmi_gateway_requests_total", model="other", team="other") == 7


def test_the_newest_name_of_a_team_is_known_by_its_id() -> None:
    metrics = observed(replace(RECORD, principal=Principal("ada", "engines", team_id="team_1")))
    metrics.observe(replace(RECORD, principal=Principal("ada", "motors", team_id="team_1")))
    assert metrics.team_names == {"team_1": "motors"}
