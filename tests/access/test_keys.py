"""The format of keys, and who they stand for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.access.directory import LOCAL, KeyDirectory
from gateway.access.keys import digest, is_well_formed, new_secret
from gateway.call import Principal
from gateway.errors import GatewayError, InvalidKey, MissingKey
from gateway.settings import Key

SECRET = "sk-test-0123456789abcdef"
DIRECTORY = KeyDirectory(
    [
        Key.model_validate({"name": "ada", "team": "engines", "secret": SECRET}),
        Key.model_validate({"name": "bob", "team": "ops", "secret_sha256": digest(b"another-secret-key").hex()}),
    ]
)


def test_a_new_key_is_well_formed_and_like_no_other() -> None:
    secrets = {new_secret() for _ in range(100)}
    assert len(secrets) == 100
    assert all(is_well_formed(secret) and len(secret) == 44 for secret in secrets)


@given(st.integers(0, 43), st.characters(codec="ascii"))
def test_one_changed_character_is_noticed(position: int, character: str) -> None:
    secret = new_secret()
    changed = secret[:position] + character + secret[position + 1 :]
    assert is_well_formed(changed) == (changed == secret)


@pytest.mark.parametrize("text", ["", "sk-gw-", "sk-gw-x", "sk-abc", new_secret() + "0", new_secret()[3:]])
def test_junk_is_not_well_formed(text: str) -> None:
    assert not is_well_formed(text)


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "Bearer  "])
def test_a_key_stands_for_its_owner_however_the_scheme_is_spelled(scheme: str) -> None:
    assert DIRECTORY.authenticate(f"{scheme} {SECRET}".encode()) == Principal("ada", "engines")


def test_a_key_that_is_declared_by_its_digest_works_too() -> None:
    assert DIRECTORY.authenticate(b"Bearer another-secret-key") == Principal("bob", "ops")


@pytest.mark.parametrize("authorization", [None, b"", b"Bearer", b"Bearer ", b"Basic abc", SECRET.encode()])
def test_without_a_bearer_token_the_key_is_missing(authorization: bytes | None) -> None:
    for directory in (DIRECTORY, KeyDirectory([], open_to_all=True)):
        with pytest.raises(MissingKey):
            directory.authenticate(authorization)


@pytest.mark.parametrize("token", [b"x", SECRET[:-1].encode(), SECRET.encode() + b"0", b"\xff\x00", b"a" * 100_000])
def test_every_wrong_key_gets_one_same_refusal_that_does_not_repeat_it(token: bytes) -> None:
    def refusal(wrong: bytes) -> GatewayError:
        with pytest.raises(InvalidKey) as caught:
            DIRECTORY.authenticate(b"Bearer " + wrong)
        return caught.value

    assert refusal(token).body() == refusal(b"some other wrong key").body()


def test_a_gateway_without_keys_takes_any_token() -> None:
    assert KeyDirectory([], open_to_all=True).authenticate(b"Bearer whatever") == LOCAL
