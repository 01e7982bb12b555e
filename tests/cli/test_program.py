"""A command that a message shows can be pasted where the message was printed."""

import shutil
import sys
from pathlib import Path

import pytest

from gateway.cli.printing import program


@pytest.mark.parametrize(
    ("called_as", "shown"),
    [
        ("{here}/.venv/bin/gmi-gateway", ".venv/bin/gmi-gateway"),
        ("/opt/gateway/bin/gmi-gateway", "/opt/gateway/bin/gmi-gateway"),
        ("/opt/my gateway/bin/gmi-gateway", "'/opt/my gateway/bin/gmi-gateway'"),
        ("/opt/gateway/__main__.py", "gmi-gateway"),
    ],
)
def test_where_the_program_is_not_to_be_found_it_is_shown_with_its_path(
    called_as: str, shown: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "argv", [called_as.format(here=tmp_path)])
    assert program() == shown


def test_where_the_program_is_to_be_found_it_is_shown_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = tmp_path / "gmi-gateway"
    shutil.copyfile("/bin/true", there)
    there.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "argv", [str(there)])
    assert program() == "gmi-gateway"
