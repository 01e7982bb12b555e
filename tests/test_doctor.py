"""The doctor says what keeps the gateway from working, and what to do about it."""

import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import create_server

import pytest
import trustme

from gateway.configuration import load
from gateway.doctor import examine
from gateway.doctor.findings import Finding, Mark
from tests.support import ports
from tests.support.gateway import running_gateway

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
KEY = "canary-5f2e8c1b9d7a4e60"

Answer = Callable[..., AbstractContextManager[int]]


class Upstream(ThreadingHTTPServer):
    """Answers every request with `status` and `date`, and keeps what it was sent."""

    def __init__(self, status: int, date: datetime | None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.status = status
        self.date = date
        self.own: dict[str, str] = {}
        self.seen: list[tuple[str, dict[str, str]]] = []

    def handle_error(self, request: object, client_address: object) -> None:
        """A handshake that the client broke off is part of the tests."""


class Handler(BaseHTTPRequestHandler):
    server: Upstream

    def do_GET(self) -> None:
        self.server.seen.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
        self.send_response_only(self.server.status)
        for name, value in self.server.own.items():
            self.send_header(name, value)
        if self.server.date is not None:
            self.send_header("Date", format_datetime(self.server.date))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_CONNECT(self) -> None:
        self.do_GET()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  named by the base class
        pass


@contextmanager
def upstream(status: int = 200, date: datetime | None = None, tls: ssl.SSLContext | None = None) -> Iterator[Upstream]:
    with Upstream(status, date) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def free_port() -> int:
    return ports.free_port()


def findings(
    environ: Mapping[str, str], port: int = 0, *, host: str = "127.0.0.1", timeout_s: float = 5.0
) -> list[Finding]:
    loaded = load(None, environ, {"server.port": port, "server.host": host})
    found = list(examine(loaded, environ, NOW, timeout_s=timeout_s))
    assert KEY not in str(found)
    return found


def bad(found: list[Finding]) -> list[Finding]:
    return [finding for finding in found if finding.mark is Mark.BAD]


def account(port: int, scheme: str = "http", **more: str) -> dict[str, str]:
    return {"GMI_API_KEY": KEY, "GMI_BASE_URL": f"{scheme}://localhost:{port}/v1", **more}


@pytest.fixture(autouse=True)
def _empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def priced(tmp_path: Path) -> None:
    """A model has a price."""
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "prices.yaml").write_text(
        "unit: microusd_per_million_tokens\nmodels:\n  a: {looked_up: 2026-11-22, input: 1000, output: 1000}\n"
    )


@pytest.mark.usefixtures("priced")
def test_where_all_is_well_every_line_is_good(free_port: int) -> None:
    with upstream(date=NOW) as server:
        found = findings(account(server.server_port, GATEWAY_UPSTREAM_ORGANIZATION_ID="org-1"), free_port)
    assert [(finding.mark, finding.cure) for finding in found] == [(Mark.GOOD, "")] * 11
    ((path, headers),) = server.seen
    assert path == "/v1/models"
    assert headers["authorization"] == f"Bearer {KEY}"
    assert headers["x-organization-id"] == "org-1"


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_is_bad_and_the_cure_says_where_to_get_another(status: int) -> None:
    with upstream(status) as server:
        (finding,) = bad(findings(account(server.server_port)))
    assert finding.text.endswith(f"answers {status}: the key is refused")
    assert finding.cure.startswith("make another at https://console.gmicloud.ai/")


@pytest.mark.parametrize("status", [429, 500, 503])
def test_an_upstream_in_trouble_leaves_the_key_unchecked(status: int) -> None:
    with upstream(status) as server:
        found = findings(account(server.server_port))
    assert not bad(found)
    assert any(finding.text.endswith(f"answers {status}: the key could not be checked") for finding in found)


@pytest.mark.parametrize("status", [301, 404, 405])
def test_another_reply_means_that_the_base_url_is_wrong(status: int) -> None:
    with upstream(status) as server:
        (finding,) = bad(findings(account(server.server_port)))
    assert finding.cure.startswith("check upstream.base_url")


@pytest.mark.parametrize(
    ("skew", "said"),
    [
        (timedelta(minutes=10), "this machine's clock is 10 min behind upstream's"),
        (timedelta(minutes=-10), "this machine's clock is 10 min ahead of upstream's"),
    ],
)
def test_a_clock_that_is_off_is_a_warning(skew: timedelta, said: str) -> None:
    with upstream(date=NOW + skew) as server:
        found = findings(account(server.server_port))
    assert (found[-1].mark, found[-1].text) == (Mark.WARNING, said)


def test_a_refused_connection_is_bad(free_port: int) -> None:
    (finding,) = bad(findings(account(free_port)))
    assert finding.text == f"localhost:{free_port} cannot be reached: ConnectError"
    assert finding.cure.startswith("check upstream.base_url")


