"""Lists hold what the caller may see, in full pages and byte for byte."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest
from openai import OpenAI

from gateway.call import Route
from gateway.http.routes import ROUTES
from gateway.relay import listing
from tests.http.teams import (
    ADA,
    BOB,
    EVE,
    KEYS,
    World,
    a_batch,
    a_completion,
    a_file,
    a_vector_store,
    impatient,
    is_refused,
    two_teams,
)
from tests.support.gateway import running_gateway
from tests.support.wire import WireUpstream, reply

LISTS = [route for route in ROUTES if route.lists]


@pytest.fixture(autouse=True, scope="module")
def _impatient() -> Iterator[None]:
    with impatient():
        yield


@pytest.fixture(scope="module")
def shared() -> Iterator[World]:
    """Teams share what their keys make."""
    with two_teams() as world:
        yield world


@pytest.fixture(scope="module")
def unshared() -> Iterator[World]:
    """Each key has what it made."""
    with two_teams(share_within_team=False) as world:
        yield world


def named(route: Route) -> str:
    return f"{route.method} {route.pattern}"


FILTERS = {"files": "purpose=vision"}
LISTED: dict[str, Callable[[World, str], str]] = {
    "chat/completions": a_completion,
    "files": lambda world, key: a_file(world, key, "vision"),
    "batches": a_batch,
    "vector_stores": a_vector_store,
}


def test_a_list_holds_what_the_caller_may_see_and_nothing_else(shared: World) -> None:
    for route in LISTS:
        made = {key: [LISTED[route.pattern](shared, each) for each in (key, key)] for key in (ADA, EVE)}
        theirs = [each["id"] for each in shared.ask(EVE, "GET", f"{route.pattern}?limit=100").json()["data"]]
        ours = [each["id"] for each in shared.ask(BOB, "GET", f"{route.pattern}?limit=100").json()["data"]]
        assert set(made[EVE]) <= set(theirs), route
        assert set(made[ADA]) <= set(ours), route
        assert not set(ours) & set(theirs), route


def test_where_nothing_is_shared_a_list_holds_what_the_key_made(unshared: World) -> None:
    for route in LISTS:
        made = LISTED[route.pattern](unshared, ADA)
        assert made in unshared.ask(ADA, "GET", route.pattern).text
        assert made not in unshared.ask(BOB, "GET", route.pattern).text


@pytest.mark.parametrize("route", LISTS, ids=named)
@pytest.mark.parametrize("cursor", ["after", "before"])
def test_a_foreign_cursor_is_as_unknown_as_any(shared: World, route: Route, cursor: str) -> None:
    made = LISTED[route.pattern](shared, ADA)
    before = shared.seen()
    for query in (f"{cursor}={made}", f"{cursor}=%{ord(made[0]):02x}{made[1:]}", f"limit=2&{cursor}=nobodys"):
        assert is_refused(shared.ask(EVE, "GET", f"{route.pattern}?{query}"))
    for query in (f"{cursor}={made}&{cursor}=x", f"{cursor}[]={made}", f"{cursor.upper()}={made}", f"{cursor}%5b%5d=x"):
        assert shared.ask(EVE, "GET", f"{route.pattern}?{query}").status_code == 400
    assert shared.seen() == before
    assert shared.ask(ADA, "GET", f"{route.pattern}?{cursor}={made}").status_code == 200


@pytest.mark.parametrize("route", LISTS, ids=named)
def test_pages_are_full_and_their_members_true_however_much_lies_between(
    shared: World, route: Route, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "PAGE_SIZE", 2)
    make = LISTED[route.pattern]
    ours = []
    for _ in range(3):
        ours.append(make(shared, ADA))
        for _ in range(5):
            make(shared, EVE)
    first = shared.ask(ADA, "GET", f"{route.pattern}?limit=2&order=desc").json()
    assert [each["id"] for each in first["data"]] == [ours[2], ours[1]]
    assert (first["first_id"], first["last_id"], first["has_more"]) == (ours[2], ours[1], True)
    rest = shared.ask(ADA, "GET", f"{route.pattern}?limit=1&order=desc&after={ours[1]}").json()
    assert [each["id"] for each in rest["data"]] == [ours[0]]


def pages_of(client: OpenAI, pattern: str, **options: Any) -> list[str]:
    """All that the SDK finds, page by page."""
    resource: Any = client
    for part in pattern.split("/"):
        resource = getattr(resource, part)
    return [each.id for each in resource.list(**options)]


@pytest.mark.parametrize("route", LISTS, ids=named)
@pytest.mark.parametrize("limit", [1, 3, 100])
def test_openais_client_finds_all_of_ones_own_by_itself(
    shared: World, route: Route, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "PAGE_SIZE", 100 if limit == 100 else 3)
    ours = []
    for _ in range(4):
        LISTED[route.pattern](shared, EVE)
        ours.append(LISTED[route.pattern](shared, ADA))
    found = pages_of(shared.client(ADA), route.pattern, limit=limit)
    assert len(found) == len(set(found))
    assert set(ours) <= set(found)
    assert not set(found) & set(pages_of(shared.client(EVE), route.pattern, limit=limit))


def test_a_list_of_nothing_is_a_list(shared: World) -> None:
    found = shared.ask(EVE, "GET", "files?purpose=fine-tune").json()
    assert found == {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}


def test_filters_reach_upstream_and_so_does_a_limit_that_it_alone_can_judge(shared: World) -> None:
    made = a_file(shared, ADA, "evals")
    a_file(shared, ADA, "vision")
    assert [each.id for each in shared.client(ADA).files.list(purpose="evals")] == [made]
    for limit in ("0", "-1", "x", "1e9", "100000000", ""):
        refusal = shared.ask(ADA, "GET", f"files?limit={limit}")
        assert refusal.status_code == (200 if not limit else 400)
        assert "not yours" not in refusal.text


LIST = [(b"Content-Type", b"application/json"), (b"X-Request-Id", b"req_up")]


async def test_elements_come_byte_for_byte_and_so_does_what_surrounds_them() -> None:
    ours, theirs = b'{ "id" : "file-1",\n "x":1.0, "\\u00e9":[ ] }', b'{"id":"file-2"}'
    before, after = b'{"new": {"a": 1e0}, "data" : [\n', b'\n], "has_more":false ,"object":"list"}\n'
    async with WireUpstream(reply(200, LIST, before + theirs + b" , " + ours + b"," + theirs + after)) as upstream:
        with running_gateway(f"{upstream.url}/v1", keys=KEYS) as gateway:
            gateway.own("file-1", key=ADA)
            async with httpx2.AsyncClient() as http:
                got = await http.get(f"{gateway.api}/files?a=%2F&&b", headers={"Authorization": f"Bearer {BOB}"})
    assert got.content == b'{"new": {"a": 1e0}, "data" : [' + ours + b'], "has_more":false ,"object":"list"}\n'
    assert got.headers["x-request-id"] == "req_up"
    assert upstream.requests[0].target == b"/v1/files?a=%2F&&b&limit=100"


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"data":1}', b'{"data":[', b'{"data":[],"has_more":"x"}', b"\xff"]
)
async def test_what_is_no_list_is_not_passed_on(body: bytes) -> None:
    async with WireUpstream(reply(200, LIST, body)) as upstream:
        with running_gateway(f"{upstream.url}/v1", keys=KEYS) as gateway:
            async with httpx2.AsyncClient() as http:
                got = await http.get(f"{gateway.api}/files", headers={"Authorization": f"Bearer {BOB}"})
    assert (got.status_code, got.json()["error"]["code"]) == (502, "upstream_protocol_error")


@pytest.mark.parametrize("status", [201, 203, 206])
async def test_a_part_of_a_list_is_neither_asked_for_nor_passed_on(status: int) -> None:
    async with WireUpstream(reply(status, LIST, b'{"data":[{"id":"file-2"}]}')) as upstream:
        with running_gateway(f"{upstream.url}/v1", keys=KEYS) as gateway:
            async with httpx2.AsyncClient(headers={"Authorization": f"Bearer {BOB}"}) as http:
                got = await http.get(f"{gateway.api}/files", headers={"Range": "bytes=0-9", "If-None-Match": "x"})
    assert (got.status_code, "file-2" in got.text) == (502, False)
    assert not {b"range", b"if-none-match"} & {name.lower() for name, _ in upstream.requests[0].headers}


def page_of(first: int, count: int, *, more: bool) -> bytes:
    data = [{"id": f"file-{number}"} for number in range(first, first + count)]
    return reply(200, LIST, json.dumps({"object": "list", "data": data, "has_more": more}).encode())


async def test_upstreams_refusal_is_passed_on_but_not_one_of_a_cursor_that_the_client_never_saw() -> None:
    refusal = reply(400, LIST, b'{"error":{"message":"No object file-3","code":"x"}}')
    async with WireUpstream(refusal, page_of(0, 4, more=True), refusal) as upstream:
        with running_gateway(f"{upstream.url}/v1", keys=KEYS) as gateway:
            async with httpx2.AsyncClient(headers={"Authorization": f"Bearer {BOB}"}) as http:
                own = await http.get(f"{gateway.api}/files?order=x")
                ours = await http.get(f"{gateway.api}/files")
    assert (own.status_code, own.json()["error"]["code"]) == (400, "x")
    assert ours.status_code == 502
    assert "file-3" not in ours.text


async def test_a_list_in_which_nothing_is_found_for_long_says_so_and_never_ends_too_early(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(listing, "MAX_PAGES", 3)
    pages = [page_of(number * 4, 4, more=True) for number in range(7)]
    async with WireUpstream(*pages) as upstream:
        with running_gateway(f"{upstream.url}/v1", keys=KEYS) as gateway:
            gateway.own("file-17", key=ADA)
            async with httpx2.AsyncClient(headers={"Authorization": f"Bearer {ADA}"}) as http:
                nothing = await http.get(f"{gateway.api}/files")
                some = await http.get(f"{gateway.api}/files")
    assert (nothing.status_code, nothing.json()["error"]["code"]) == (503, "list_incomplete")
    assert nothing.headers["x-should-retry"] == "false"
    assert [each["id"] for each in some.json()["data"]] == ["file-17"]
    assert some.json()["has_more"] is True
    assert [seen.target.partition(b"after=")[2] for seen in upstream.requests] == [
        b"", b"file-3", b"file-7", b"", b"file-15", b"file-19",
    ]  # fmt: skip


async def test_an_upstream_that_repeats_itself_is_not_asked_for_ever() -> None:
    async with WireUpstream(page_of(0, 2, more=True)) as upstream:
        with running_gateway(f"{upstream.url}/v1", keys=KEYS) as gateway:
            async with httpx2.AsyncClient(headers={"Authorization": f"Bearer {ADA}"}) as http:
                got = await http.get(f"{gateway.api}/files")
    assert got.json() == {"object": "list", "data": [], "has_more": False}
    assert len(upstream.requests) == 2
