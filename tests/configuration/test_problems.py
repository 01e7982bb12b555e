"""Each bad setting is one problem with its place, its reason and its cure."""

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from tests.configuration.conftest import Read, Refuse


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("server: {port: eighty}", "server.port: is not a whole number; wanted: Port to listen on"),
        ("server: {port: yes}", "server.port: is not a whole number"),
        ("server: {port: 80.5}", "server.port: is not a whole number"),
        ("server: {port: 65536}", "server.port: is more than 65535"),
        ("server: {port: -1}", "server.port: is less than 0"),
        ("server: {port: }", "server.port: has no value; give it one, or take the line out"),
        ("server: {port: [80]}", "server.port: is not a whole number"),
        ("server: {host: ''}", "server.host: must be an address or a host name"),
        ("server: {drain_s: .nan}", "server.drain_s: is not a number"),
        ("server: {drain_s: inf}", "server.drain_s: is not a finite number"),
        ("server: 5", "server: is not a table of keys; write its keys below it"),
        ("streams: {include_usage: maybe}", "streams.include_usage: is neither true nor false"),
        ("log: {calls: some}", "log.calls: is not one of 'off', 'errors' or 'all'"),
        ("log: {colour: red}", "log.colour: unknown key; the keys are format, calls"),
        ("serve: {port: 1}", "serve: unknown key; did you mean server?"),
        ("zzz: 1", "zzz: unknown key; the sections are server, upstream, streams, models, log, keys"),
        ("port: 1", "port: unknown key; did you mean server.port?"),
        ("server: {proxy: 'http://p'}", "server.proxy: unknown key; did you mean upstream.proxy?"),
        ("models: {aliases: [a]}", "models.aliases: is not a table of names"),
        ("models: {aliases: {a: [b]}}", "models.aliases.a: is not text"),
        ("models: {aliases: {a: ''}}", "models.aliases.a: is empty"),
        ("models: {aliases: {'': a}}", "models.aliases.…: is empty"),
        ("keys: {a: b}", "keys: is not a list; wanted: [{name: me, team: us, secret: …}]"),
        ("keys: [a]", "keys[0]: is not a table of keys; wanted: {name: me, team: us, secret: …}"),
        ("keys: [{team: t, secret: 0123456789abcdef}]", "keys[0].name: is missing; wanted: Whose key it is"),
        ("keys: [{name: a, team: t}]", "keys[0]: must have either secret or secret_sha256, and not both"),
        ("keys: [{name: a, team: t, secret: short}]", "keys[0]: its secret must be 16 or more visible ASCII"),
        ("keys: [{name: a, team: t, secret_sha256: ABC}]", "keys[0].secret_sha256: must be 64 hex digits, as `printf "),
        ('keys: [{name: "a\\nb", team: t, secret: 0123456789abcdef}]', "keys[0].name: must not hold line ends"),
        ("upstream: {base_url: api.example.com}", "upstream.base_url: is not a URL that starts with http://"),
        ("upstream: {base_url: 'ftp://x'}", "upstream.base_url: is not a URL that starts with http://"),
        ("upstream: {base_url: 'http://u:p@x'}", "upstream.base_url: must not have a query, a fragment or cred"),
        ("upstream: {base_url: 'http://x/?a'}", "upstream.base_url: must not have a query"),
        ("upstream: {base_url: 'http://x:port'}", "upstream.base_url: is not a URL: its host or its port"),
        ("upstream: {base_url: 'http://[x'}", "upstream.base_url: is not a URL: its host or its port"),
        ('upstream: {base_url: "http://x/\\r\\nX: y"}', "upstream.base_url: is not a URL: write it in visible"),
        ("upstream: {proxy: proxy.example}", "upstream.proxy: is not a URL that starts with http://"),
        ("upstream: {proxy: 'socks5://x'}", "upstream.proxy: is not a URL that starts with http://"),
        ("upstream: {proxy: 'http://x/path'}", "upstream.proxy: must be scheme, host and port alone"),
        ('upstream: {api_key: "a\\r\\nX-Evil: 1"}', "upstream.api_key: must be visible ASCII characters"),
        ("upstream: {api_key: 'two words'}", "upstream.api_key: must be visible ASCII characters"),
        ("upstream: {api_key: ''}", "upstream.api_key: must be visible ASCII characters"),
        ('upstream: {organization_id: "a\\nb"}', "upstream.organization_id: must be visible ASCII characters"),
        ("upstream: {transport: native, proxy: 'http://p:1'}", "upstream.transport: native does not speak to proxies"),
        ("upstream: {ca_file: no.pem}", "upstream.ca_file: cannot be read: No such file or directory"),
        ('upstream: {ca_file: "a\\0b"}', "upstream.ca_file: cannot be read: not a path"),
        ("upstream: {ca_file: gateway.yaml}", "upstream.ca_file: holds no certificate that can be read"),
        ("upstream: {base_url: 'http://x/v1'}", "upstream.base_url: is set, but there is no key for it"),
        ("models: {aliases: {a: a}}", "models.aliases.a: points to itself"),
        ("models: {aliases: {a: b, b: c}}", "models.aliases.a: points to another alias"),
    ],
)
def test_a_bad_setting_is_one_problem_with_line_key_reason_and_cure(refuse: Refuse, text: str, problem: str) -> None:
    (said,) = refuse(text)
    assert said.startswith(f"gateway.yaml:1: {problem}")


