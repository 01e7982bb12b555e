"""`gmi-gateway check-config`, `doctor`, `version`, and the frame of all commands."""

import re
from importlib.metadata import version
from pathlib import Path
from socket import create_server

import pytest

from gateway import __version__
from tests.cli.conftest import call
from tests.cli.process import CANARY, OWN_KEY, ROOT, run, serving, until_curl
from tests.support.gateway import running_gateway

pytestmark = pytest.mark.usefixtures("store")


# --- check-config


def test_check_config_tells_every_problem_and_fails() -> None:
    Path("own.yaml").write_text("server:\n  port: x\n  prot: 1\n")
    result = call("check-config", "--config", "own.yaml", GATEWAY_LOG_CALLS="some")
    assert result.exit_code == 1
    assert [line.split(": ")[0] for line in result.stderr.splitlines()] == [
        "own.yaml:2",
        "own.yaml:3",
        "GATEWAY_LOG_CALLS",
    ]


def test_check_config_shows_what_is_not_the_default_and_who_said_so_but_no_secret() -> None:
    Path("own.yaml").write_text(
        f"server:\n  port: 9000\nkeys:\n- {{name: 'ann [x]', team: core, secret: {OWN_KEY}}}\n"
        f"upstream: {{proxy: 'http://u:{CANARY}@p:1'}}\n"
    )
    result = call("check-config", "--config", "own.yaml", GMI_API_KEY=CANARY)
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "The settings are valid (own.yaml).",
        "  server.port = 9000 (own.yaml:2)",
        "  upstream.api_key = ********** (GMI_API_KEY)",
        "  upstream.proxy = http://***@p:1 (own.yaml:5)",
        "  keys = ann [x] (team core) (own.yaml:3)",
        "Prices: none, so that no call draws on a budget.",
    ]


def test_check_config_without_any_settings_says_that_the_simulator_would_run() -> None:
    result = call("check-config")
    assert result.exit_code == 0
    assert result.stdout.startswith("The settings are valid (no file, so defaults and environment).\nPrices: none")
    assert "\nNo upstream key: " in result.stdout


def test_check_config_beside_a_gateway_that_runs_says_nothing_of_what_that_has() -> None:
    with running_gateway("http://127.0.0.1:9/v1") as gateway:
        result = call("check-config", GATEWAY_SERVER_PORT=str(gateway.port))
    said = "No upstream key in this shell's settings; what the running gateway has cannot be seen from here."
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (0, said)


def test_check_config_warns_of_what_was_hardly_meant_and_passes() -> None:
    result = call("check-config", GMI_KEY=CANARY)
    assert result.exit_code == 0
    assert result.stderr == "! GMI_KEY is set and means nothing here; did you mean GMI_API_KEY?\n"


def test_check_config_says_how_many_models_have_a_price() -> None:
    Path("p.yaml").write_text(
        "unit: microusd_per_million_tokens\n"
        "models:\n  a: {looked_up: 2026-11-22, input: 1_000_000, output: 2_000_000}\n  b: null\n"
    )
    assert "Prices: 1.\n" in call("check-config", GATEWAY_PRICES_FILE="p.yaml").stdout


def test_the_shipped_file_passes() -> None:
    assert call("check-config", "--config", str(ROOT / "config" / "gateway.yaml")).exit_code == 0


# --- doctor, version, and the frame


def test_doctor_tells_bad_settings_a_line_each_and_fails() -> None:
    result = call("doctor", GATEWAY_SERVER_PROT="1", GATEWAY_LOG_CALLS="some")
    assert result.exit_code == 1
    assert [line[:12] for line in result.stdout.splitlines()] == ["✗ GATEWAY_LO", "✗ GATEWAY_SE"]


def test_doctor_tells_of_misspelt_variables_beside_bad_settings() -> None:
    result = call("doctor", GATEWAY_LOG_CALLS="some", GATEWAY_KEY="x")
    assert result.exit_code == 1
    assert [line[:13] for line in result.stdout.splitlines()] == ["✗ GATEWAY_LOG", "! GATEWAY_KEY"]


def test_doctor_is_content_without_a_key() -> None:
    result = call("doctor", "--port", "0")
    assert result.exit_code == 0
    assert {line[0] for line in result.stdout.splitlines()} == {"✓", "!"}


def test_doctor_is_content_while_the_gateway_runs() -> None:
    with serving() as process:
        port = re.findall(r":(\d+)/v1", until_curl(process)[-1])[0]
        result = call("doctor", "--host", "127.0.0.1", "--port", port)
    assert result.exit_code == 0
    assert f"✓ a gateway already runs on http://127.0.0.1:{port}\n" in result.stdout


def test_doctor_marks_every_line_and_fails_where_one_is_bad() -> None:
    with create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    result = call("doctor", GMI_API_KEY=CANARY, GMI_BASE_URL=f"http://127.0.0.1:{port}/v1", GATEWAY_SERVER_PORT="0")
    assert result.exit_code == 1
    marks = [line[0] for line in result.stdout.splitlines()]
    assert (marks[-1], set(marks[:-1])) == ("✗", {"✓"})
    assert CANARY not in result.output


def test_version_names_the_gateway_python_and_the_libraries() -> None:
    lines = call("version").stdout.splitlines()
    assert lines[0] == f"gmi-gateway {__version__}"
    assert f"httptools {version('httptools')}" in lines


def test_the_version_alone_is_an_option() -> None:
    result = call("--version")
    assert (result.exit_code, result.stdout) == (0, f"gmi-gateway {__version__}\n")


def test_a_terminal_that_cannot_show_the_marks_gets_question_marks() -> None:
    result = run("doctor", PYTHONUTF8="0", PYTHONIOENCODING="latin-1", GATEWAY_LOG_CALLS="some")
    assert (result.returncode, result.stderr) == (1, "")
    assert result.stdout.startswith("? GATEWAY_LOG_CALLS")


def test_an_unknown_command_is_exit_code_2() -> None:
    assert call("sevre").exit_code == 2
