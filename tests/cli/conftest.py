"""Fixtures for tests of commands: an empty folder, no variables, and who runs a command there."""

import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from gateway.cli.commands import app
from tests.http.admin_server import AdminServer, administered
from tests.support.stores import fresh_sqlite_url

ROOT = Path(__file__).parents[2]
Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def _clean_surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith(("GATEWAY_", "GMI_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PYTHONUTF8", "1")
    # So that messages call the program by its name.
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")


@pytest.fixture
def store(tmp_path: Path) -> None:
    """The store of the folder, which has its schema already."""
    fresh_sqlite_url(tmp_path / "data")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs a command on such a store."""
    fresh_sqlite_url(tmp_path / "data")
    return call


@pytest.fixture
def priced(tmp_path: Path) -> None:
    """Every model has a price, so that nothing is to be said of budgets."""
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "prices.yaml").write_text(
        "unit: microusd_per_million_tokens\nmodels:\n  '*': {looked_up: 2026-11-22, input: 1000, output: 1000}\n"
    )


@pytest.fixture
def server(tmp_path: Path) -> Iterator[AdminServer]:
    """A running admin API, on a store that is not the folder's."""
    with administered(fresh_sqlite_url(tmp_path / "elsewhere")) as running:
        yield running


def call(*arguments: str, feed: str | None = None, **environ: str) -> Result:
    """What `gmi-gateway` with these arguments did; `feed` is its standard input."""
    return CliRunner().invoke(app, arguments, env=environ, input=feed)


def done(result: Result) -> str:
    """What it printed, once it went well and without a word on standard error."""
    assert (result.exit_code, result.stderr) == (0, ""), (result.output, result.exception)
    return result.stdout


def answer(result: Result) -> Any:
    """The JSON that it printed."""
    return json.loads(done(result))


def plain(text: str) -> str:
    """A message without the box that it stands in, on one line."""
    return " ".join(re.sub(r"[│╭╮╰╯─]", "", text).split())
