"""The format of keys."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.access.keys import is_well_formed, new_secret


def test_a_new_key_is_well_formed_and_like_no_other() -> None:
    secrets = {new_secret() for _ in range(100)}
    assert len(secrets) == 100
    assert all(is_well_formed(secret) and len(secret) == 44 for secret in secrets)


@given(st.integers(0, 43), st.characters(codec="ascii"))
def test_one_changed_character_is_noticed(position: int, character: str) -> None:
    secret = new_secret()
    changed = secret[:position] + character + secret[position + 1 :]
    assert is_well_formed(changed) == (changed == secret)


@pytest.mark.parametrize(
    "text", ["", "sk-gw-", "sk-gw-x", "sk-abc", new_secret() + "0", new_secret()[3:]], ids=range(6)
)
def test_junk_is_not_well_formed(text: str) -> None:
    assert not is_well_formed(text)
