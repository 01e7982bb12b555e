"""What a command imports: nothing that it does not need, so that it answers at once."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.process import ROOT
from tests.http.admin_server import AdminServer

_CODE = """
import atexit, sys
from gateway.cli import main
atexit.register(lambda: print("\\n" + " ".join(sys.modules), file=sys.stderr))
main()
"""
_OF_SERVERS = {"fastapi", "starlette", "uvicorn", "prometheus_client", "gateway.app", "gateway.composition"}
_OF_STORES = {"sqlalchemy", "alembic", "aiosqlite", "asyncpg", "redis", "gateway.store", "gateway.access"}
_OF_SETTINGS = {"pydantic_settings", "yaml", "gateway.settings", "gateway.configuration", "gateway.doctor"}
_OF_CLIENTS = {"httpx2", "asyncio"}


def imported(*words: str, **environ: str) -> set[str]:
    """The modules of a process that has run `gmi-gateway` with these words."""
    done = subprocess.run(
        [sys.executable, "-c", _CODE, *words],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return set(done.stderr.splitlines()[-1].split())


@pytest.mark.parametrize("words", ["", "--help", "--version"])
def test_the_program_itself_speaks_without_any_of_its_libraries(words: str) -> None:
    named = _OF_SERVERS | _OF_STORES | _OF_SETTINGS | _OF_CLIENTS | {"pydantic"}
    assert imported(*words.split()) & named == set()


@pytest.mark.parametrize(
    "words",
    [
        "sevre",
        "serve --help",
        "serve --port x",
        "check-config --help",
        "doctor --help",
        "keys --help",
        "keys list --help",
        "keys create --name x",
        "keys nosuch",
        "limits show --nosuch",
        "usage --help",
        "usage reconcile --help",
        "calls list --limit 0",
        "tail --help",
        "audit --help",
        "migrate --help",
    ],
)
def test_help_and_what_was_mistyped_are_told_before_anything_is_loaded(words: str) -> None:
    assert imported(*words.split()) & (_OF_SERVERS | _OF_STORES | _OF_SETTINGS | _OF_CLIENTS) == set()


@pytest.mark.parametrize("words", ["keys list", "limits show --team admins"])
def test_whoever_asks_a_gateway_loads_neither_stores_nor_settings(words: str, server: AdminServer) -> None:
    found = imported(*words.split(), GATEWAY_URL=server.url, GATEWAY_ADMIN_KEY=server.secret)
    assert "httpx2" in found
    assert found & (_OF_SERVERS | _OF_STORES | _OF_SETTINGS) == set()


@pytest.mark.usefixtures("store")
def test_whoever_asks_the_store_loads_no_gateway_and_what_it_makes_no_use_of() -> None:
    found = imported("keys", "list")
    assert "sqlalchemy" in found
    assert found & {"uvicorn", "prometheus_client", "alembic", "asyncpg", "redis", "gateway.app"} == set()


@pytest.mark.usefixtures("store")
def test_settings_are_checked_without_a_gateway(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("server:\n  port: 9000\n")
    found = imported("check-config", "--config", "own.yaml")
    assert found & (_OF_SERVERS | _OF_STORES | {"httpx2"}) == set()


def test_serving_loads_nothing_that_only_other_commands_need() -> None:
    code = "import sys, gateway.cli.commands, gateway.cli.starting; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert set(done.stdout.split()) & {"rich.table", "alembic", "httpx2", "gateway.simulator"} == set()


def test_the_modules_that_are_looked_for_are_there() -> None:
    named = _OF_SERVERS | _OF_STORES | _OF_SETTINGS | _OF_CLIENTS | {"pydantic"}
    code = f"import importlib, sys\nfor name in {sorted(named)}: importlib.import_module(name)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)
