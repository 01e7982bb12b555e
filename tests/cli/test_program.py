"""A command that a message shows can be pasted where the message was printed."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.cli.printing import program
from tests.cli.conftest import ROOT


def an_executable(file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile("/bin/true", file)
    file.chmod(0o755)
    return file


@pytest.mark.parametrize(
    ("called_as", "shown"),
    [
        ("{here}/.venv/bin/gmi-gateway", ".venv/bin/gmi-gateway"),
        ("/opt/gateway/bin/gmi-gateway", "/opt/gateway/bin/gmi-gateway"),
        ("/opt/my gateway/bin/gmi-gateway", "'/opt/my gateway/bin/gmi-gateway'"),
    ],
)
def test_where_the_program_is_not_to_be_found_it_is_shown_with_its_path(
    called_as: str, shown: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "argv", [called_as.format(here=tmp_path)])
    assert program() == shown


def test_of_a_module_that_python_runs_the_script_beside_that_python_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["/opt/gateway/__main__.py"])
    monkeypatch.setattr(sys, "executable", str(tmp_path / ".venv" / "bin" / "python"))
    assert program() == "gmi-gateway"  # there is none
    an_executable(tmp_path / ".venv" / "bin" / "gmi-gateway")
    assert program() == ".venv/bin/gmi-gateway"


def test_where_its_name_leads_to_another_installation_the_program_is_shown_with_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    an_executable(tmp_path / "gmi-gateway")
    an_executable(tmp_path / ".venv" / "bin" / "gmi-gateway")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "argv", [str(tmp_path / ".venv" / "bin" / "gmi-gateway")])
    assert program() == ".venv/bin/gmi-gateway"


def test_where_the_program_is_to_be_found_it_is_shown_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = an_executable(tmp_path / "gmi-gateway")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "argv", [str(there)])
    assert program() == "gmi-gateway"


def test_in_a_clone_commands_read_the_settings_that_its_gateway_was_started_with(tmp_path: Path) -> None:
    clone, elsewhere = tmp_path / "clone", tmp_path / "elsewhere"
    for folder in ("scripts", "config", ".venv/bin"):
        (clone / folder).mkdir(parents=True)
    elsewhere.mkdir()
    shutil.copy(ROOT / "scripts" / "gmi-gateway", clone / "scripts")
    (clone / "config" / "gateway.yaml").touch()
    (clone / ".venv" / "bin" / "gmi-gateway").write_text('#!/bin/sh\nprintf "%s\\n" "$GATEWAY_CONFIG" "$@"\n')
    (clone / ".venv" / "bin" / "gmi-gateway").chmod(0o755)

    def said(**environ: str) -> list[str]:
        command = [str(clone / "scripts" / "gmi-gateway"), "keys", "list"]
        done = subprocess.run(command, cwd=elsewhere, env=environ, capture_output=True, text=True, check=True)
        return done.stdout.splitlines()

    assert said(PATH="/usr/bin:/bin") == [f"{clone}/config/gateway.yaml", "keys", "list"]
    assert said(PATH="/usr/bin:/bin", GATEWAY_CONFIG="own.yaml") == ["own.yaml", "keys", "list"]
