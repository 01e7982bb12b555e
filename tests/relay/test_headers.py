"""Which headers pass."""

import base64

import pytest

from gateway.call import Principal
from gateway.relay.headers import RequestHeaders, is_event_stream, reply_headers
from gateway.relay.mask import SecretMask

ADA = Principal("ada", "engines")
KEY = b"sk-upstream-secret"
MASK = SecretMask([KEY])
HEADERS = RequestHeaders(b"upstream.example", KEY)

Fields = list[tuple[bytes, bytes]]


def upstream(*fields: tuple[bytes, bytes], principal: Principal = ADA, length: int | None = 2) -> Fields:
    return HEADERS.build(fields, dict(fields), principal, content_length=length)


def value_of(headers: Fields, name: bytes) -> bytes | None:
    values = [value for key, value in headers if key == name]
    assert len(values) < 2
    return values[0] if values else None


OWN = {b"host", b"authorization", b"accept-encoding", b"content-length"}


def passed(*fields: tuple[bytes, bytes]) -> Fields:
    return [field for field in upstream(*fields) if field[0] not in OWN]


def test_our_own_headers_are_set_whatever_the_client_sent() -> None:
    sent = (
        (b"host", b"localhost:8080"),
        (b"authorization", b"Bearer virtual"),
        (b"accept-encoding", b"gzip, br"),
        (b"content-length", b"999"),
    )
    assert upstream(*sent) == [
        (b"host", b"upstream.example"),
        (b"authorization", b"Bearer " + KEY),
        (b"accept-encoding", b"identity"),
        (b"content-length", b"2"),
    ]


@pytest.mark.parametrize(
    "name",
    [
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"proxy-authorization",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"cookie",
        b"openai-organization",
        b"openai-project",
        b"forwarded",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-anything",
        b"x-gateway-tags",
        b"x-gateway-request-id",
        b"x-organization-id",
        b"expect",
        b"api-key",
        b"x-api-key",
        b"x-http-method-override",
        b"x-original-url",
    ],
)
def test_these_request_headers_end_at_the_gateway(name: bytes) -> None:
    assert passed((name, b"close")) == []


@pytest.mark.parametrize(
    "field",
    [
        (b"accept", b"application/json"),
        (b"content-type", b"application/json"),
        (b"openai-beta", b"responses=v1"),
        (b"x-client-request-id", b"abc"),
        (b"x-stainless-retry-count", b"0"),
        (b"user-agent", b"OpenAI/Python 3.54.0"),
        (b"originator", b"codex_cli_rs"),
        (b"session-id", b"1"),
        (b"x-codex-turn-metadata", b"{}"),
        (b"x-brand-new", b"\xc3\xa9"),
    ],
)
def test_all_other_request_headers_pass_as_they_are(field: tuple[bytes, bytes]) -> None:
    assert passed(field) == [field]


def test_order_and_repeats_are_kept() -> None:
    fields = ((b"x-a", b"1"), (b"x-b", b"2"), (b"x-a", b"3"))
    assert passed(*fields) == list(fields)


def test_what_connection_lists_ends_here_but_never_the_key_that_we_set() -> None:
    sent = ((b"connection", b"X-Hop, Authorization"), (b"x-hop", b"1"), (b"authorization", b"Bearer virtual"))
    out = upstream(*sent)
    assert (b"x-hop", b"1") not in out
    assert value_of(out, b"authorization") == b"Bearer " + KEY


def test_the_length_that_connection_lists_frames_the_body_all_the_same() -> None:
    listed = (b"connection", b"Content-Length, X-Hop")
    assert value_of(upstream(listed, (b"content-length", b"999")), b"content-length") == b"2"
    told = reply(listed, (b"content-length", b"5"), (b"x-hop", b"1"))
    assert (value_of(told, b"content-length"), value_of(told, b"x-hop")) == (b"5", None)
    assert value_of(reply(listed, (b"content-length", b"5"), keep_length=False), b"content-length") is None


def test_the_client_library_adds_no_header_of_its_own() -> None:
    assert {name for name, _ in upstream()} == OWN


def test_the_length_is_that_of_what_goes_upstream_and_never_copied_from_the_client() -> None:
    assert value_of(upstream((b"content-length", b"77"), length=5), b"content-length") == b"5"
    assert value_of(upstream((b"content-length", b"77"), length=None), b"content-length") is None


def test_an_organisation_is_ours_to_name() -> None:
    sent = [(b"x-organization-id", b"evil")]
    headers = RequestHeaders(b"h", KEY, b"org-1").build(sent, dict(sent), ADA, content_length=0)
    assert [value for name, value in headers if name == b"x-organization-id"] == [b"org-1"]


def test_equal_idempotency_keys_of_two_teams_differ_upstream_and_of_one_team_do_not() -> None:
    def sent(team: str) -> bytes | None:
        principal = Principal("k", "name", "key_1", team)
        return value_of(upstream((b"idempotency-key", b"abc"), principal=principal), b"idempotency-key")

    assert sent("a") == sent("a")
    assert sent("a") != sent("b")
    assert sent("a") not in (None, b"abc")


