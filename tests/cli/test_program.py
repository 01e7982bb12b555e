"""A command that a message shows can be pasted where the message was printed."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.cli.printing import program, runnable
from tests.cli.conftest import ROOT, call, done


def an_executable(file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile("/bin/true", file)
    file.chmod(0o755)
    return file


def a_clone(clone: Path, script: str, does: str) -> Path:
    """A clone with one of our scripts, nothing left to install, and in place of the program a line of shell."""
    for folder in ("scripts", "config", ".venv/bin"):
        (clone / folder).mkdir(parents=True)
    shutil.copy(ROOT / "scripts" / script, clone / "scripts")
    an_executable(clone / "scripts" / "install")
    (clone / "config" / "gateway.yaml").touch()
    an_executable(clone / ".venv" / "bin" / "gmi-gateway").write_text(f"#!/bin/sh\n{does}\n")
    return clone


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


def test_started_by_a_script_the_program_is_shown_as_the_script_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    an_executable(tmp_path / ".venv" / "bin" / "gmi-gateway")
    monkeypatch.setenv("PATH", str(tmp_path / ".venv" / "bin"))
    monkeypatch.setattr(sys, "argv", [str(tmp_path / ".venv" / "bin" / "gmi-gateway")])
    monkeypatch.setenv("GATEWAY_PROGRAM", str(an_executable(tmp_path / "scripts" / "gmi-gateway")))
    assert program() == "scripts/gmi-gateway"
    assert runnable("Run `gmi-gateway doctor`, gmi-gateway.") == "Run `scripts/gmi-gateway doctor`, gmi-gateway."
    assert runnable(f"{program()} doctor") == "scripts/gmi-gateway doctor"


@pytest.mark.parametrize(("script", "asked"), [("serve", "serve keys"), ("gmi-gateway", "keys")])
def test_scripts_of_a_clone_say_how_to_call_a_command_of_it(script: str, asked: str, tmp_path: Path) -> None:
    clone = a_clone(tmp_path / "clone", script, 'echo "$GATEWAY_PROGRAM" "$@"')
    done = subprocess.run(
        [str(clone / "scripts" / script), "keys"],
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"{clone}/scripts/gmi-gateway {asked}\n"


def test_in_a_clone_commands_read_the_settings_that_its_gateway_was_started_with(tmp_path: Path) -> None:
    clone, elsewhere = tmp_path / "clone", tmp_path / "elsewhere"
    elsewhere.mkdir()
    a_clone(clone, "gmi-gateway", 'printf "%s\\n" "$GATEWAY_CONFIG" "$@"')

    def said(**environ: str) -> list[str]:
        command = [str(clone / "scripts" / "gmi-gateway"), "keys", "list"]
        done = subprocess.run(command, cwd=elsewhere, env=environ, capture_output=True, text=True, check=True)
        return done.stdout.splitlines()

    assert said(PATH="/usr/bin:/bin") == [f"{clone}/config/gateway.yaml", "keys", "list"]
    assert said(PATH="/usr/bin:/bin", GATEWAY_CONFIG="own.yaml") == ["own.yaml", "keys", "list"]


@pytest.mark.parametrize("words", ["serve", "keys export", "keys list", "usage", "calls list", "tail"])
def test_flags_are_shown_without_a_value_since_they_take_none(words: str) -> None:
    shown = done(call(*words.split(), "--help")).splitlines()
    assert [line for line in shown if "<bool>" in line and "--help" not in line] == []
