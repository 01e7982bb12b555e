import base64
import json
from itertools import pairwise
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.relay.mask import MaskedStream, SecretMask, without_keys

KEY = b"sk-canary-0123456789abcdef+/=?&"

small = st.lists(st.sampled_from([b"a", b"b", b"c"]), min_size=1, max_size=5).map(b"".join)


def naive(data: bytes, secrets: list[bytes]) -> bytes:
    covered = {at + i for s in secrets for at in range(len(data)) if data.startswith(s, at) for i in range(len(s))}
    return bytes(ord("*") if at in covered else byte for at, byte in enumerate(data))


def test_bytes_without_a_secret_are_given_back_uncopied() -> None:
    data = b"data: {}\n\n"
    assert SecretMask([KEY]).mask(data) is data
    assert MaskedStream(SecretMask([KEY])).feed(data) is data
    assert MaskedStream(SecretMask([])).feed(data) is data


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("sk-test-0123456789abcdef", "sk-***"),
        ("openai/sk-gmi_0123456789?", "openai/sk-***?"),
        ("sk-one", "sk-one"),
        ("acme/task-planner-large", "acme/task-planner-large"),
        ("openai/gpt-5.2", "openai/gpt-5.2"),
        ("openai/gpt\0", "openai/gpt\ufffd"),
    ],
)
def test_what_looks_like_a_key_is_not_shown(text: str, shown: str) -> None:
    assert without_keys(text) == shown


def test_every_occurrence_is_replaced_by_as_many_stars() -> None:
    assert SecretMask([KEY]).mask(b"<" + KEY + KEY + b">") == b"<" + b"*" * (2 * len(KEY)) + b">"


@pytest.mark.parametrize("before", [b"", b"x", b"Bearer ", b"user:"])
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_base64_of_a_secret_is_masked_wherever_it_stands(before: bytes, encode: type[bytes]) -> None:
    encoded = encode(before + KEY + b"after")
    masked = SecretMask([KEY]).mask(b'{"echo":"' + encoded + b'"}')[9:-2]
    assert len(masked) == len(encoded)
    left = [at for at, byte in enumerate(masked) if byte != ord("*")]
    start, end = 8 * len(before), 8 * len(before + KEY)
    assert all(6 * at < start or 6 * at + 6 > end for at in left)


@pytest.mark.parametrize(
    "spelled",
    [
        quote(KEY, safe="").encode(),
        quote(KEY).encode(),
        quote(KEY, safe="").replace("%2B", "%2b").replace("%2F", "%2f").replace("%3D", "%3d").encode()[:-6] + b"%3f%26",
        KEY.replace(b"/", b"\\/"),
    ],
)
def test_other_spellings_are_masked(spelled: bytes) -> None:
    assert SecretMask([KEY]).mask(b"<" + spelled + b">") == b"<" + b"*" * len(spelled) + b">"


@pytest.mark.parametrize("ascii_only", [True, False])
def test_a_secret_is_masked_within_json(ascii_only: bool) -> None:
    secret = 'quote " back \\ é'
    text = json.dumps({"a": secret}, ensure_ascii=ascii_only).encode()
    masked = SecretMask([secret.encode()]).mask(text)
    assert set(masked[7:-2]) == {ord("*")}
    assert len(masked) == len(text)


def test_short_secrets_are_masked_as_they_are_only() -> None:
    assert SecretMask([b"abc"]).mask(b"abc " + base64.b64encode(b"abc")) == b"*** YWJj"


def test_a_secret_that_is_no_text_is_masked() -> None:
    assert SecretMask([b"\xff\xfe1234567"]).mask(b"\xff\xfe1234567") == b"*" * 9


def test_an_empty_secret_is_ignored() -> None:
    assert SecretMask([b""]).mask(b"abc") == b"abc"


@given(small, st.lists(small, max_size=3))
def test_overlapping_secrets_are_masked_all(data: bytes, secrets: list[bytes]) -> None:
    assert SecretMask(secrets).mask(data * 3) == naive(data * 3, secrets)


@given(st.lists(small, max_size=5), st.lists(small, max_size=3))
def test_a_stream_is_masked_as_if_it_had_not_been_cut(pieces: list[bytes], secrets: list[bytes]) -> None:
    mask = MaskedStream(SecretMask(secrets))
    assert b"".join(map(mask.feed, pieces)) + mask.flush() == naive(b"".join(pieces), secrets)
    assert mask.flush() == b""


def test_a_secret_is_masked_wherever_the_stream_is_cut() -> None:
    stream = b"<" + KEY + base64.b64encode(b"x" + KEY) + b">\n"
    for first in range(len(stream)):
        for second in (first, first + 1, first + 9):
            mask = MaskedStream(SecretMask([KEY]))
            parts = [stream[a:b] for a, b in pairwise((0, first, second, len(stream)))]
            assert b"".join(map(mask.feed, parts)) + mask.flush() == SecretMask([KEY]).mask(stream)


def test_only_what_may_begin_a_secret_is_held_back() -> None:
    mask = MaskedStream(SecretMask([KEY]))
    assert mask.feed(b"data: {} sk-can") == b"data: {} "
    assert mask.feed(b"dle\n\nsk") == b"sk-candle\n\n"
    assert mask.flush() == b"sk"


def test_a_secret_never_shows_in_the_repr() -> None:
    assert KEY.decode() not in repr(SecretMask([KEY]))


@pytest.mark.parametrize(
    "shown",
    [
        b"sk-canar***********&",
        b"sk-****=/&",
        b"sk-c...",
        b"sk-canary-0123\xe2\x80\xa6\xe2\x80\xa6\xe2\x80\xa6yz",
        b"sk-c\\u2026\\u2026\\u2026ef",
    ],
)
def test_what_an_api_shows_of_a_refused_key_is_masked_in_errors(shown: bytes) -> None:
    masked = SecretMask([KEY]).mask_error(b'{"message":"Incorrect API key provided: ' + shown + b' ."}')
    assert b"canar" not in masked
    assert b"sk-" not in masked
    assert masked.endswith(b' ."}')


@pytest.mark.parametrize("text", [b"sk-other-key***", b"sk-canary", b"ask. sk- and so on...", b"***"])
def test_what_is_no_part_of_the_key_stays_in_errors(text: bytes) -> None:
    assert SecretMask([KEY]).mask_error(text) == text
