"""One account, many teams: nobody gets at what another team has stored upstream.

The rows of the route table make the tests: one that is added and takes an id or lists is covered by itself, or fails
here for want of a way to make what it names.
"""

import re
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from gateway.call import Body, Route
from gateway.http.routes import ROUTES
from tests.http.teams import ADA, BOB, EVE, MAKERS, World, a_file, is_refused, two_teams


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


OWNED = [route for route in ROUTES if route.owned]
LISTS = [route for route in ROUTES if route.lists]


def named(route: Route) -> str:
    return f"{route.method} {route.pattern}"


def filled(route: Route, ids: dict[str, str]) -> str:
    return re.sub(r"\{(\w+)\}", lambda name: ids.get(name[1], "part_1"), route.pattern)


def call(world: World, key: str, route: Route, ids: dict[str, str]) -> httpx2.Response:
    what: dict[str, Any] = {}
    if route.body is Body.JSON:
        what["json"] = {}
    elif route.body is Body.RAW:
        what["files"] = {"data": ("a", b"abc")}
    return world.ask(key, route.method, filled(route, ids), **what)


# Rows that take an id


def test_every_id_in_a_path_is_checked_but_for_parts_of_what_is_checked_and_models() -> None:
    unowned = {(name, bool(route.owned)) for route in ROUTES for name in route.unowned}
    assert unowned == {("item_id", True), ("batch_id", True), ("model_id", False)}


def test_every_list_of_what_the_account_has_is_filtered() -> None:
    whole = {route.pattern for route in ROUTES if route.method == "GET" and "{" not in route.pattern}
    assert {route.pattern for route in LISTS} == {*whole} - {"models"}


@pytest.mark.parametrize("route", OWNED, ids=named)
def test_what_another_team_made_is_as_if_it_were_not_and_upstream_is_not_asked(shared: World, route: Route) -> None:
    ids = {name: MAKERS[name](shared, ADA) for name in route.owned}
    before = shared.seen()
    foreign = call(shared, EVE, route, ids)
    unknown = call(shared, EVE, route, {name: each[:-1] + "_" for name, each in ids.items()})
    assert shared.seen() == before
    assert (foreign.status_code, unknown.status_code) == (404, 404)
    assert foreign.content == unknown.content
    assert foreign.json()["error"]["code"] == "not_found"
    assert foreign.headers["content-type"] == "application/json"


@pytest.mark.parametrize("route", OWNED, ids=named)
def test_no_spelling_of_an_id_gets_around_the_check(shared: World, route: Route) -> None:
    ids = {name: MAKERS[name](shared, ADA) for name in route.owned}
    spelled = {name: "".join(f"%{ord(letter):02x}" for letter in each) for name, each in ids.items()}
    before = shared.seen()
    assert is_refused(call(shared, EVE, route, spelled))
    assert shared.seen() == before
    assert not is_refused(call(shared, ADA, route, spelled))
    assert shared.seen() == before + 1


@pytest.mark.parametrize("route", OWNED, ids=named)
def test_inside_a_team_what_one_made_is_everyones(shared: World, route: Route) -> None:
    ids = {name: MAKERS[name](shared, ADA) for name in route.owned}
    before = shared.seen()
    assert not is_refused(call(shared, BOB, route, ids))
    assert shared.seen() == before + 1


@pytest.mark.parametrize("route", OWNED, ids=named)
def test_where_settings_say_so_it_is_the_keys_that_made_it_alone(unshared: World, route: Route) -> None:
    ids = {name: MAKERS[name](unshared, ADA) for name in route.owned}
    before = unshared.seen()
    assert is_refused(call(unshared, BOB, route, ids))
    assert is_refused(call(unshared, EVE, route, ids))
    assert unshared.seen() == before
    assert not is_refused(call(unshared, ADA, route, ids))


@pytest.mark.parametrize("route", [route for route in OWNED if len(route.owned) > 1], ids=named)
def test_each_of_several_ids_is_checked(shared: World, route: Route) -> None:
    before = None
    for foreign in route.owned:
        ids = {name: MAKERS[name](shared, ADA if name == foreign else EVE) for name in route.owned}
        before = shared.seen()
        assert is_refused(call(shared, EVE, route, ids))
        assert shared.seen() == before


def test_what_was_deleted_is_still_its_teams_so_that_upstream_answers(shared: World) -> None:
    made = a_file(shared, ADA)
    assert shared.ask(ADA, "DELETE", f"files/{made}").json()["deleted"] is True
    assert "No such File object" in shared.ask(ADA, "GET", f"files/{made}").json()["error"]["message"]
    assert is_refused(shared.ask(EVE, "GET", f"files/{made}"))
