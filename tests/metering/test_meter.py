"""What a call used and what that costs, whichever way it ended."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

import pytest

from gateway.call import Dialect, Outcome, Principal, Route, Usage
from gateway.http.routes import ROUTES
from gateway.metering.delivered import Sample
from gateway.metering.estimate import Estimator
from gateway.metering.meter import NOTHING, Measured, Meter
from gateway.metering.prices import Price, PriceList, Rates

M = "vendor/model"
ADA = Principal("ada", "core", "key_1", "team_1")
USAGE = Usage(10, 20, 30)
UNKNOWN: Measured = (None, "unknown", None)
DUE: Measured = (None, "due", 0)


def route(pattern: str, method: str = "POST") -> Route:
    return next(each for each in ROUTES if (each.method, each.pattern) == (method, pattern))


CHAT, RESPONSES = route("chat/completions"), route("responses")


@dataclass
class Sized:
    prompt_bytes: int
    answers: int = 1


@dataclass
class Call:
    """A call that went upstream and was complete, but for what a test says."""

    principal: Principal | None = ADA
    route: Route | None = CHAT
    model: str | None = M
    outcome: Outcome | None = "done"
    upstream_error: str | None = None
    sent_at: float | None = 1.0
    first_write_at: float | None = 2.0
    sent_bytes: int = 0
    streamed: bool = False
    usage: Usage | None = None
    cost_microusd: int | None = None
    is_costed: bool = False
    is_free: bool = False
    is_background: bool = False
    body: bytes = b"x" * 400
    sample: Sample | None = None
    asked: Sized | None = None
    late: object = None
    due_id: str | None = "resp_1"


def meter(prices: Mapping[str, Price | None] | None = None) -> Meter:
    price = Price(Rates(*[1_000_000] * 9), date(2026, 11, 22))
    return Meter(PriceList({M: price} if prices is None else prices), Estimator())


def test_what_upstream_reports_is_what_was_used() -> None:
    for outcome in ("done", "cut", "client_left"):
        assert meter().measure(Call(outcome=outcome, usage=USAGE)) == (USAGE, "reported", 30)


@pytest.mark.parametrize("model", ["another", None])
def test_a_model_without_a_price_is_unpriced_and_never_free(model: str | None) -> None:
    assert meter().measure(Call(model=model, usage=USAGE)) == (USAGE, "reported", None)
    assert meter({M: None}).measure(Call(usage=USAGE)) == (USAGE, "reported", None)
    assert meter({}).measure(Call(outcome="cut"))[2] is None


def test_sound_by_its_length_is_unpriced_where_only_tokens_have_a_price() -> None:
    usage = Usage(0, 0, 0, audio_ms=1000)
    assert meter().measure(Call(usage=usage)) == (usage, "reported", None)


def test_a_cost_that_is_known_already_stands() -> None:
    assert meter().measure(Call(usage=USAGE, cost_microusd=7, is_costed=True))[2] == 7


@pytest.mark.parametrize(
    "call",
    [
        Call(route=None, sent_at=None),
        Call(sent_at=None, outcome="refused"),
        Call(outcome="upstream_error", is_free=True),
        Call(outcome="client_left", is_free=True),
        Call(outcome="failed", upstream_error="connect"),
        Call(outcome="failed", upstream_error="pool"),
        Call(outcome="failed", upstream_error="timeout_connect"),
        Call(route=route("responses/{response_id}", "GET")),
        Call(route=route("moderations")),
        Call(route=route("responses/input_tokens")),
        Call(route=route("models", "GET"), outcome="cut"),
        Call(route=RESPONSES, is_background=True, is_free=True),
    ],
)
def test_what_was_refused_never_sent_or_is_free_has_used_nothing(call: Call) -> None:
    assert meter().measure(call) == NOTHING == (None, "none", 0)


@pytest.mark.parametrize("pattern", ["chat/completions", "embeddings", "images/generations", "audio/speech"])
def test_a_complete_reply_without_usage_is_unknown_and_not_nothing(pattern: str) -> None:
    assert meter().measure(Call(route=route(pattern))) == UNKNOWN


def test_a_batch_is_unknown_since_upstream_runs_it_later_and_tells_nobody() -> None:
    assert meter().measure(Call(route=route("batches"))) == UNKNOWN


def test_what_a_response_in_the_background_used_is_due() -> None:
    for outcome in ("done", "cut", "client_left"):
        assert meter().measure(Call(route=RESPONSES, is_background=True, outcome=outcome)) == DUE
        nameless = Call(route=RESPONSES, is_background=True, outcome=outcome, due_id=None)
        assert meter().measure(nameless) == UNKNOWN  # nobody will be told
    told_at_once = Call(route=RESPONSES, is_background=True, usage=USAGE)
    assert meter().measure(told_at_once)[1] == "reported"
    told_at_once.late = USAGE  # and so by everyone who asks again
    assert meter().measure(told_at_once) == DUE


def test_to_be_told_of_usage_is_not_to_use() -> None:
    polled = Call(route=route("responses/{response_id}", "GET"), late=USAGE)
    assert meter().measure(polled) == NOTHING


@pytest.mark.parametrize("outcome", ["cut", "client_left", "drained", "failed", "upstream_error"])
def test_a_cut_call_is_estimated_by_its_prompt_and_what_was_delivered(outcome: Outcome) -> None:
    sample = Sample(Dialect.CHAT)
    events = b'data: {"choices":[{"delta":{"content":"fourfour"}}]}\n\n' * 5
    sample.feed(events)
    stream = Call(outcome=outcome, streamed=True, sample=sample, sent_bytes=len(events))
    assert meter().measure(stream) == (Usage(101, 10, 111), "estimated", 111)
    plain = Call(outcome=outcome, sent_bytes=200)
    assert meter().measure(plain) == (Usage(101, 50, 151), "estimated", 151)
    assert meter().measure(Call(outcome=outcome)) == (Usage(101, 0, 101), "estimated", 101)


def cut_stream(usage: Usage, text: bytes = b"fourfour", **other: Any) -> Call:
    """It delivered ten tokens, or those of `text`, and told `usage` before."""
    sample = Sample(Dialect.CHAT)
    events = b'data: {"choices":[{"delta":{"content":"%s"}}]}\n\n' % text * 5
    sample.feed(events)
    more: dict[str, Any] = {"outcome": "cut", "streamed": True, "sample": sample, **other}
    return Call(usage=usage, sent_bytes=len(events), **more)


@pytest.mark.parametrize("outcome", ["cut", "client_left", "drained", "upstream_error"])
def test_usage_that_a_cut_stream_told_at_its_beginning_is_not_all_that_it_used(outcome: Outcome) -> None:
    told = Usage(9, 0, 9, cached_tokens=4)
    estimated = meter().measure(cut_stream(told, outcome=outcome))
    assert estimated == (Usage(9, 10, 19, cached_tokens=4), "estimated", 19)
    assert meter().measure(cut_stream(Usage(0, 0, 0), outcome=outcome)) == (Usage(101, 10, 111), "estimated", 111)
    background = cut_stream(told, outcome=outcome, route=RESPONSES, is_background=True)
    assert meter().measure(background) == DUE


@pytest.mark.parametrize("outcome", ["cut", "client_left", "drained", "upstream_error"])
def test_nor_is_a_first_token_that_it_told_of_there(outcome: Outcome) -> None:
    told = Usage(9, 2, 11)
    assert meter().measure(cut_stream(told, outcome=outcome)) == (Usage(9, 10, 19), "estimated", 19)


def test_a_complete_stream_that_delivered_text_and_told_of_no_output_is_estimated() -> None:
    told = Usage(9, 0, 9, cached_tokens=4)
    estimated = meter().measure(cut_stream(told, outcome="done"))
    assert estimated == (Usage(9, 10, 19, cached_tokens=4), "estimated", 19)
    assert meter().measure(cut_stream(told, outcome="done", body=b"")) == UNKNOWN


def test_usage_stands_where_nothing_was_delivered_where_it_is_much_of_that_and_at_a_clean_end() -> None:
    told = Usage(9, 0, 9)
    for call in (cut_stream(told, b"", outcome="done"), cut_stream(told, b""), cut_stream(told, first_write_at=None)):
        assert meter().measure(call)[:2] == (told, "reported")
    running = Usage(9, 3, 12)  # as of servers that tell in each event how much it is until then
    assert meter().measure(cut_stream(running))[:2] == (running, "reported")
    at_the_end = Usage(9, 1, 10)
    assert meter().measure(cut_stream(at_the_end, outcome="done"))[:2] == (at_the_end, "reported")


def test_nothing_is_learnt_of_usage_that_was_told_at_the_beginning_of_a_cut_stream() -> None:
    one = meter()
    one.measure(cut_stream(Usage(9, 0, 9)))
    assert len(one.estimator) == 0


def test_a_cut_answer_without_text_is_its_prompt_alone() -> None:
    call = Call(route=route("embeddings"), outcome="cut", sent_bytes=4000)
    assert meter().measure(call) == (Usage(101, 0, 101), "estimated", 101)


@pytest.mark.parametrize("pattern", ["images/generations", "audio/speech", "audio/transcriptions"])
def test_what_was_cut_and_cannot_be_told_by_its_size_is_unknown(pattern: str) -> None:
    assert meter().measure(Call(route=route(pattern), outcome="cut", sent_bytes=4000)) == UNKNOWN
    assert meter().measure(Call(route=route(pattern), outcome="cut", body=b"")) == UNKNOWN


def test_estimates_of_prompts_are_learnt_from_streams_and_from_calls_that_limits_bind() -> None:
    for teaches in (Call(usage=Usage(800, 1, 801), streamed=True), Call(usage=Usage(800, 1, 801), asked=Sized(400))):
        one = meter()
        for _ in range(1000):
            one.measure(teaches)
        usage = one.measure(Call(outcome="cut"))[0]
        assert usage is not None
        assert 700 < usage.input_tokens <= 801


def test_prompts_of_one_team_are_not_estimated_by_those_of_another() -> None:
    one = meter()
    for _ in range(1000):
        one.measure(Call(usage=Usage(800, 1, 801), streamed=True))
    other = Principal("bob", "tools", "key_2", "team_2")
    assert one.measure(Call(outcome="cut", principal=other)) == meter().measure(Call(outcome="cut"))


def test_nothing_is_learnt_of_what_was_estimated() -> None:
    one = meter()
    for _ in range(100):
        one.measure(Call(outcome="cut", streamed=True))
    assert len(one.estimator) == 0