def test_all_problems_are_told_at_once_in_the_order_of_the_file(refuse: Refuse) -> None:
    text = (
        "server:\n  port: x\n  host: 0.0.0.0\nupstream:\n  first_byte_timeout: 5\n  transport: native\n"
        "  proxy: http://p:1\nmodels:\n  aliases:\n    a: a\nlog: 3\nzzz: 1\n"
    )
    lines = [said.split(": ")[:2] for said in refuse(text, {"GATEWAY_SERVER_PROT": "1", "GMI_BASE_URL": "x"})]
    assert lines == [
        ["gateway.yaml:2", "server.port"],
        ["gateway.yaml:3", "server.host"],
        ["gateway.yaml:5", "upstream.first_byte_timeout"],
        ["gateway.yaml:6", "upstream.transport"],
        ["gateway.yaml:10", "models.aliases.a"],
        ["gateway.yaml:11", "log"],
        ["gateway.yaml:12", "zzz"],
        ["GMI_BASE_URL", "upstream.base_url"],
        ["GATEWAY_SERVER_PROT", "server.prot"],
    ]


def test_the_misspelled_key_of_the_docs_reads_like_this(refuse: Refuse) -> None:
    assert refuse("upstream:\n  first_byte_timeout: 5") == [
        "gateway.yaml:2: upstream.first_byte_timeout: unknown key; did you mean upstream.first_byte_timeout_s?"
    ]


def test_a_value_that_a_higher_source_replaces_is_not_looked_at(read: Read) -> None:
    assert read("server: {port: x}", {"GATEWAY_SERVER_PORT": "1"}).server.port == 1


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1"])
def test_without_keys_the_gateway_listens_on_loopback_only(refuse: Refuse, host: str) -> None:
    (said,) = refuse("", server__host=host)
    assert said.startswith("--host: server.host: listens beyond this machine while no keys are configured")
    assert said.endswith("openssl rand -hex 24")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_on_loopback_no_keys_are_needed(read: Read, host: str) -> None:
    assert read("", server__host=host).server.host == host


def test_with_a_key_the_gateway_listens_anywhere(read: Read) -> None:
    assert read("keys: [{name: a, team: t, secret: 0123456789abcdef}]", server__host="0.0.0.0").keys


