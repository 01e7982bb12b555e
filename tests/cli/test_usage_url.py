"""Asked by --url, a gateway's ledger says what its store says; a key sees what is its own to see."""

from collections.abc import Iterator

import pytest

from gateway.call import CallRecord, Principal
from gateway.settings import Settings
from gateway.store.url import database_url
from tests.cli.conftest import Run, answer, done, plain
from tests.cli.ledger import a_key, call_of, put
from tests.http.admin_server import AdminServer, administered


@pytest.fixture
def gateway(run: Run) -> Iterator[AdminServer]:
    """One on the store of this folder, in which two teams have made calls."""
    with administered(database_url(Settings())) as running:
        ada, bob = a_key(run, "engines", "ada"), a_key(run, "sails", "bob")
        put([*calls_of(ada), *calls_of(bob)])
        yield running


def calls_of(principal: Principal) -> Iterator[CallRecord]:
    name = principal.key
    yield call_of(principal, f"req_{name}_1", 30, tags={"job": "nightly"})
    yield call_of(principal, f"req_{name}_2", 20, model=None, usage=None, usage_source="unknown", cost_microusd=None)
    yield call_of(principal, f"req_{name}_3", 10, outcome="refused", status=429, error="rate_limit_exceeded")


def at(gateway: AdminServer, secret: str | None = None) -> dict[str, str]:
    return {"GATEWAY_URL": gateway.url, "GATEWAY_ADMIN_KEY": secret or gateway.secret}


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
def test_a_gateway_says_what_its_store_says(run: Run, gateway: AdminServer, words: str) -> None:
    assert done(run(*words.split(), **at(gateway))) == done(run(*words.split()))


def test_whoever_leads_a_team_sees_that_team_alone(run: Run, gateway: AdminServer) -> None:
    made = answer(run("keys", "create", "--team", "sails", "--name", "lead", "--role", "team_admin", "--json"))
    lead = at(gateway, made["secret"])
    assert [row["group"]["team"] for row in answer(run("usage", "--json", **lead))["data"]] == ["sails"]
    listed = answer(run("calls", "list", "--json", **lead))
    assert {call["key"] for call in listed} == {"sails/bob"}
    for words in (("calls", "show", "req_ada_1"), ("usage", "--team", "engines"), ("calls", "list", "--key-of", "ada")):
        result = run(*words, **lead)
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
def test_what_cannot_be_asked_of_a_gateway_is_said(
    run: Run, gateway: AdminServer, words: tuple[str, ...], message: str
) -> None:
    result = run(*words, **at(gateway))
    assert (result.exit_code, result.stdout) == (1, "")
    assert message in plain(result.stderr)
