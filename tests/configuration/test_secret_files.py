"""The account's key and the admin's: from one of several sources, or from a file."""

from pathlib import Path

import pytest
import trustme

from tests.configuration.conftest import Read, Refuse

KEY = {"GMI_API_KEY": "gmi-key-of-the-account"}


def test_gmi_api_key_alone_is_enough(read: Read) -> None:
    upstream = read("", KEY).upstream
    assert upstream.api_key is not None
    assert upstream.api_key.get_secret_value() == KEY["GMI_API_KEY"]
    assert upstream.base_url == "https://api.gmi-serving.com/v1"


@pytest.mark.parametrize("variable", ["", "GMI_BASE_URL", "GATEWAY_UPSTREAM_BASE_URL"])
def test_the_default_base_url_needs_no_key_wherever_it_is_spelled_out(read: Read, variable: str) -> None:
    default = "https://api.gmi-serving.com/v1/"
    text = f"upstream: {{base_url: '{default}', api_key: null, api_key_file: null}}"
    settings = read("", {variable: default}) if variable else read(text)
    assert settings.upstream.api_key is None


def test_any_other_base_url_needs_a_key(refuse: Refuse) -> None:
    (said,) = refuse("", {"GMI_BASE_URL": "https://api.example/v1"})
    assert said.startswith("GMI_BASE_URL: upstream.base_url: is set, but there is no key for it")


@pytest.mark.parametrize("content", ["k3y", "k3y\n", "k3y\r\n", "\n k3y \n"])
def test_a_key_file_is_read_without_the_white_space_around(read: Read, content: str) -> None:
    Path("key").write_text(content, newline="")
    for environ in ({"GMI_API_KEY_FILE": "key"}, {"GATEWAY_UPSTREAM_API_KEY_FILE": "key"}):
        upstream = read("", environ).upstream
        assert upstream.api_key is not None
        assert upstream.api_key.get_secret_value() == "k3y"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "cannot be read: No such file or directory; name a file that this user may read"),
        (b"", "names a file that is empty; write the key into it"),
        (b" \n", "names a file that is empty"),
        (b"two words", "names a file that holds more than visible ASCII characters without spaces"),
        (b"one\ntwo\n", "names a file that holds more than visible ASCII"),
        ("schlüssel".encode(), "names a file that holds more than visible ASCII"),
        (b"a\x00b", "names a file that holds more than visible ASCII"),
    ],
)
def test_a_bad_key_file_is_one_problem(refuse: Refuse, content: bytes | None, reason: str) -> None:
    if content is not None:
        Path("key").write_bytes(content)
    (said,) = refuse("upstream:\n  api_key_file: key\n  base_url: http://x/v1")
    assert said.startswith(f"gateway.yaml:2: upstream.api_key_file: {reason}")


def test_a_key_file_that_is_a_directory_is_said_to_be_one(refuse: Refuse) -> None:
    Path("key").mkdir()
    (said,) = refuse("", {"GMI_API_KEY_FILE": "key"})
    assert said == (
        "GMI_API_KEY_FILE: upstream.api_key_file: names a directory; name the file that holds the key "
        "(a container engine makes a directory where the file to mount is missing)"
    )


@pytest.mark.parametrize("name", ["'\\0'", "''"])
def test_a_path_that_cannot_be_one_is_refused(refuse: Refuse, name: str) -> None:
    (said,) = refuse(f"upstream: {{api_key_file: {name}}}".replace("'\\0'", '"\\0"'))
    assert said.startswith("gateway.yaml:1: upstream.api_key_file: ")


def test_the_admin_key_may_stand_in_a_file_too(read: Read, refuse: Refuse) -> None:
    Path("admin").write_text("admin-key-0123456789\n")
    for text, environ in (("admin: {key_file: admin}", {}), ("", {"GATEWAY_ADMIN_KEY_FILE": "admin"})):
        key = read(text, environ).admin.key
        assert key is not None
        assert key.get_secret_value() == "admin-key-0123456789"
    (said,) = refuse("admin: {key_file: admin, key: admin-key-0123456789}")
    assert said == "gateway.yaml:1: admin.key_file: is set beside admin.key; keep one of the two"
    assert read("admin: {key_file: admin}", {"GATEWAY_ADMIN_KEY": "admin-key-of-environment"}).admin.key_file is None


def test_a_file_with_a_weak_admin_key_is_refused_where_it_is_named(refuse: Refuse) -> None:
    Path("admin").write_text("short")
    (said,) = refuse("", {"GATEWAY_ADMIN_KEY_FILE": "admin"})
    assert said.startswith("GATEWAY_ADMIN_KEY_FILE: admin.key: must be 16 or more visible ASCII characters")


SOURCES = ["file", "GMI", "GATEWAY_UPSTREAM"]


@pytest.mark.parametrize("of_key", SOURCES)
@pytest.mark.parametrize("of_file", SOURCES)
def test_of_key_and_key_file_the_higher_source_wins_and_one_source_may_not_hold_both(
    read: Read, refuse: Refuse, of_key: str, of_file: str
) -> None:
    Path("key").write_text("from-file")
    text, environ = "upstream:\n  transport: auto\n", {}
    for name, source, value in (("api_key", of_key, "direct"), ("api_key_file", of_file, "key")):
        if source == "file":
            text += f"  {name}: {value}\n"
        else:
            environ[f"{source}_{name.upper()}"] = value
    if of_key == of_file:
        (said,) = refuse(text, environ)
        assert "upstream.api_key_file: is set beside upstream.api_key; keep one of the two" in said
        return
    upstream = read(text, environ).upstream
    assert upstream.api_key is not None
    file_wins = SOURCES.index(of_file) > SOURCES.index(of_key)
    assert upstream.api_key.get_secret_value() == ("from-file" if file_wins else "direct")
    assert upstream.api_key_file == ("key" if file_wins else None)


def test_a_file_of_authorities_is_loaded_once_to_see_that_it_can_be(read: Read, tmp_path: Path) -> None:
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    assert read("upstream: {ca_file: ca.pem}").upstream.ca_file == "ca.pem"
