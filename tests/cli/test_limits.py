"""`gmi-gateway limits`, on a running gateway, on Redis, and where there is nothing to be seen."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Run, answer, call, done
from tests.cli.process import serving, until_curl
from tests.http.admin_server import Client, made
from tests.limits.servers import shared_server
from tests.support.gateway import RunningGateway, running_gateway

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "limits.md").read_text("utf-8")
LIMITS = {"each_key": {"requests_per_minute": 60}, "each_team": {"tokens_per_day": 1000}, "shadow": ["team"]}


@pytest.fixture
def gateway() -> Iterator[RunningGateway]:
    """A gateway with a team and a key."""
    with running_gateway("http://127.0.0.1:9/v1", keys=[], limits=LIMITS) as running:
        client = Client(running.url, running.admin_secret)
        made(client.post("/teams", {"name": "engines", "budgets": {"month_microusd": 5_000_000}}))
        made(client.post("/keys", {"team": "engines", "name": "ada", "limits": {"parallel": 4}}))
        client.close()
        yield running


def at(gateway: RunningGateway) -> dict[str, str]:
    return {"GATEWAY_URL": gateway.url, "GATEWAY_ADMIN_KEY": gateway.admin_secret or ""}


def test_what_is_left_is_shown_a_line_for_each_limit(gateway: RunningGateway) -> None:
    lines = done(call("limits", "show", "--key-of", "engines/ada", **at(gateway))).splitlines()
    cells = [[cell for cell in line.split("  ") if cell] for line in lines[2:6]]
    rows = [[cell.strip() for cell in row] for row in cells]
    assert [row[:4] for row in rows] == [
        ["key", "requests/minute", "60", "60"],
        ["key", "parallel", "4", "4"],
        ["team", "tokens/day (shadow)", "1,000", "1,000"],
        ["team", "budget/month (shadow)", "$5.00", "$5.00"],
    ]
    assert rows[3][4].split()[1] in {"d", "h"}


def test_a_script_gets_what_the_api_says(gateway: RunningGateway) -> None:
    told = answer(call("limits", "show", "--team", "engines", "--json", **at(gateway)))
    assert told["mode"] == "memory"
    assert [it["dimension"] for it in told["data"]] == ["tokens", "budget"]


def test_whoever_asks_for_nobody_sees_their_own(gateway: RunningGateway) -> None:
    told = answer(call("limits", "show", "--json", **at(gateway)))
    assert {it["whose"] for it in told["data"]} == {"key", "team"}


def test_what_is_left_of_a_budget_is_told_in_cents_and_exactly_to_scripts(gateway: RunningGateway) -> None:
    client = Client(gateway.url, gateway.admin_secret)
    made(client.post("/teams", {"name": "odd", "budgets": {"day_microusd": 499_999_999}}))
    client.close()
    lines = done(call("limits", "show", "--team", "odd", **at(gateway))).splitlines()
    (row,) = [line.split() for line in lines if "budget/day" in line]
    assert row[3:5] == ["$500.00", "$500.00"]
    told = answer(call("limits", "show", "--team", "odd", "--json", **at(gateway)))
    assert [(it["limit"], it["remaining"]) for it in told["data"] if it["period"] == "day"][-1] == (499_999_999,) * 2


@pytest.mark.parametrize("words", [(), ("--json",)])
def test_on_the_store_somebody_is_to_be_named_and_the_cure_is_said(run: Run, words: tuple[str, ...]) -> None:
    result = run("limits", "show", *words)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        "Say whose limits: --key-of, --team or --endpoint. Those of your own key its gateway shows: export"
        " GATEWAY_URL=http://127.0.0.1:8080 and, as GATEWAY_ADMIN_KEY, the key.\n"
    )


def test_nothing_that_is_limited_is_said_to_be_so(gateway: RunningGateway) -> None:
    said = done(call("limits", "show", "--endpoint", "upstream", **at(gateway)))
    assert said == "No limit binds all calls together. Of a key or a team: --key-of, --team.\n"


def test_a_key_or_a_team_that_nothing_limits_is_told_with_what_sets_a_limit(run: Run) -> None:
    redis = {"GATEWAY_REDIS_URL": shared_server("valkey").url}
    done(run("teams", "create", "--name", "the free"))
    done(run("keys", "create", "--team", "the free", "--name", "eva"))
    said = done(run("limits", "show", "--team", "the free", **redis))
    assert said == "No limit binds the free. Set one: gmi-gateway teams update 'the free' --rpm 60\n"
    said = done(run("limits", "show", "--key-of", "eva", **redis))
    assert said == "No limit binds eva. Set one: gmi-gateway keys update eva --rpm 60\n"


def test_a_reset_is_in_the_audit_log(gateway: RunningGateway) -> None:
    words = ("limits", "reset", "--key-of", "ada", "--dimension", "requests", "--json")
    told = answer(call(*words, **at(gateway)))
    assert [it["id"].rpartition("/key_")[2].partition("/")[2] for it in told["data"]] == ["requests/minute"]
    assert "limits.reset" in done(call("audit", **at(gateway)))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--key-of ada --dimension budget", "This key has no budget."),
        ("--key-of ada --dimension tokens", "This key has no limit of tokens."),
        ("--team engines --dimension parallel", "This team has no limit of parallel calls."),
        ("--team engines --dimension requests", "This team has no limit of requests."),
    ],
)
def test_a_reset_of_a_limit_that_there_is_not_says_so_and_leaves_no_trace(
    gateway: RunningGateway, words: str, said: str
) -> None:
    assert done(call("limits", "reset", *words.split(), **at(gateway))) == f"{said}\n"
    assert answer(call("limits", "reset", *words.split(), "--json", **at(gateway)))["data"] == []
    assert answer(call("audit", "--action", "limits", "--json", **at(gateway))) == []


def test_a_reset_of_all_limits_of_a_team_that_has_none_says_so(run: Run) -> None:
    done(run("teams", "create", "--name", "free"))
    said = done(run("limits", "reset", "--team", "free", GATEWAY_REDIS_URL=shared_server("valkey").url))
    assert said == "This team has no limits of its own.\n"


@pytest.mark.parametrize("words", [("show", "--key-of", "a", "--team", "b"), ("reset",)])
def test_one_owner_of_limits_is_named(run: Run, words: tuple[str, ...]) -> None:
    result = run("limits", *words)
    assert (result.exit_code, "say whose limits are meant" in result.stderr) == (2, True)


@pytest.mark.parametrize("words", [("show",), ("reset",)])
def test_the_store_alone_knows_nothing_of_limits_in_memory_and_the_cure_is_said(
    run: Run, words: tuple[str, ...]
) -> None:
    done(run("teams", "create", "--name", "engines"))
    result = run("limits", *words, "--team", "engines")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        "No gateway runs on this folder, and limits are counted in the memory of one that does; start it, or say --url"
        " where it is.\n"
    )


def test_a_gateway_that_runs_on_the_folder_is_found_and_asked_with_the_admin_key(run: Run) -> None:
    key = {"GATEWAY_ADMIN_KEY": "an-admin-key-from-outside"}
    with serving(**key) as process:
        url = re.findall(r"http://[0-9.:]+", until_curl(process)[-1])[0]
        done(run("teams", "create", "--name", "engines", "--rpm", "5"))
        told = answer(run("limits", "show", "--team", "engines", "--json", **key))
        assert (told["mode"], told["data"][0]["remaining"]) == ("memory", 5)
        assert done(run("limits", "reset", "--team", "engines", "--dimension", "parallel", **key)).startswith(
            "This team"
        )
        assert done(run("limits", "show", **key)).startswith("No limit binds the key that asks.")
        said = done(run("limits", "show", "--key-of", "demo/demo", **key))
        assert said == (
            "No limit binds demo/demo, which cannot be changed here. Make one: gmi-gateway keys create --help\n"
        )
        changed = run("keys", "update", "demo/demo", "--rpm", "60")
        assert (changed.exit_code, "is the simulator's, for a first try" in changed.stderr) == (1, True)
        refused = run("limits", "show", "--team", "engines")
        assert refused.stderr == (
            f"Limits are counted in the memory of the gateway at {url}, which wants to be asked. Put an admin key into"
            " GATEWAY_ADMIN_KEY. Lost? gmi-gateway keys rotate admins/admin\n"
        )
        with serving(**key) as second:
            until_curl(second)
            assert "Say by --url which is meant: http://" in run("limits", "show", "--team", "engines", **key).stderr
    assert run("limits", "show", "--team", "engines").stderr.startswith("No gateway runs on this folder, ")


@pytest.mark.usefixtures("priced")
def test_limits_in_redis_are_seen_and_reset_without_asking_a_gateway(run: Run) -> None:
    redis = {"GATEWAY_REDIS_URL": shared_server("valkey").url}
    done(run("teams", "create", "--name", "engines", "--rpm", "5", "--budget-usd", "5/day"))
    told = answer(run("limits", "show", "--team", "engines", "--json", **redis))
    assert told["mode"] == "exact"
    assert [(it["dimension"], it["remaining"]) for it in told["data"]] == [("requests", 5), ("budget", 5_000_000)]
    assert answer(run("limits", "reset", "--team", "engines", "--json", **redis))["mode"] == "exact"


def test_a_redis_that_is_away_is_said_to_be_so(run: Run, tmp_path: Path) -> None:
    done(run("teams", "create", "--name", "engines", "--rpm", "5"))
    for command in ("show", "reset"):
        result = run("limits", command, "--team", "engines", GATEWAY_REDIS_URL=f"unix://{tmp_path}/none.sock")
        assert (result.exit_code, result.stdout) == (1, "")
        told = "Redis is away, so limits can be neither seen nor reset. gmi-gateway doctor says why.\n"
        assert result.stderr == told


def test_what_the_page_shows_can_be_pasted(gateway: RunningGateway, tmp_path: Path) -> None:
    (tmp_path / "gmi-gateway").write_text(f'#!/bin/sh\nexec {sys.executable} -m gateway "$@"\n')
    (tmp_path / "gmi-gateway").chmod(0o755)
    client = Client(gateway.url, gateway.admin_secret)
    key = client.get("/keys", name="ada").json()["data"][0]["id"]
    client.close()
    environ = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "KEY_ID": key,
        "YOUR_KEY": gateway.admin_secret or "",
        **at(gateway),
    }
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert blocks[0].startswith("export GATEWAY_URL=")
    code = "\n".join(blocks[1:]).replace("curl ", "curl -sf ")
    command = ["bash", "-euo", "pipefail", "-c", code]
    result = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count('{"object":"limits"') == 3
