"""`gmi-gateway serve` where it cannot start: one clear line, and an exit code."""

import json
import re
from pathlib import Path
from socket import create_server

import pytest

from tests.cli.conftest import call
from tests.cli.process import CANARY, OWN_KEY, serving, until_curl

pytestmark = pytest.mark.usefixtures("store")


@pytest.mark.parametrize(
    "environ", [{"GATEWAY_SERVER_PROT": "1"}, {"GATEWAY_UPSTREAM_PROXY": f"http://u:{CANARY}@p:x"}]
)
def test_bad_settings_are_told_on_standard_error_without_a_traceback(environ: dict[str, str]) -> None:
    result = call("serve", **environ)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"{next(iter(environ))}: ")
    assert isinstance(result.exception, SystemExit)  # and so no traceback
    assert CANARY not in result.stderr


def test_a_port_that_is_taken_is_one_clear_line() -> None:
    with create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        result = call("serve", "--port", str(port))
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        f"✗ cannot listen on 127.0.0.1:{port}: Address already in use; "
        "choose another with --port or --host, or stop what listens there (see: ss -ltnp)\n"
    )


def test_a_port_that_the_gateway_of_the_folder_has_is_said_to_be_its() -> None:
    with serving() as process:
        port = re.findall(r":(\d+)/v1", until_curl(process)[-1])[0]
        results = {host: call("serve", "--port", port, "--host", host) for host in ("127.0.0.1", "localhost")}
    for host, result in results.items():
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr.splitlines()[-1] == (
            f"✗ {host}:{port} is taken by the gateway of this same folder (PID {process.pid}): it runs already; to"
            " restart it, stop that one first"
        )


@pytest.mark.parametrize("host", ["nosuchhost.invalid", "x" * 64])
def test_a_host_that_does_not_resolve_is_one_clear_line(host: str) -> None:
    keys = json.dumps([{"name": "ann", "team": "core", "secret": OWN_KEY}])
    result = call("serve", "--host", host, GATEWAY_KEYS=keys)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"✗ cannot listen on {host}, which does not resolve: ")
    assert result.stderr.count("\n") == 1


def test_a_refusal_tells_of_misspelt_variables_too() -> None:
    result = call("serve", GATEWAY_LOG_CALLS="some", GATEWAY_KEY="x")
    assert result.exit_code == 2
    assert result.stderr.endswith("\n! GATEWAY_KEY is set and means nothing here; did you mean GATEWAY_KEYS?\n")


@pytest.mark.parametrize(("command", "code"), [("check-config", 1), ("serve", 2)])
def test_prices_that_cannot_be_read_are_told_a_line_each_and_nothing_starts(command: str, code: int) -> None:
    Path("p.yaml").write_text("unit: dollars\nmodels:\n  a: {looked_up: today, input: 1.75}\n")
    result = call(command, GATEWAY_PRICES_FILE="p.yaml")
    assert (result.exit_code, result.stdout) == (code, "")
    lines = result.stderr.splitlines()
    assert len(lines) == 4
    assert [line.split(": ")[0] for line in lines] == ["p.yaml:1", *["p.yaml:3"] * 3]
