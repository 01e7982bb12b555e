"""Asked by --url, a gateway's ledger says what its store says; a key sees what is its own to see."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from sqlalchemy import URL

from gateway.call import CallRecord, Principal
from tests.cli.conftest import answer, call, done, plain
from tests.cli.ledger import call_of, put
from tests.http.admin_server import AdminServer, administered, made
from tests.support.stores import fresh_sqlite_url


@dataclass(frozen=True)
class Gateway:
    """One whose store is at hand too, and in which two teams have made calls. `ada` is the secret of a member."""

    server: AdminServer
    store: URL
    ada: str

    def remote(self, secret: str | None = None) -> dict[str, str]:
        """Variables for commands that ask it."""
        return {"GATEWAY_URL": self.server.url, "GATEWAY_ADMIN_KEY": secret or self.server.secret}

    def local(self) -> dict[str, str]:
        """Variables for commands that ask its store."""
        return {"GATEWAY_DATABASE_URL": f"sqlite:///{self.store.database}"}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """It is only asked here, but for keys without calls."""
    store = fresh_sqlite_url(tmp_path_factory.mktemp("gateway"))
    with administered(store) as server:
        for team in ("engines", "sails"):
            made(server.admin.post("/teams", {"name": team}))
        keys = [a_key(server, team, name) for team, name in (("engines", "ada"), ("sails", "bob"), ("engines", "eve"))]
        put((record for key in keys for record in calls_of(key)), store)
        yield Gateway(server, store, keys[0]["secret"])


def a_key(server: AdminServer, team: str, name: str) -> dict[str, Any]:
    return made(server.admin.post("/keys", {"team": team, "name": name}))


def calls_of(key: dict[str, Any]) -> Iterator[CallRecord]:
    name = key["name"]
    principal = Principal(name, key["team"], key["id"], key["team_id"])
    yield call_of(principal, f"req_{name}_1", 30, tags={"job": "nightly"})
    yield call_of(principal, f"req_{name}_2", 20, model=None, usage=None, usage_source="unknown", cost_microusd=None)
    yield call_of(principal, f"req_{name}_3", 10, outcome="refused", status=429, error="rate_limit_exceeded")


@pytest.mark.parametrize(
    "words",
    [
        "usage",
        "usage --json",
        "usage --by team,key,model --csv",
        "usage --by day,route --since 2d",
        "usage --by hour --sort -calls",
        "usage --by tag:job,team --json",
        "usage --team engines --key-of ada --model openai/gpt-5.2 --route chat/completions --tag job=nightly --json",
        "usage --limit 1",
        "calls list",
        "calls list --json --limit 2",
        "calls list --errors --team sails --json",
        "calls list --status 4xx --error rate_limit_exceeded --json",
        "calls show req_ada_2",
        "calls show req_bob_1 --json",
    ],
)
def test_a_gateway_says_what_its_store_says(gateway: Gateway, words: str) -> None:
    assert done(call(*words.split(), **gateway.remote())) == done(call(*words.split(), **gateway.local()))


def test_whoever_leads_a_team_sees_that_team_alone(gateway: Gateway) -> None:
    key = made(gateway.server.admin.post("/keys", {"team": "sails", "name": "lead", "role": "team_admin"}))
    lead = gateway.remote(key["secret"])
    assert [row["group"]["team"] for row in answer(call("usage", "--json", **lead))["data"]] == ["sails"]
    listed = answer(call("calls", "list", "--json", **lead))
    assert {each["key"] for each in listed} == {"sails/bob"}
    for words in (("calls", "show", "req_ada_1"), ("usage", "--team", "engines"), ("calls", "list", "--key-of", "ada")):
        result = call(*words, **lead)
        assert (result.exit_code, result.stdout) == (1, "")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("usage", "--model", "a", "--model", "b"), "With --url, --model can be said once."),
        (("usage", "--by", "colour"), "group_by (--by) must name"),
        (("calls", "show", "../keys"), "There is no call ../keys at http"),
        (("calls", "show", "req_none"), "There is no call req_none at http"),
    ],
)
def test_what_cannot_be_asked_of_a_gateway_is_said(gateway: Gateway, words: tuple[str, ...], message: str) -> None:
    result = call(*words, **gateway.remote())
    assert (result.exit_code, result.stdout) == (1, "")
    assert message in plain(result.stderr)


@pytest.mark.parametrize(
    "words",
    [
        "usage --json",
        "usage --by team,key,model --csv",
        "usage --by day,route --since 2d",
        "usage --by tag:job --sort -calls",
        "usage --model openai/gpt-5.2 --route chat/completions --tag job=nightly --json",
        "calls list",
        "calls list --json --limit 2",
        "calls list --errors --json",
    ],
)
def test_a_member_is_told_of_their_own_key_what_the_store_says_of_it(gateway: Gateway, words: str) -> None:
    """By name, though a member may look up neither keys nor teams."""
    told = done(call(*words.split(), **gateway.remote(gateway.ada)))
    assert told == done(call(*words.split(), "--key-of", "ada", **gateway.local()))


def test_a_member_is_shown_a_call_of_theirs_and_no_other(gateway: Gateway) -> None:
    ada = gateway.remote(gateway.ada)
    own = ("calls", "show", "req_ada_1")
    assert done(call(*own, **ada)) == done(call(*own, **gateway.local()))
    for other in ("req_eve_1", "req_bob_1", "req_none"):
        result = call("calls", "show", other, **ada)
        assert (result.exit_code, result.stdout) == (1, "")
        assert f"There is no call {other} at http" in plain(result.stderr)


@pytest.mark.parametrize("words", ["usage --team engines", "usage --key-of ada", "calls list --key-of eve"])
def test_a_member_who_names_a_team_or_a_key_is_told_to_leave_that_out(gateway: Gateway, words: str) -> None:
    result = call(*words.split(), **gateway.remote(gateway.ada))
    assert (result.exit_code, result.stdout) == (1, "")
    assert "Leave out --team and --key-of." in plain(result.stderr)