def test_an_upstream_that_does_not_answer_is_bad() -> None:
    with create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        (finding,) = bad(findings(account(port), timeout_s=0.2))
    assert finding.text == f"localhost:{port} did not answer within 0.2 s"


def test_a_name_that_does_not_resolve_is_bad() -> None:
    found = findings({"GMI_API_KEY": KEY, "GMI_BASE_URL": f"http://{'x' * 64}.example/v1"})
    (finding,) = bad(found)
    assert finding is found[-1]
    assert "does not resolve: not a host name" in finding.text


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    return context


def test_a_certificate_of_an_own_authority_is_good(authority: trustme.CA, tls: ssl.SSLContext) -> None:
    authority.cert_pem.write_to_path("ca.pem")
    with upstream(tls=tls) as server:
        found = findings(account(server.server_port, "https", GATEWAY_UPSTREAM_CA_FILE="ca.pem"))
    assert not bad(found)
    assert any(finding.text.endswith("answers with a valid certificate") for finding in found)


def test_a_certificate_of_an_unknown_authority_is_bad_and_the_cure_names_the_setting(tls: ssl.SSLContext) -> None:
    with upstream(tls=tls) as server:
        (finding,) = bad(findings(account(server.server_port, "https")))
    assert "shows a certificate that is not trusted: " in finding.text
    assert finding.cure.endswith("upstream.ca_file")
    assert not server.seen


def test_a_proxy_that_refuses_is_bad_and_its_password_is_not_told() -> None:
    with upstream(403) as proxy:
        url = f"http://user:{KEY}@localhost:{proxy.server_port}"
        found = findings(account(443, "https", GATEWAY_UPSTREAM_PROXY=url))
    (finding,) = bad(found)
    assert finding.text == "the proxy does not let us through to localhost"
    assert [path for path, _ in proxy.seen] == ["localhost:443"]


@pytest.mark.usefixtures("priced")
def test_a_proxy_of_the_environment_is_not_used_and_that_is_said() -> None:
    environ = {"GMI_API_KEY": KEY, "GMI_BASE_URL": f"http://{'x' * 64}.example/v1", "HTTPS_PROXY": f"http://u:{KEY}@p"}
    (warning,) = [finding for finding in findings(environ) if finding.mark is Mark.WARNING]
    assert warning.text.startswith("HTTPS_PROXY is set, but the gateway uses a proxy only if its settings name one")
    assert 'GATEWAY_UPSTREAM_PROXY="$HTTPS_PROXY"' in warning.cure


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_port_that_a_gateway_has_already_is_good(host: str) -> None:
    with running_gateway("http://127.0.0.1:9/v1") as gateway:
        (finding,) = [found for found in findings({}, gateway.port, host=host) if "already" in found.text]
    assert finding == Finding(Mark.GOOD, f"a gateway already runs on http://{host}:{gateway.port}")


def test_a_gateway_that_is_shutting_down_is_a_gateway_still() -> None:
    with upstream(503) as other:
        other.own = {"x-gateway-request-id": "1"}
        assert not bad(findings({}, other.server_port))


def test_a_port_that_another_server_has_is_bad() -> None:
    with upstream(200) as other:
        (finding,) = bad(findings({}, other.server_port))
    assert other.seen[0][0] == "/healthz"
    assert finding.text == f"cannot listen on 127.0.0.1:{other.server_port}: Address already in use"


def test_a_port_that_is_taken_by_what_speaks_no_http_is_bad() -> None:
    with create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        (finding,) = bad(findings({}, port, timeout_s=0.2))
    assert finding.text == f"cannot listen on 127.0.0.1:{port}: Address already in use"
    assert finding.cure.startswith("choose another with --port")


@pytest.mark.parametrize("section", ["admin", "metrics"])
def test_an_address_of_their_own_is_looked_at_too(free_port: int, section: str) -> None:
    environ = {f"GATEWAY_{section.upper()}_LISTEN": f"127.0.0.1:{free_port}"}
    assert Finding(Mark.GOOD, f"127.0.0.1:{free_port} is free") in findings(environ)
    with create_server(("127.0.0.1", free_port)):
        (finding,) = bad(findings(environ, timeout_s=0.2))
    assert finding.text == f"cannot listen on 127.0.0.1:{free_port}: Address already in use"
    assert finding.cure.startswith(f"choose another as {section}.listen")


@pytest.mark.parametrize("host", ["nosuchhost.invalid", "x" * 64])
def test_a_host_to_listen_on_that_does_not_resolve_is_said_to_be_that(host: str) -> None:
    environ = {"GATEWAY_KEYS": f"[{{name: a, team: t, secret: {KEY}}}]"}
    (finding,) = bad(findings(environ, host=host))
    assert finding.text.startswith(f"cannot listen on {host}, which does not resolve: ")
    assert finding.cure == "name an address of this machine, such as 127.0.0.1, with --host"


