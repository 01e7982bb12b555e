"""What went wrong, in the words of logs and metrics."""

import pytest

from gateway.relay.failures import error_code


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b'{"error":{"message":"m","type":"t","param":null,"code":"model_not_found"}}', "model_not_found"),
        (b'{"error":{"message":"m","type":"server_error","code":null}}', "server_error"),
        (b'{"error":{"code":429}}', "429"),
        (b'{"error":{"code":"' + b"x" * 500 + b'"}}', "x" * 64),
        (b'{"error":{}}', None),
        (b'{"error":"no"}', None),
        (b'{"error":{"code":["a"]}}', None),
        (b"<html>", None),
        (b"", None),
        (b"[" * 100_000, None),
    ],
)
def test_the_code_of_an_error_reply_is_read_whatever_it_is(body: bytes, code: str | None) -> None:
    assert error_code(body) == code
