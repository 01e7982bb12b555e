"""docs/keys.md is true: what it shows is run, its commands and its curl lines, each on a gateway of its own.

A shell runs the blocks in their order. Of `curl`, a reply of 400 and above is a failure.
"""

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.http.routes import ROUTE_GROUPS
from tests.cli.conftest import call, done
from tests.http.admin_server import AdminServer, Client

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "keys.md").read_text("utf-8")
SETUP = "export GATEWAY_URL"


@dataclass(frozen=True)
class Block:
    """One fenced block, and the heading that it stands under."""

    heading: str
    language: str
    code: str

    @property
    def is_curl(self) -> bool:
        return re.search(r"^(?:\w+=\$\()?curl ", self.code) is not None


def blocks() -> list[Block]:
    found = []
    for section in re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]:
        heading = section.partition("\n")[0]
        fences = re.findall(r"^```(\w+)\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
        found += [Block(heading, language, code) for language, code in fences]
    return [block for block in found if not block.code.startswith(SETUP)]


class Shell:
    """Runs blocks as a person would who has the two variables set."""

    def __init__(self, server: AdminServer, folder: Path) -> None:
        self._folder = folder
        (folder / "gmi-gateway").write_text(f'#!/bin/sh\nexec {sys.executable} -m gateway "$@"\n')
        (folder / "gmi-gateway").chmod(0o755)
        (folder / ".curlrc").write_text("fail-with-body\nshow-error\nsilent\nmax-time = 20\n")
        self._environ = {
            "PATH": f"{folder}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "CURL_HOME": str(folder),
            "NO_PROXY": "*",
            "GATEWAY_URL": server.url,
            "GATEWAY_ADMIN_KEY": server.secret,
        }

    def run(self, code: str, **variables: str) -> str:
        environ = {**self._environ, **variables}
        command = ["bash", "-euo", "pipefail", "-c", code]
        result = subprocess.run(
            command, cwd=self._folder, env=environ, capture_output=True, text=True, timeout=60, check=False
        )
        assert result.returncode == 0, f"{code}\n{result.stdout}{result.stderr}"
        return result.stdout


def ids(client: Client, commands: str) -> dict[str, str]:
    """The ids that curl lines need, of the key and the team that the commands beside them name."""
    keys, teams = client.get("/keys", limit=200).json()["data"], client.get("/teams").json()["data"]
    named = {key["name"]: key["id"] for key in keys if key["state"] != "revoked"}
    found = {"TEAM_ID": next((team["id"] for team in teams if team["name"] == "engines"), "")}
    for name in re.findall(r"engines/([\w-]+)", commands):
        found["KEY_ID"] = named[name]
    return found


def state(client: Client) -> Any:
    """What there is, without what differs from run to run."""
    keys = client.get("/keys", limit=200, sort="name").json()["data"]
    shown = ("team", "name", "owner", "role", "state", "grants", "limits", "budgets", "tags", "version")
    return [{member: key[member] for member in shown} for key in keys]


@pytest.mark.parametrize("is_curl", [False, True], ids=["commands", "curl"])
def test_what_the_page_shows_can_be_pasted(server: AdminServer, tmp_path: Path, is_curl: bool) -> None:
    shell, client = Shell(server, tmp_path), server.admin
    commands = ""
    for block in blocks():
        if block.language == "yaml":
            (tmp_path / "teams.yaml").write_text(block.code)
            continue
        if not block.is_curl:
            commands = block.code
        if block.is_curl == is_curl:
            shell.run(block.code, **ids(client, commands))
    after = {f"{key['team']}/{key['name']}": key for key in state(client)}
    assert set(after) == {
        "admins/admin",
        "engines/ada",
        "engines/bob",
        "engines/ci-evals",
        "evals/grace",
        "evals/nightly",
    }
    assert (after["engines/ada"]["state"], after["engines/ada"]["role"]) == ("revoked", "team_admin")
    assert after["engines/ci-evals"]["limits"]["requests_per_minute"] == 240
    assert after["engines/ci-evals"]["limits"]["parallel"] is None
    assert after["engines/ci-evals"]["grants"]["networks"] is None
    assert after["engines/ci-evals"]["budgets"]["day_microusd"] == 5_000_000
    assert "ada" not in yaml.safe_dump(yaml.safe_load((tmp_path / "teams-now.yaml").read_text("utf-8")))


def test_every_task_is_shown_as_commands_and_as_curl() -> None:
    tasks: dict[str, set[bool]] = {}
    for block in blocks():
        if block.language == "sh":
            tasks.setdefault(block.heading, set()).add(block.is_curl)
    assert len(tasks) >= 9
    assert {heading for heading, kinds in tasks.items() if kinds != {True, False}} == set()


def test_the_commands_that_the_text_mentions_exist() -> None:
    mentioned = set(re.findall(r"`(?:gmi-gateway )?(keys|teams) (\w+)", PAGE))
    assert len(mentioned) > 3
    for group, name in mentioned:
        done(call(group, name, "--help"))


def test_the_page_names_each_group_of_routes() -> None:
    listed = re.search(r"groups[^:]*:([^.]*)\.", PAGE)
    assert listed is not None
    assert set(re.findall(r"`(\w+)`", listed[1])) == ROUTE_GROUPS


def test_the_page_shows_no_secret() -> None:
    assert re.search(r"sk-gw-[0-9A-Za-z]{4,}", PAGE) is None