@pytest.mark.usefixtures("priced")
def test_without_a_key_the_simulator_is_announced_and_upstream_left_alone() -> None:
    found = findings({"HTTPS_PROXY": "http://p"})
    assert [finding.mark for finding in found] == [*[Mark.GOOD] * 7, Mark.WARNING]
    assert found[-1].text == "no upstream key: `serve` runs against the simulator"


def test_without_a_key_beside_a_gateway_that_runs_nothing_is_said_of_what_that_has() -> None:
    with running_gateway("http://127.0.0.1:9/v1") as gateway:
        found = findings({}, gateway.port)
    assert found[-1] == Finding(
        Mark.WARNING,
        "no upstream key in this shell's settings",
        "what the running gateway has cannot be seen from here",
    )
    assert "simulator" not in str(found)


@pytest.mark.usefixtures("priced")
def test_what_was_hardly_meant_is_a_warning() -> None:
    with upstream() as server:
        environ = account(server.server_port, GATEWAY_KEY="x", GMI_BASE_URL=f"http://localhost:{server.server_port}")
        found = findings(environ)
    assert [finding.text for finding in found if finding.mark is Mark.WARNING] == [
        "GATEWAY_KEY is set and means nothing here",
        "upstream.base_url has no path",
    ]


@pytest.mark.parametrize(("mode", "mark"), [(0o600, Mark.GOOD), (0o640, Mark.WARNING), (0o604, Mark.WARNING)])
def test_an_admin_key_file_that_others_can_read_is_a_warning(mode: int, mark: Mark) -> None:
    file = Path("admin")
    file.write_text(KEY)
    file.chmod(mode)
    (finding,) = [found for found in findings({"GATEWAY_ADMIN_KEY_FILE": "admin"}) if "can be read by" in found.text]
    assert (finding.mark, finding.cure) == (mark, "" if mark is Mark.GOOD else "chmod 600 admin")


@pytest.mark.parametrize(("mode", "mark"), [(0o600, Mark.GOOD), (0o640, Mark.WARNING), (0o604, Mark.WARNING)])
def test_a_key_file_that_others_can_read_is_a_warning(mode: int, mark: Mark) -> None:
    file = Path("key")
    file.write_text(KEY)
    file.chmod(mode)
    with upstream() as server:
        found = findings({"GMI_API_KEY_FILE": "key", "GMI_BASE_URL": f"http://localhost:{server.server_port}/v1"})
    (finding,) = [finding for finding in found if finding.text.startswith("key can be read by ")]
    assert finding.mark is mark
    assert finding.cure == ("" if mark is Mark.GOOD else "chmod 600 key")


def test_prices_are_counted_and_what_is_wrong_with_them_is_bad_line_by_line(tmp_path: Path) -> None:
    about = "unit: microusd_per_million_tokens\nmodels:\n  a: {looked_up: 2026-11-22, input: 2_000_000, output: %s}\n"
    file = tmp_path / "prices.yaml"
    environ = {"GATEWAY_PRICES_FILE": str(file)}
    file.write_text(about % "8_000_000")
    assert Finding(Mark.GOOD, f"there are prices (1, in {file})") in findings(environ)
    file.write_text(about % "8.5")
    (finding,) = bad(findings(environ))
    assert finding.text.startswith(f"{file}:3: a.output: ")
    cure = "write them into config/prices.yaml (docs/prices.md)"
    assert Finding(Mark.WARNING, "there are no prices, so that no call draws on a budget", cure) in findings({})


def test_where_limits_are_counted_is_told_and_what_becomes_of_them_without_redis() -> None:
    in_memory = [finding.text for finding in findings({}) if finding.text.startswith("limits are")]
    assert in_memory == ["limits are counted in memory, by the settings seen here; redis.url shares them"]
    environ = {"GATEWAY_REDIS_URL": "redis://127.0.0.1:9/0", "GATEWAY_LIMITS_ON_REDIS_FAILURE": "closed"}
    (shared,) = [finding for finding in findings(environ) if finding.text.startswith("limits are")]
    assert shared.text.endswith("while it is away they are not kept, and no call is admitted (closed)")


def test_a_file_of_the_secret_of_alerts_that_others_can_read_is_a_warning(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("a-secret-of-the-tests-0123")
    file.chmod(0o644)
    found = findings({"GATEWAY_ALERTS_WEBHOOK_SECRET_FILE": str(file)})
    assert Finding(Mark.WARNING, f"{file} can be read by everyone on this machine", f"chmod 600 {file}") in found
