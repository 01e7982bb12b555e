"""Every setting is documented in the shipped file and in the docs, nothing else is, and the defaults are true."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from gateway.configuration import GMI_VARIABLES, load_settings, variable_of
from gateway.settings import SECTIONS, Key, Settings

ROOT = Path(__file__).parents[1]
FILE = ROOT / "config" / "gateway.yaml"
DOCS = ROOT / "docs" / "settings.md"


def written(default: Any) -> str:
    """A default as people write it in YAML; the docs say none for null."""
    if default is None:
        return "none"
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, tuple):
        return str(list(default))
    return f"{default:.15g}" if isinstance(default, float) else str(default)


def all_settings() -> dict[tuple[str, str], tuple[str, str]]:
    """Section and key to description and default."""
    return {
        (section, name): (field.description or "", written(field.get_default(call_default_factory=True)))
        for section in SECTIONS
        for name, field in type(getattr(Settings(), section)).model_fields.items()
    }


def rows(pattern: str) -> dict[str, list[str]]:
    """The rows of the docs' tables whose first cell matches: first cell to the other cells, without backticks."""
    found: dict[str, list[str]] = {}
    for line in DOCS.read_text("utf-8").splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if cells and re.fullmatch(pattern, cells[0]):
            assert cells[0] not in found, f"{cells[0]} stands in the docs twice"
            found[cells[0].strip("`")] = cells[1:]
    return found


def beyond(bound: Any) -> Iterator[Any]:
    """Values that a bound of a field keeps out."""
    for name, step in {"ge": -1, "gt": 0, "le": 1, "lt": 0}.items():
        if hasattr(bound, name):
            yield getattr(bound, name) + step
    for name, step in {"min_length": -1, "max_length": 1}.items():
        if hasattr(bound, name):
            yield "x" * (getattr(bound, name) + step)


def test_each_bound_that_a_setting_states_is_held_to() -> None:
    tried = 0
    models: list[type[BaseModel]] = [*(type(getattr(Settings(), section)) for section in SECTIONS), Key]
    for model in models:
        for name, field in model.model_fields.items():
            for value in (value for bound in field.metadata for value in beyond(bound)):
                tried += 1
                with pytest.raises(ValidationError) as refused:
                    model.model_validate({name: value})
                assert (name,) in {error["loc"] for error in refused.value.errors()}, f"{name} takes {value}"
    assert tried > 40


def test_the_shipped_file_is_valid_and_says_nothing_but_the_defaults() -> None:
    assert load_settings(FILE, {}, {}) == Settings()


def test_the_shipped_file_has_every_key_with_its_meaning_and_default_above_it() -> None:
    expected = []
    section = ""
    for (owner, name), (description, default) in all_settings().items():
        if owner != section:
            section = owner
            expected.append(f"{section}:")
        value = "null" if default == "none" else default
        expected += [f"  # {description} Default: {default}.", f"  {name}: {value}"]
    lines = FILE.read_text("utf-8").splitlines()
    assert [
        line for line in lines if re.match(r"(  )?[\w# ]", line) and not line.startswith(("#", "keys:"))
    ] == expected


def test_the_shipped_file_shows_every_member_of_a_key() -> None:
    assert set(re.findall(r"^# +(?:- |# )?(\w+): ", FILE.read_text("utf-8"), re.MULTILINE)) == set(Key.model_fields)


def test_the_key_that_the_shipped_file_shows_is_one(tmp_path: Path) -> None:
    example = re.search(r"^#   - name: .*?(?=^keys:)", FILE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert example is not None
    own = tmp_path / "gateway.yaml"
    own.write_text("keys:\n" + re.sub("^#", "", example[0], flags=re.MULTILINE), "utf-8")
    (key,) = load_settings(own, {"ANN_GATEWAY_KEY": "0123456789abcdef"}, {}).keys
    assert set(Key.model_fields) - key.model_fields_set == {"secret_sha256"}


def test_the_docs_have_a_row_for_every_setting_and_no_other() -> None:
    expected = {
        f"{section}.{name}": [
            f"`{variable_of((section, name))}`",
            default if default == "none" else f"`{default}`",
            description,
        ]
        for (section, name), (description, default) in all_settings().items()
    }
    documented = rows(r"`[a-z]+\.\w+`")
    assert {key: [cells[0], *cells[2:]] for key, cells in documented.items()} == expected
    assert all(cells[1] for cells in documented.values()), "a setting without unit or type"


def test_the_docs_have_a_row_for_every_member_of_a_key() -> None:
    expected = {f"keys[].{name}": field.description for name, field in Key.model_fields.items()}
    assert {key: cells[1] for key, cells in rows(r"`keys\[\]\.\w+`").items()} == expected


@pytest.mark.parametrize("name", ["GATEWAY_CONFIG", "GATEWAY_KEYS", *GMI_VARIABLES])
def test_the_docs_name_every_variable(name: str) -> None:
    assert f"`{name}`" in DOCS.read_text("utf-8")


def test_every_variable_that_the_docs_name_is_one() -> None:
    made_up = {
        "GATEWAY_REDIS_PORT",
        "GATEWAY_PORT",
        "GATEWAY_SERVICE_HOST",
        "GATEWAY_PORT_8080_TCP",
        "GATEWAY_SERVER_PROT",
    }
    slips = {"GATEWAY_KEY", "GMI_KEY"}
    real = {variable_of(path) for path in all_settings()} | {"GATEWAY_CONFIG", "GATEWAY_KEYS", *GMI_VARIABLES}
    assert set(re.findall(r"\b(?:GATEWAY|GMI)_[A-Z0-9_]*[A-Z0-9]\b", DOCS.read_text("utf-8"))) - made_up - slips == real
