"""The table of mirrored routes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.call import Route
from gateway.errors import BadRequest
from gateway.http.routes import ROUTES, RouteTable, is_mirrored

TABLE = RouteTable()


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.pattern}")
def test_every_row_is_found_by_its_own_path(route: Route) -> None:
    path = "/v1/" + "/".join("id_1" if part.startswith("{") else part for part in route.pattern.split("/"))
    match = TABLE.match(route.method, path.encode())
    assert match is not None
    assert match.route is route
    assert match.subpath == path.removeprefix("/v1").encode()


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", b"/v1/organization/projects"),
        ("GET", b"/v1/organization/costs"),
        ("GET", b"/v1/projects"),
        ("POST", b"/v1/v1/chat/completions"),
        ("POST", b"/v1/chat/completions/"),
        ("PUT", b"/v1/chat/completions"),
        ("GET", b"/v1/responses"),
        ("GET", b"/v1/responses/"),
        ("POST", b"/v1/"),
        ("POST", b"/v1"),
        ("POST", b"/v2/chat/completions"),
        ("POST", b"/v1/Chat/Completions"),
        ("GET", b"/models"),
        ("POST", b"/chat/completionsx"),
    ],
)
def test_what_is_not_in_the_table_has_no_row(method: str, path: bytes) -> None:
    assert TABLE.match(method, path) is None


@pytest.mark.parametrize("path", [b"/chat/completions", b"/responses"])
def test_the_two_generation_routes_work_without_the_prefix(path: bytes) -> None:
    match = TABLE.match("POST", path)
    assert match is not None
    assert match.subpath == path


def test_stored_objects_work_without_the_prefix_too() -> None:
    match = TABLE.match("GET", b"/responses/resp_1/input_items")
    assert match is not None
    assert (match.subpath, match.ids) == (b"/responses/resp_1/input_items", {"response_id": b"resp_1"})


NAMES = [
    b"openai%2Fgpt-5.2",
    b"openai/gpt-5.2",
    b"gpt-5.2",
    b"a%20b",
    b"gpt-5%2e2",
    b"ft:gpt;x",
    b"..a;b",
    b"...",
    b".hidden;x",
    b"caf%c3%a9",
    b"100%25",
    b"100%2520",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_model_name_may_hold_slashes_in_either_spelling_and_stays_as_it_was_sent(name: bytes) -> None:
    match = TABLE.match("GET", b"/v1/models/" + name)
    assert match is not None
    assert match.subpath == b"/models/" + name
    assert match.ids == {"model_id": name}


@pytest.mark.parametrize(
    "path",
    [
        b"/v1/responses/../organization/keys",
        b"/v1/responses/..",
        b"/v1/responses/.",
        b"/v1/./responses/x",
        b"/v1/responses/%2e%2e/x",
        b"/v1/responses/%2E./x",
        b"/v1//responses/x",
        b"//v1/responses/x",
        b"/v1/responses//cancel",
        b"/v1/responses/a\\b",
        b"/v1/responses/a%5cb",
        b"/v1/responses/a%00",
        b"/v1/responses/a\x00",
        b"/v1/responses/a b",
        b"/v1/responses/caf\xc3\xa9",
        b"/v1/responses/a%2Fcancel",
        b"/v1/files/x%2f..%2fy",
        b"/v1/models/openai%2F..%2F..%2Forganization",
        b"/v1/models/openai%2F%2Fx",
        b"/v1/models/%2e%2e/organization",
        b"/v1/responses/%zz",
        b"/v1/responses/a%2",
        b"/v1/models/..;/organization",
        b"/v1/models/..;x=1/organization",
        b"/v1/models/.;/x",
        b"/v1/models/.;x/y",
        b"/v1/models/;/x",
        b"/v1/models/;x",
        b"/v1/models/..%3b/organization",
        b"/v1/models/%2e%2E;a/organization",
        b"/v1/models/x%2f..;",
        b"/v1/models/%252e%252e/organization",
        b"/v1/models/openai%252Fgpt-5.2",
        b"/v1/models/a%255cb",
        b"/v1/models/a%2500",
        b"/v1/models/a%250a",
        b"/v1/models/%25252e",
        b"/v1/models/%25%32%65",
        b"/v1/models/%0d%0aX",
        b"/v1/models/a%09",
        b"/v1/models/a%1F",
        b"/v1/models/a%7f",
        b"/v1/models/%ff",
        b"/v1/models/..%c0%af",
        b"/v1/responses/caf%c3",
    ],
)
def test_a_path_that_two_servers_could_read_in_two_ways_is_refused(path: bytes) -> None:
    with pytest.raises(BadRequest, match="ambiguous"):
        TABLE.match("GET", path)


@pytest.mark.parametrize(
    ("path", "what"),
    [
        (b"/v1/responses//cancel", r"an empty segment \(is a variable in it empty\?\)"),
        (b"/v1/responses/../models", "a dot segment"),
        (b"/v1/models/..;/x", "a dot segment"),
        (b"/v1/responses/a%5cb", "a backslash"),
        (b"/v1/responses/a%00", "a space or a control character"),
        (b"/v1/responses/a b", "a space or a control character"),
        (b"/v1/responses/a%2Fcancel", "an encoded slash"),
        (b"/v1/models/%252e%252e/x", "something encoded twice"),
        (b"/v1/responses/%zz", "a percent sign that encodes nothing"),
        (b"/v1/responses/caf\xc3\xa9", "what is not ASCII"),
        (b"/v1/models/%ff", "something not encoded as UTF-8"),
    ],
)
def test_the_one_thing_that_makes_a_path_ambiguous_is_named(path: bytes, what: str) -> None:
    with pytest.raises(BadRequest, match=f"it holds {what}[^,]*\\. Send|it holds {what}, or one"):
        TABLE.match("GET", path)


@given(st.sampled_from(["GET", "POST", "DELETE"]), st.binary(max_size=60))
def test_no_path_whatever_does_more_than_match_miss_or_be_refused(method: str, tail: bytes) -> None:
    path = b"/v1/responses/" + tail
    try:
        match = TABLE.match(method, path)
    except BadRequest:
        return
    if match is not None:
        assert b"/v1" + match.subpath == path
        assert b".." not in tail.split(b"/")


def test_the_mirrored_surface_is_the_prefix_and_its_two_aliases() -> None:
    assert all(is_mirrored(path) for path in (b"/v1", b"/v1/x", b"/chat/completions", b"/responses/x"))
    assert not any(is_mirrored(path) for path in (b"/", b"/healthz", b"/v1x", b"/admin/v1/keys", b"/docs"))
