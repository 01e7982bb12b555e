"""Asked by --url, a gateway's ledger says what its store says; a key sees what is its own to see."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from sqlalchemy import URL

from gateway.call import CallRecord, Principal
from tests.cli.conftest import answer, call, done, plain
from tests.cli.ledger import call_of, put
from tests.http.admin_server import AdminServer, administered, made
from tests.support.stores import fresh_sqlite_url


@dataclass(frozen=True)
class Gateway:
    """One whose store is at hand too, and in which two teams have made calls."""

    server: AdminServer
    store: URL

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
        put([*calls_of(a_key(server, "engines", "ada")), *calls_of(a_key(server, "sails", "bob"))], store)
        yield Gateway(server, store)


def a_key(server: AdminServer, team: str, name: str) -> Principal:
    made(server.admin.post("/teams", {"name": team}))
    key = made(server.admin.post("/keys", {"team": team, "name": name}))
    return Principal(name, team, key["id"], key["team_id"])


def calls_of(principal: Principal) -> Iterator[CallRecord]:
    name = principal.key
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
        (("usage", "--by", "colour"), "group_by must name"),
        (("calls", "show", "../keys"), "There is no call ../keys at http"),
        (("calls", "show", "req_none"), "There is no call req_none at http"),
    ],
)
def test_what_cannot_be_asked_of_a_gateway_is_said(gateway: Gateway, words: tuple[str, ...], message: str) -> None:
    result = call(*words, **gateway.remote())
    assert (result.exit_code, result.stdout) == (1, "")
    assert message in plain(result.stderr)
