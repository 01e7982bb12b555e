"""Reads settings from a text, and gathers what is wrong with one."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from gateway.configuration import SettingsError, load_settings
from gateway.settings import Settings

Read = Callable[..., Settings]
Refuse = Callable[..., list[str]]


@pytest.fixture(autouse=True)
def _empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def read(text: str | bytes, environ: Mapping[str, str] = {}, **overrides: Any) -> Settings:
        path = tmp_path / "gateway.yaml"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        dotted = {name.replace("__", "."): value for name, value in overrides.items()}
        return load_settings(Path("gateway.yaml"), environ, dotted)

    return read


@pytest.fixture
def refuse(read: Read) -> Refuse:
    def refuse(text: str | bytes, environ: Mapping[str, str] = {}, **overrides: Any) -> list[str]:
        with pytest.raises(SettingsError) as caught:
            read(text, environ, **overrides)
        return [str(problem) for problem in caught.value.problems]

    return refuse