@pytest.mark.parametrize("host", ["nosuchhost.invalid", "x" * 64])
def test_a_host_name_that_does_not_resolve_is_said_to_be_that(refuse: Refuse, host: str) -> None:
    (said,) = refuse("", server__host=host)
    assert said.startswith("--host: server.host: does not resolve: ")
    assert said.endswith("; write an address of this machine, such as 127.0.0.1")


def test_several_workers_may_share_a_free_port_since_they_share_one_socket(read: Read) -> None:
    server = read("server: {workers: 2, port: 0}").server
    assert (server.workers, server.port) == (2, 0)


def test_bad_keys_are_not_taken_for_none(refuse: Refuse) -> None:
    (said,) = refuse("keys: [{name: a, team: t, secret: short}]", server__host="0.0.0.0")
    assert "keys[0]" in said


def test_names_are_unique_within_a_team(read: Read, refuse: Refuse) -> None:
    text = "keys:\n- {name: a, team: t, secret: 0123456789abcdef}\n- {name: a, team: %s, secret: 0123456789abcdeg}"
    assert len(read(text % "u").keys) == 2
    (said,) = refuse(text % "t")
    assert said.startswith("gateway.yaml:3: keys[1].name: is the name of keys[0] too, in the same team")


@pytest.mark.parametrize("junk", ["{digest}  -", "x{digest}", "{digest}0", "sha256:{digest}", " "])
def test_a_digest_that_is_none_is_told_how_to_make_one(refuse: Refuse, junk: str) -> None:
    written = junk.format(digest=sha256(b"0123456789abcdef").hexdigest())
    (said,) = refuse(f"keys: [{{name: a, team: t, secret_sha256: '{written}'}}]")
    assert said == (
        "gateway.yaml:1: keys[0].secret_sha256: must be 64 hex digits, "
        """as `printf %s "$KEY" | sha256sum | cut -c1-64` prints"""
    )


def test_a_digest_may_be_in_upper_case(read: Read) -> None:
    digest = sha256(b"0123456789abcdef").hexdigest()
    (key,) = read(f"keys: [{{name: a, team: t, secret_sha256: {digest.upper()}}}]").keys
    assert key.secret_sha256 == digest


@pytest.mark.parametrize("case", [str.lower, str.upper])
def test_secrets_are_unique_however_they_are_written(refuse: Refuse, case: Callable[[str], str]) -> None:
    digest = case(sha256(b"0123456789abcdef").hexdigest())
    text = f"keys:\n- {{name: a, team: t, secret: 0123456789abcdef}}\n- {{name: b, team: u, secret_sha256: {digest}}}"
    (said,) = refuse(text)
    assert said.startswith("gateway.yaml:3: keys[1]: has the same secret as keys[0]")


ACCOUNT_KEY = "account-key-5f2e8c1b9d7a"


@pytest.mark.parametrize("source", ["file", "variable", "key file"])
@pytest.mark.parametrize(
    "written",
    [
        f"secret: {ACCOUNT_KEY}",
        f"secret_sha256: {sha256(ACCOUNT_KEY.encode()).hexdigest()}",
        f"secret_sha256: {sha256(ACCOUNT_KEY.encode()).hexdigest().upper()}",
    ],
)
def test_the_account_s_key_is_nobody_s_virtual_key(refuse: Refuse, source: str, written: str) -> None:
    Path("key").write_text(f"{ACCOUNT_KEY}\n")
    upstream = {"file": f"{{api_key: {ACCOUNT_KEY}}}", "variable": "{}", "key file": "{api_key_file: key}"}[source]
    environ = {"GMI_API_KEY": ACCOUNT_KEY} if source == "variable" else {}
    keys = f"- {{name: a, team: t, secret: 0123456789abcdef}}\n- {{name: b, team: t, {written}}}"
    (said,) = refuse(f"upstream: {upstream}\nkeys:\n{keys}", environ)
    assert said == (
        "gateway.yaml:4: keys[1]: is the key of the account, which nobody is to hold;"
        " give it a secret of its own: openssl rand -hex 24"
    )
