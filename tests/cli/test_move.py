"""Keys that move to another database keep their secrets; who may not have digests does not get any."""

import stat
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from gateway.store.url import dsn
from tests.cli.conftest import Run, answer, call, done, plain
from tests.http.admin_server import AdminServer
from tests.support.stores import empty_postgres_url

OLD = "sk-of-another-make"
DOCUMENT = f"teams: [{{name: movers, keys: [{{name: old, secret_sha256: {sha256(OLD.encode()).hexdigest()}}}]}}]"


def test_keys_move_to_another_database_with_the_commands_of_the_page(run: Run) -> None:
    done(run("teams", "create", "--name", "engines"))
    secret: str = answer(run("keys", "create", "--team", "engines", "--name", "ada", "--rpm", "60", "--json"))["secret"]
    done(run("keys", "export", "--with-digests", "--output", "all.yaml"))
    new = {"GATEWAY_DATABASE_URL": dsn(empty_postgres_url())}
    done(run("migrate", **new))
    said = done(run("keys", "import", "all.yaml", **new))
    assert said.endswith("2 made or changed, 0 as the file says already.\n")
    assert "sk-gw-" not in said
    assert done(run("keys", "export", "--with-digests", **new)) == Path("all.yaml").read_text("utf-8")
    assert sha256(secret.encode()).hexdigest() in Path("all.yaml").read_text("utf-8")


def test_a_file_with_digests_is_its_owners_alone(run: Run) -> None:
    done(run("keys", "export", "--with-digests", "--output", "new.yaml"))
    assert stat.S_IMODE(Path("new.yaml").stat().st_mode) == 0o600
    result = run("keys", "export", "--with-digests", "--output", "/dev/full")
    assert (result.exit_code, "cannot be written" in plain(result.stderr)) == (2, True)


@pytest.mark.parametrize("words", [(), ("--with-digests",)])
def test_an_export_overwrites_no_file(run: Run, words: tuple[str, ...]) -> None:
    Path("old.yaml").write_text("mine")
    Path("link.yaml").symlink_to("elsewhere.yaml")
    for name in ("old.yaml", "link.yaml"):
        result = run("keys", "export", *words, "--output", name)
        assert (result.exit_code, result.stdout) == (2, "")
        assert f"{name} is there already, and may hold secrets" in plain(result.stderr)
    assert (Path("old.yaml").read_text(), Path("elsewhere.yaml").exists()) == ("mine", False)


def test_nothing_is_printed_as_the_secret_of_a_key_that_keeps_its_own(run: Run) -> None:
    Path("in.yaml").write_text(DOCUMENT)
    result: Any = answer(run("keys", "import", "in.yaml", "--json"))
    assert [key["secret"] for key in result["made_keys"]] == [None]
    assert "sk-" not in done(run("keys", "export", "--with-digests"))


@pytest.mark.parametrize("words", ["keys export --with-digests", "keys import in.yaml"])
def test_a_team_admin_gets_and_brings_no_digests(server: AdminServer, words: str) -> None:
    Path("in.yaml").write_text(DOCUMENT)
    team = server.admin.post("/teams", {"name": "movers"}).json()["id"]
    boss = server.admin.post("/keys", {"team": team, "name": "boss", "role": "team_admin"}).json()["secret"]
    result = call(*words.split(), "--url", server.url, GATEWAY_ADMIN_KEY=boss)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "Only a key with the role admin may" in result.stderr
