"""Each bad setting is one problem with its place, its reason and its cure."""

import os
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import get_args

import pytest
from redis.asyncio.connection import parse_url

from gateway.configuration import SettingsError, load_settings
from gateway.http.routes import ROUTES
from gateway.settings import RouteGroup
from gateway.settings.shapes import host_and_port
from tests.configuration.conftest import Read, Refuse

KEY = "name: a, team: t, secret: 0123456789abcdef"


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
        ("models: {aliases: 3}", "models.aliases: is not a table of names; wanted: Alias to upstream's name, as in"),
        ("limits: {max_wait_s: 601}", "limits.max_wait_s: is more than 600"),
        ("server: {keep_alive_s: 0}", "server.keep_alive_s: is less than 1"),
        (
            "limits: {each_key: {requests_per_minute: 999999999999999999999}}",
            "limits.each_key.requests_per_minute: is more than 9007199254740991",
        ),
        ("limits: {each_key: {rpm: 4}}", "limits.each_key.rpm: unknown limit; did you mean requests_per_minute?"),
        ("limits: {each_team: {tpd: 4}}", "limits.each_team.tpd: unknown limit; did you mean tokens_per_day?"),
        ("limits: {endpoint: {max_parallel: 4}}", "limits.endpoint.max_parallel: unknown limit; did you mean"),
        ("limits: {each_key: {token_per_hour: 4}}", "limits.each_key.token_per_hour: unknown limit; did you mean"),
        (
            "limits: {each_key: {xyz: 4}}",
            "limits.each_key.xyz: unknown limit; the limits are requests_per_minute, requests_per_hour",
        ),
        ("log: {calls: some}", "log.calls: is not one of 'off', 'errors' or 'all'"),
        ("log: {colour: red}", "log.colour: unknown key; the keys are format, calls"),
        ("serve: {port: 1}", "serve: unknown key; did you mean server?"),
        ("zzz: 1", "zzz: unknown key; the sections are server, upstream, streams, models, access, admin, "),
        ("port: 1", "port: unknown key; did you mean server.port?"),
        ("server: {proxy: 'http://p'}", "server.proxy: unknown key; did you mean upstream.proxy?"),
        ("server: {trusted_proxies: 10.0.0.0/8}", "server.trusted_proxies: is not a list; wanted: Networks of the"),
        ("server: {trusted_proxies: [10.0.0.0/8, proxy]}", "server.trusted_proxies[1]: must be a network or an addr"),
        ("server: {trusted_proxies: [10.0.0.1/8]}", "server.trusted_proxies[0]: must be a network whose bits after"),
        ("server: {state_dir: ''}", "server.state_dir: is empty"),
        ("server: {state_dir: gateway.yaml}", "server.state_dir: is not a folder; name a folder that this user may"),
        ("server: {state_dir: gateway.yaml/x/y}", "server.state_dir: cannot be made: below a file; name a folder"),
        ('server: {state_dir: "a\\0b"}', "server.state_dir: is not a path; name a folder"),
        ("access: {share_within_team: some}", "access.share_within_team: is neither true nor false"),
        ("admin: {key: ...}", "admin.key: must be the key itself, where dots stand in its place"),
        ("admin: {key: sk-gw-...}", "admin.key: must be the key itself, where dots stand in its place"),
        ("admin: {key: short}", "admin.key: must be 16 or more visible ASCII characters; make one with: openssl"),
        ("upstream: {api_key: ...}", "upstream.api_key: must be the key itself, where dots stand in its place"),
        ("upstream: {api_key: sk-...}", "upstream.api_key: must be the key itself, where dots stand in its place"),
        ("admin: {listen: 8081}", "admin.listen: must be host:port, such as 127.0.0.1:8081 or [::1]:8081"),
        ("admin: {listen: '::1:8081'}", "admin.listen: must be host:port"),
        ("admin: {listen: '127.0.0.1:65536'}", "admin.listen: must be host:port"),
        ("admin: {listen: '127.0.0.1:8081', enabled: no}", "admin.listen: is set while admin.enabled is false"),
        ("admin: {listen: '127.0.0.1:8080'}", "admin.listen: is the address of the calls; choose another port"),
        ("admin: {listen: '0.0.0.0:8080'}", "admin.listen: is the address of the calls"),
        (
            "metrics: {token: short}",
            "metrics.token: must be 16 or more visible ASCII characters; make one with: openssl",
        ),
        ("metrics: {listen: 9100}", "metrics.listen: must be host:port, such as 127.0.0.1:8081 or [::1]:8081"),
        ("metrics: {listen: '127.0.0.1:9100', enabled: no}", "metrics.listen: is set while metrics.enabled is false"),
        ("metrics: {listen: '0.0.0.0:8080'}", "metrics.listen: is the address of the calls; choose another port"),
        (
            "{metrics: {listen: '0.0.0.0:8081'}, admin: {listen: '127.0.0.1:8081'}}",
            "metrics.listen: is the address of administration; choose another port",
        ),
        ("database: {timeout_s: 0}", "database.timeout_s: is not more than 0"),
        ("database: {pool_size: 0}", "database.pool_size: is less than 1"),
        ("database: {url: gateway.db}", "database.url: must start with postgresql:// or sqlite:///"),
        ("database: {url: 'mysql://h/n'}", "database.url: must start with postgresql:// or sqlite:///"),
        ("database: {url: 'postgresql+psycopg://h/n'}", "database.url: names a driver that is not here; begin it with"),
        ("database: {url: 'postgresql://u:p@h'}", "database.url: must name a database: postgresql://user:password@"),
        ("database: {url: 'postgresql://u:p@h/'}", "database.url: must name a database"),
        ("database: {url: 'postgresql://u:p@h/a/b'}", "database.url: must name a database"),
        ("database: {url: 'postgresql://u:p/w@h/n'}", "database.url: is not a URL: its host or its port cannot be re"),
        ("database: {url: 'postgresql://u:p@w@h/n'}", "database.url: holds # or a second @; percent-encode what is sp"),
        ("database: {url: 'postgresql://u:1#w@h/n'}", "database.url: holds # or a second @; percent-encode what is sp"),
        ("database: {url: 'postgresql://u:p@h:0/n'}", "database.url: is not a URL: its port is 0"),
        ("database: {url: 'postgresql://u: p@h/n'}", "database.url: is not a URL: write it in visible ASCII"),
        ("database: {url: 'sqlite://data/gateway.db'}", "database.url: must be sqlite:/// with three slashes"),
        ("database: {url: 'sqlite:///'}", "database.url: must name a file and nothing else: sqlite:///data/gateway.db"),
        ("database: {url: 'sqlite://'}", "database.url: must name a file"),
        ("database: {url: 'sqlite:///:memory:'}", "database.url: must name a file"),
        ("database: {url: 'sqlite:///a.db?mode=ro'}", "database.url: must name a file"),
        ("redis: {url: 'localhost:6379'}", "redis.url: must start with redis:// or rediss:// and name a host, or"),
        ("redis: {url: 'http://localhost'}", "redis.url: must start with redis:// or rediss://"),
        ("redis: {url: 'redis://'}", "redis.url: must start with redis:// or rediss:// and name a host"),
        ("redis: {url: 'redis://h/zero'}", "redis.url: must end with the number of a database, such as /0"),
        ("redis: {url: 'redis://h:x'}", "redis.url: is not a URL: its host or its port cannot be read"),
        ("redis: {url: 'redis://h?db=zero'}", "redis.url: must have the number of a database as db"),
        ("redis: {url: 'redis://h?socket_timeout=60'}", "redis.url: has an option that is not one of client_name, db"),
        ("redis: {url: 'redis://h?ssl_cert_reqs=none'}", "redis.url: has an option for TLS, which rediss:// alone"),
        ("redis: {url: 'unix://'}", "redis.url: must name a socket: unix:///run/redis.sock"),
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
        (f"keys: [{{{KEY}, role: boss}}]", "keys[0].role: is not one of 'member', 'team_admin' or 'admin'"),
        (f"keys: [{{{KEY}, models: openai/*}}]", "keys[0].models: is not a list; wanted: Models it may use"),
        (f"keys: [{{{KEY}, models: ['']}}]", "keys[0].models[0]: is empty"),
        (f"keys: [{{{KEY}, routes: [chats]}}]", "keys[0].routes[0]: is not one of 'chat', 'responses', 'conversatio"),
        (f"keys: [{{{KEY}, networks: [home]}}]", "keys[0].networks[0]: must be a network or an address"),
        (f"keys: [{{{KEY}, expires_at: friday}}]", "keys[0].expires_at: is not a time; wanted: When it stops"),
        (f"keys: [{{{KEY}, expires_at: 2027-01-31}}]", "keys[0].expires_at: has no offset from UTC; wanted: When"),
        (f"keys: [{{{KEY}, expires_at: 2027-01-31T18:00:00}}]", "keys[0].expires_at: has no offset from UTC"),
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
    assert "Undefined" not in said


