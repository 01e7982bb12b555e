"""Which gateway is asked, and with which key: what cannot be used is told, and a key is never."""

from pathlib import Path

import pytest
from typer.testing import Result

from gateway.cli import values
from tests.cli.conftest import call, plain

KEY = "admin-key-canary-0123456789"
URL = "http://127.0.0.1:1"


@pytest.mark.parametrize(
    "text", [f"{KEY}\r", f"{KEY}\n", f"{KEY} ", f"{KEY} two", f"{KEY}\tb", f"{KEY}é", f"{KEY}\udcff"]
)
@pytest.mark.parametrize("source", ["--key", "GATEWAY_ADMIN_KEY"])
def test_a_key_that_no_header_can_carry_is_refused_and_not_shown(source: str, text: str) -> None:
    words, environ = ([source, text], {}) if source.startswith("--") else ([], {source: text})
    result = call("keys", "list", "--url", URL, *words, **environ)
    _assert_refused(result, source)


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"two\r\ncanary", b"canary two", b"canary\x00", b"canary\xff", b"\xc3\xa9"]
)
@pytest.mark.parametrize("source", ["--key-file", "GATEWAY_ADMIN_KEY_FILE"])
def test_a_file_that_holds_no_such_key_is_refused_and_not_shown(source: str, content: bytes) -> None:
    Path("key").write_bytes(content)
    words, environ = ([source, "key"], {}) if source.startswith("--") else ([], {source: "key"})
    _assert_refused(call("keys", "list", "--url", URL, *words, **environ), source)


@pytest.mark.parametrize("text", ["...", "sk-gw-...", "sk-gw-…"])
def test_dots_that_were_pasted_are_said_to_be_no_key(text: str) -> None:
    for words, environ in ((["--url", URL], {"GATEWAY_ADMIN_KEY": text}), (["--url", URL, "--key", text], {})):
        result = call("keys", "list", *words, **environ)
        assert (result.exit_code, result.stdout) == (2, "")
        assert "must be the key itself, where dots stand in its place" in plain(result.stderr)


def _assert_refused(result: Result, source: str) -> None:
    assert (result.exit_code, result.stdout) == (2, "")
    assert f"{source}: must hold a key and nothing else" in plain(result.stderr)
    assert "canary" not in result.stderr


def test_a_file_that_a_variable_names_and_that_is_not_there_is_told_by_that_variable() -> None:
    result = call("keys", "list", "--url", URL, GATEWAY_ADMIN_KEY_FILE="nowhere")
    assert "GATEWAY_ADMIN_KEY_FILE: cannot be read: No such file or directory" in plain(result.stderr)


@pytest.mark.parametrize(
    "url",
    [
        "http://[::1",
        "http://127.0.0.1:99999",
        "http://127.0.0.1:x",
        "http://",
        "http:///v1",
        "http://a b",
        "http://a\nb",
        "http://h:1/?q=1",
        "http://h:1/#f",
        "http://me:canary@h:1",
        "http://\udcff",
    ],
)
def test_what_is_no_root_of_a_gateway_is_refused_before_anyone_is_asked(url: str) -> None:
    with pytest.raises(ValueError, match=r"^must be http"):
        values.server_url(url)


@pytest.mark.parametrize("url", ["http://a..b", "http://xn--é", "http://-.", "http://[fe80::1%25lo]:1"])
def test_a_host_that_there_cannot_be_is_one_sentence(url: str) -> None:
    result = call("keys", "list", "--url", url, GATEWAY_ADMIN_KEY=KEY)
    assert (result.exit_code, result.stdout) == (1, ""), result.exception
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith(url)


@pytest.mark.parametrize("proxy", ["http://[::1", "socks5://h:1", "ftp://h:1", "http://h:99999"])
def test_a_proxy_that_cannot_be_used_is_one_sentence(proxy: str) -> None:
    result = call("keys", "list", "--url", "http://gateway.invalid", GATEWAY_ADMIN_KEY=KEY, HTTP_PROXY=proxy)
    assert (result.exit_code, result.stdout) == (1, ""), result.exception
    assert result.stderr.count("\n") == 1