def test_equal_prompt_cache_keys_of_two_teams_differ_upstream_within_its_64_characters() -> None:
    ours, theirs = (Principal("k", "name", "key_1", team) for team in ("a", "b"))
    key = HEADERS.cache_key("abc", ours)
    assert key == HEADERS.cache_key("abc", ours)
    assert key != HEADERS.cache_key("abc", theirs)
    assert key != HEADERS.cache_key("abd", ours)
    assert (key[:3], len(key)) == ("gw-", 43)
    assert len(HEADERS.cache_key("\ud800" * 1_000, ours)) == 43


def test_where_keys_of_a_team_share_nothing_theirs_differ_too() -> None:
    headers = RequestHeaders(b"upstream.example", KEY, shares_within_team=False)
    sent = [(b"idempotency-key", b"abc")]

    def both(key: str, team: str) -> tuple[bytes | None, str]:
        principal = Principal("k", "name", key, team)
        built = headers.build(sent, dict(sent), principal, content_length=2)
        return value_of(built, b"idempotency-key"), headers.cache_key("abc", principal)

    assert both("key_1", "a") == both("key_1", "a")
    for one, other in zip(both("key_1", "a"), both("key_2", "a"), strict=True):
        assert one != other


def test_an_idempotency_key_passes_as_it_is_where_settings_say_so() -> None:
    headers = RequestHeaders(b"upstream.example", KEY, namespaces_keys=False)
    sent = [(b"idempotency-key", b"abc")]
    assert sent[0] in headers.build(sent, dict(sent), ADA, content_length=2)


def reply(*fields: tuple[bytes, bytes], keep_length: bool = True) -> Fields:
    return reply_headers(list(fields), dict(fields), b"req_1", MASK, keep_length=keep_length)


EVENT_STREAM = (b"content-type", b"text/event-stream")


@pytest.mark.parametrize(
    "name",
    [
        b"connection",
        b"keep-alive",
        b"transfer-encoding",
        b"upgrade",
        b"trailer",
        b"set-cookie",
        b"alt-svc",
        b"server",
        b"strict-transport-security",
        b"openai-organization",
        b"openai-project",
        b"x-ratelimit-limit-requests",
        b"x-ratelimit-reset-tokens",
        b"x-gateway-anything",
    ],
)
def test_these_reply_headers_do_not_reach_the_client(name: bytes) -> None:
    assert name not in {key for key, _ in reply((name, b"x"))} - {b"x-gateway-request-id"}


@pytest.mark.parametrize(
    "field",
    [
        (b"content-type", b"application/json"),
        (b"content-length", b"5"),
        (b"date", b"Sun, 22 Nov 2026 00:00:00 GMT"),
        (b"openai-processing-ms", b"5"),
        (b"openai-version", b"2020-10-01"),
        (b"retry-after", b"7"),
        (b"retry-after-ms", b"6570"),
        (b"x-should-retry", b"true"),
        (b"x-brand-new", b"\xc3\xa9"),
    ],
)
def test_all_other_reply_headers_pass_as_they_are(field: tuple[bytes, bytes]) -> None:
    assert field in reply(field)


@pytest.mark.parametrize("value", [b"got " + KEY + b"!", base64.b64encode(b"Bearer " + KEY)])
def test_a_reply_header_that_holds_the_upstream_key_is_dropped(value: bytes) -> None:
    assert b"x-echo" not in {name for name, _ in reply((b"x-echo", value))}
    assert b"x-echo" not in {name for name, _ in reply((b"x-echo", value), (b"x-echo", b"twice"))} - {b"x-echo"}


def test_a_reply_header_whose_name_holds_the_upstream_key_is_dropped() -> None:
    assert not any(KEY in name for name, _ in reply((b"x-" + KEY, b"1")))


@pytest.mark.parametrize(
    "fields",
    [
        [(b"x-request-id", b"it is " + KEY)],
        [(b"connection", b"x-request-id"), (b"x-request-id", b"up")],
        [(b"connection", b"x-request-id"), (b"connection", b"close"), (b"x-request-id", b"up")],
    ],
)
def test_where_upstreams_request_id_must_not_pass_ours_stands_in(fields: Fields) -> None:
    assert value_of(reply(*fields), b"x-request-id") == b"req_1"


def test_both_request_ids_are_always_there_and_upstreams_stands() -> None:
    assert reply() == [(b"x-request-id", b"req_1"), (b"x-gateway-request-id", b"req_1")]
    assert reply((b"x-request-id", b"up")) == [(b"x-request-id", b"up"), (b"x-gateway-request-id", b"req_1")]


def test_a_stream_is_neither_cached_nor_buffered_nor_of_stated_length() -> None:
    headers = reply((b"content-length", b"5"), EVENT_STREAM, keep_length=False)
    assert (b"cache-control", b"no-cache") in headers
    assert (b"x-accel-buffering", b"no") in headers
    assert value_of(headers, b"content-length") is None


def test_upstreams_own_cache_control_stands() -> None:
    headers = reply((b"cache-control", b"no-store"), EVENT_STREAM, keep_length=False)
    assert [value for name, value in headers if name == b"cache-control"] == [b"no-store"]


def test_a_stream_is_told_by_its_content_type() -> None:
    assert is_event_stream({b"content-type": b"Text/Event-Stream; charset=utf-8"})
    assert not is_event_stream({b"content-type": b"application/json"})
    assert not is_event_stream({})


def test_a_compressed_stream_is_none_that_could_be_cut_at_its_events() -> None:
    assert not is_event_stream({b"content-type": b"text/event-stream", b"content-encoding": b"gzip"})
