import gzip
import random
import tracemalloc
import zlib
from collections.abc import Callable

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import BadRequest, RequestTooLarge, UnsupportedEncoding
from gateway.relay.encoding import MAX_GZIP_MEMBERS, decode_body

MIB = 1 << 20
CAP = 4 * MIB

BODY = b'{"model":"gpt-5.2","input":"' + random.Random(1).randbytes(3000).hex().encode() * 3 + b'"}'


def raw_deflate(body: bytes) -> bytes:
    stream = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return stream.compress(body) + stream.flush()


def streamed_zstd(body: bytes) -> bytes:
    """As streaming clients write it: without the size in the frame's header."""
    stream = zstandard.ZstdCompressor().compressobj()
    return stream.compress(body) + stream.flush()


def checked_zstd(body: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=True).compress(body)


Encode = Callable[[bytes], bytes]

ENCODINGS: list[tuple[bytes, Encode]] = [
    (b"gzip", gzip.compress),
    (b"x-gzip", gzip.compress),
    (b"deflate", zlib.compress),
    (b"deflate", raw_deflate),
    (b"zstd", zstandard.ZstdCompressor().compress),
    (b"zstd", streamed_zstd),
    (b"zstd", checked_zstd),
]
each_encoding = pytest.mark.parametrize(("name", "encode"), ENCODINGS)


@each_encoding
@pytest.mark.parametrize("body", [b"", b"{}", BODY, bytes(MIB)])
def test_what_was_encoded_is_decoded(name: bytes, encode: Encode, body: bytes) -> None:
    assert decode_body(encode(body), name, CAP) == body
    assert decode_body(encode(body), b" " + name.upper() + b"\t", CAP) == body


@each_encoding
@given(body=st.binary(max_size=300))
def test_any_bytes_survive(name: bytes, encode: Encode, body: bytes) -> None:
    assert decode_body(encode(body), name, CAP) == body


@pytest.mark.parametrize("name", [b"", b"identity", b"Identity, identity"])
def test_a_body_without_a_coding_is_given_back_as_it_is(name: bytes) -> None:
    assert decode_body(BODY, name, CAP) is BODY


def test_two_codings_are_undone_last_first() -> None:
    assert decode_body(zlib.compress(gzip.compress(BODY)), b"gzip, deflate", CAP) == BODY
    assert decode_body(gzip.compress(checked_zstd(BODY)), b"identity,zstd,,gzip", CAP) == BODY


@pytest.mark.parametrize("name", [b"br", b"gzip, br", b"compress", b"\xff", b"gzip,gzip,gzip", b"gzip;q=1"])
def test_what_cannot_be_decoded_is_415(name: bytes) -> None:
    with pytest.raises(UnsupportedEncoding) as caught:
        decode_body(BODY, name, CAP)
    assert caught.value.status == 415


@pytest.mark.parametrize(
    ("name", "encode"), [(b"gzip", gzip.compress), (b"zstd", checked_zstd), (b"zstd", streamed_zstd)]
)
def test_members_and_frames_in_a_row_are_one_body(name: bytes, encode: Encode) -> None:
    parts = [BODY, b"", b"x", bytes(200_000), BODY]
    assert decode_body(b"".join(map(encode, parts)), name, CAP) == b"".join(parts)


def test_skippable_zstd_frames_are_skipped() -> None:
    skippable = b"\x50\x2a\x4d\x18\x03\x00\x00\x00abc"
    assert decode_body(skippable + streamed_zstd(BODY) + skippable, b"zstd", CAP) == BODY
    with pytest.raises(BadRequest):
        decode_body(streamed_zstd(BODY) + skippable[:-1], b"zstd", CAP)


@each_encoding
def test_a_body_that_is_cut_short_is_refused(name: bytes, encode: Encode) -> None:
    for body in (b"{}", BODY):
        encoded = encode(body)
        for size in {*range(0, len(encoded), max(1, len(encoded) // 60)), len(encoded) - 1}:
            with pytest.raises(BadRequest):
                decode_body(encoded[:size], name, CAP)


@each_encoding
@pytest.mark.parametrize("junk", [b"x", b"\x00" * 9, b"junk junk junk"])
def test_junk_after_the_end_is_refused(name: bytes, encode: Encode, junk: bytes) -> None:
    with pytest.raises(BadRequest):
        decode_body(encode(BODY) + junk, name, CAP)


@pytest.mark.parametrize("name", [b"gzip", b"deflate", b"zstd"])
@given(junk=st.binary(max_size=60))
def test_junk_is_refused_and_never_an_error_of_ours(name: bytes, junk: bytes) -> None:
    try:
        assert len(decode_body(junk, name, CAP)) <= CAP
    except BadRequest as error:
        assert "Content-Encoding" in error.message  # noqa: PT017


@each_encoding
def test_the_cap_is_exact(name: bytes, encode: Encode) -> None:
    for body in (b"{}", BODY, bytes(200_000)):
        assert decode_body(encode(body), name, len(body)) == body
        with pytest.raises(RequestTooLarge) as caught:
            decode_body(encode(body), name, len(body) - 1)
        assert caught.value.status == 413
        assert f" {len(body) - 1} bytes" in caught.value.message


def test_the_cap_holds_for_a_body_without_a_coding() -> None:
    with pytest.raises(RequestTooLarge):
        decode_body(b"abc", b"", 2)


@each_encoding
def test_a_bomb_allocates_no_more_than_the_cap(name: bytes, encode: Encode) -> None:
    bomb = encode(bytes(64 * MIB))
    tracemalloc.start()
    try:
        with pytest.raises(RequestTooLarge):
            decode_body(bomb, name, MIB)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 2 * MIB


def test_a_bomb_within_a_bomb_stops_at_the_cap() -> None:
    with pytest.raises(RequestTooLarge):
        decode_body(gzip.compress(gzip.compress(bytes(64 * MIB))), b"gzip, gzip", 32_000)


def test_empty_gzip_members_without_end_are_refused() -> None:
    empty = gzip.compress(b"")
    assert decode_body(empty * MAX_GZIP_MEMBERS, b"gzip", CAP) == b""
    with pytest.raises(BadRequest):
        decode_body(empty * 100_000, b"gzip", CAP)


def test_a_zstd_window_over_8_mib_is_refused() -> None:
    parameters = zstandard.ZstdCompressionParameters.from_level(3, window_log=27)
    stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    body = stream.compress(bytes(MIB)) + stream.flush()
    with pytest.raises(BadRequest):
        decode_body(body, b"zstd", CAP)
