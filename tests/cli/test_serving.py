"""`gmi-gateway serve` in its first moments: stopped then, or with nobody who reads what it prints."""

import json
import os
import shlex
import signal
import subprocess
from socket import create_server

import pytest

from gateway.access.keys import is_well_formed
from tests.cli.conftest import call
from tests.cli.process import CANARY, command, serving, without_log

pytestmark = pytest.mark.usefixtures("store")


@pytest.mark.parametrize("redirection", [">/dev/full", ">&-"])
def test_a_gateway_whose_greeting_cannot_be_printed_runs_and_says_how_to_get_an_admin_key(redirection: str) -> None:
    with create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    line = shlex.join(command("serve", "--port", port))
    environ = {**os.environ, "GMI_API_KEY": CANARY, "GMI_BASE_URL": "http://127.0.0.1:9/v1"}
    with subprocess.Popen(
        f"exec timeout 20 {line} {redirection}", shell=True, env=environ, stderr=subprocess.PIPE, text=True
    ) as it:
        assert it.stderr is not None
        told = ""
        while "lost" not in told:
            told = it.stderr.readline()
            assert told, "it has ended"
        it.send_signal(signal.SIGTERM)
        _, err = it.communicate(timeout=10)
    assert told == (
        "The admin key that was made could not be shown and is lost. "
        "Get another with gmi-gateway keys rotate admins/admin.\n"
    )
    assert (it.returncode, without_log(err)) == (0, "")
    assert is_well_formed(json.loads(call("keys", "rotate", "admins/admin", "--json").stdout)["secret"])


@pytest.mark.parametrize("stop_signal", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"GMI_API_KEY": CANARY, "GMI_BASE_URL": "http://127.0.0.1:9/v1"},
        {"GATEWAY_SERVER_WORKERS": "2", "GATEWAY_REDIS_URL": "redis://127.0.0.1:1"},
    ],
    ids=["simulator", "upstream", "workers"],
)
def test_a_stop_as_soon_as_anything_is_printed_is_exit_code_0(
    environ: dict[str, str], stop_signal: signal.Signals
) -> None:
    with serving(**environ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(stop_signal)
        _, err = process.communicate(timeout=10)
    assert (process.returncode, without_log(err)) == (0, "")
