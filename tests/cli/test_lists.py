"""Lists of keys: of a team that there is, without what has ended unless that is asked for; on a store and by --url."""

import re
from collections.abc import Iterator

import pytest
from typer.testing import Result

from tests.cli.conftest import Run, answer, done
from tests.http.admin_server import AdminServer


@pytest.fixture(params=["store", "url"])
def on(request: pytest.FixtureRequest, run: Run) -> Iterator[Run]:
    """Runs a command on the store of the folder, or on a gateway that runs there."""
    if request.param == "store":
        yield run
        return
    server = request.getfixturevalue("server")
    assert isinstance(server, AdminServer)
    yield lambda *words: run(*words, GATEWAY_URL=server.url, GATEWAY_ADMIN_KEY=server.secret)


def names(result: Result) -> list[str]:
    return [key["name"] for key in answer(result)]


@pytest.mark.parametrize("words", ["keys list", "keys export", "audit"])
@pytest.mark.parametrize(
    ("team", "said"), [("nosuch", "There is no team nosuch "), ("team_00000000000000000000", "There is no such team")]
)
def test_of_a_team_that_is_not_there_nothing_is_listed_and_that_is_said(
    on: Run, words: str, team: str, said: str
) -> None:
    result = on(*words.split(), "--team", team)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(said)
    assert result.stderr.count("\n") == 1


def test_a_team_without_keys_has_an_empty_list(on: Run) -> None:
    team = answer(on("teams", "create", "--name", "engines", "--json"))
    for named in ("engines", team["id"]):
        assert names(on("keys", "list", "--team", named, "--json")) == []


def test_keys_of_a_disabled_team_are_not_said_to_work(on: Run) -> None:
    done(on("teams", "create", "--name", "engines"))
    done(on("keys", "create", "--team", "engines", "--name", "a"))
    done(on("keys", "create", "--team", "engines", "--name", "b"))
    done(on("keys", "disable", "b"))
    done(on("teams", "disable", "engines"))
    new = answer(on("keys", "create", "--team", "engines", "--name", "c", "--json"))
    of_team = ("keys", "list", "--team", "engines")
    rows = [re.split(r" {2,}", line) for line in done(on(*of_team)).splitlines()[2:]]
    assert [row[4] for row in rows] == ["team disabled", "disabled", "team disabled"]
    shown = [*answer(on(*of_team, "--json")), answer(on("keys", "show", "a", "--json")), new]
    assert {(key["team_state"], key["state"]) for key in shown} == {("disabled", "active"), ("disabled", "disabled")}
    done(on("teams", "enable", "engines"))
    assert "team disabled" not in done(on(*of_team))
    assert {key["team_state"] for key in answer(on(*of_team, "--json"))} == {"active"}


def test_revoked_keys_are_listed_where_they_are_asked_for(on: Run) -> None:
    done(on("teams", "create", "--name", "engines"))
    for name in ("a", "b", "c", "d"):
        done(on("keys", "create", "--team", "engines", "--name", name))
    done(on("keys", "revoke", "a"))
    done(on("keys", "revoke", "c"))
    done(on("keys", "disable", "d"))
    of_team = ("keys", "list", "--team", "engines", "--json")
    assert names(on(*of_team)) == ["b", "d"]
    assert names(on(*of_team, "--all")) == ["a", "b", "c", "d"]
    assert names(on(*of_team, "--state", "revoked")) == ["a", "c"]
    assert names(on(*of_team, "--state", "active")) == ["b"]
    assert names(on(*of_team, "--limit", "2")) == ["b", "d"]
    assert names(on(*of_team, "--limit", "1")) == ["b"]
    shown = done(on("keys", "list", "--team", "engines"))
    assert [line.split()[2] for line in shown.splitlines()[2:]] == ["b", "d"]