def test_all_problems_are_told_at_once_in_the_order_of_the_file(refuse: Refuse) -> None:
    text = (
        "server:\n  port: x\n  host: ''\nupstream:\n  first_byte_timeout: 5\n  transport: native\n"
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


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "0.0.0.0", "::", "10.0.0.1"])
def test_without_keys_of_its_own_the_gateway_listens_anywhere_since_it_makes_an_admin_key(
    read: Read, host: str
) -> None:
    assert read("", server__host=host).server.host == host


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://gateway:p%40ss%2Fw%23rd@db.example:5432/gateway?sslmode=verify-full",
        "postgres://gateway@[2001:db8::1]/gateway",
        "postgresql:///gateway?host=/var/run/postgresql",
        "postgresql+asyncpg://h/n",
        "sqlite:///data/gateway.db",
        "sqlite:////var/lib/gateway.db",
    ],
)
def test_a_database_is_named_by_a_url_that_is_kept_as_it_is(read: Read, url: str) -> None:
    assert read(f"database: {{url: '{url}'}}").database.url == url


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost",
        "redis://:secret@localhost:6379/0",
        "rediss://user:p%40ss@redis.example:6380/2?ssl_ca_certs=/etc/ca.pem",
        "redis://[::1]?db=3",
        "unix:///run/redis.sock?db=1",
    ],
)
def test_redis_is_named_by_a_url_that_redis_py_reads_the_same(read: Read, url: str) -> None:
    assert read(f"redis: {{url: '{url}'}}").redis.url == url
    assert parse_url(url)


@pytest.mark.parametrize(
    ("listen", "parts"),
    [("127.0.0.1:8081", ("127.0.0.1", 8081)), ("[::1]:0", ("::1", 0)), ("admin.internal:443", ("admin.internal", 443))],
)
def test_administration_listens_at_a_host_and_port(read: Read, listen: str, parts: tuple[str, int]) -> None:
    assert read(f"admin: {{listen: '{listen}'}}").admin.listen == listen
    assert host_and_port(listen) == parts


@pytest.mark.parametrize("listen", ["127.0.0.2:8080", "127.0.0.1:8081", "127.0.0.1:0"])
def test_administration_may_listen_beside_the_calls(read: Read, listen: str) -> None:
    assert read(f"admin: {{listen: '{listen}'}}", server__host="127.0.0.1", server__port=8080).admin.listen == listen


def test_groups_of_routes_are_those_of_the_table_of_routes() -> None:
    groups = dict.fromkeys(route.group for route in ROUTES)
    assert get_args(RouteGroup) == tuple(groups)


@pytest.fixture
def ordinary_user(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Root may write anywhere, and tests may run as root, in a folder that is closed to all others."""
    monkeypatch.chdir("/")
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.usefixtures("ordinary_user")
@pytest.mark.parametrize("folder", ["/", "/usr", "/var/lib/no-such-folder/of/a/gateway"])
def test_a_folder_that_cannot_be_written_is_refused_with_the_cure(folder: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(None, {"GATEWAY_SERVER_STATE_DIR": folder}, {})
    assert str(caught.value) == (
        "GATEWAY_SERVER_STATE_DIR: server.state_dir: cannot be written; "
        "name a folder that this user may write to (in a container, mount a volume there)"
    )


def test_looking_at_a_folder_does_not_make_it(read: Read) -> None:
    assert read("server: {state_dir: not/there/yet}").server.state_dir == "not/there/yet"
    assert not Path("not").exists()


def test_several_workers_without_redis_are_refused_since_no_limit_would_hold(read: Read, refuse: Refuse) -> None:
    (said,) = refuse("server: {port: 0, workers: 2}")
    assert said == (
        "gateway.yaml:1: server.workers: several workers without Redis would each admit all that limits allow, so that"
        " these would not hold; set redis.url, or leave it at 1: one worker serves thousands of calls at once"
    )
    (said,) = refuse("server: {port: 0}", server__workers=3)
    assert said.startswith("--workers: server.workers: several workers without Redis")
    assert read("server: {workers: 2}\nredis: {url: 'redis://h'}").server.workers == 2


@pytest.mark.parametrize(("calls", "sums"), [(91, 90), (2_000, None), (0, 1_096)])
def test_sums_by_day_are_kept_as_long_as_their_calls(read: Read, refuse: Refuse, calls: int, sums: int | None) -> None:
    kept = f"calls_retention_days: {calls}" + ("" if sums is None else f", days_retention_days: {sums}")
    (said,) = refuse(f"ledger: {{{kept}}}")
    assert said == (
        f"{'' if sums is None else 'gateway.yaml:1: '}ledger.days_retention_days: would delete sums by day while"
        " ledger.calls_retention_days keeps their calls; keep the sums as long as the calls, or for ever: 0"
    )
    assert read(f"ledger: {{calls_retention_days: {calls}, days_retention_days: 0}}").ledger.days_retention_days == 0
    assert read("ledger: {calls_retention_days: 9, days_retention_days: 9}").ledger.days_retention_days == 9


def test_several_workers_may_share_a_free_port_since_they_share_one_socket(read: Read) -> None:
    server = read("server: {workers: 2, port: 0}\nredis: {url: 'redis://h'}").server
    assert (server.workers, server.port) == (2, 0)


def test_bad_keys_are_not_taken_for_none(refuse: Refuse) -> None:
    (said,) = refuse("keys: [{name: a, team: t, secret: short}]")
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


ADMIN_KEY = "admin-key-0123456789abcdef"


@pytest.mark.parametrize("source", ["file", "variable", "key file"])
@pytest.mark.parametrize(
    "written", [f"secret: {ADMIN_KEY}", f"secret_sha256: {sha256(ADMIN_KEY.encode()).hexdigest()}"]
)
def test_the_admin_key_is_no_other_key_too(refuse: Refuse, source: str, written: str) -> None:
    Path("key").write_text(f"{ADMIN_KEY}\n")
    admin = {"file": f"{{key: {ADMIN_KEY}}}", "variable": "{}", "key file": "{key_file: key}"}[source]
    environ = {"GATEWAY_ADMIN_KEY": ADMIN_KEY} if source == "variable" else {}
    (said,) = refuse(f"admin: {admin}\nkeys:\n- {{name: a, team: t, {written}}}", environ)
    assert said == (
        "gateway.yaml:3: keys[0]: has the secret of admin.key; give each key a secret of its own: openssl rand -hex 24"
    )


def test_the_account_s_key_is_not_the_admin_s(refuse: Refuse) -> None:
    (said,) = refuse(f"admin: {{key: {ACCOUNT_KEY}}}", {"GMI_API_KEY": ACCOUNT_KEY})
    assert said.startswith("gateway.yaml:1: admin.key: is the key of the account, which nobody is to hold")
