"""`gmi-gateway check-config`, `doctor`, `version`, and the frame of all commands."""

import json
import re
from importlib.metadata import version
from pathlib import Path
from socket import create_server

import pytest

from gateway import __version__
from tests.cli.conftest import answer, call
from tests.cli.process import CANARY, OWN_KEY, ROOT, run, serving, until_curl
from tests.support.gateway import running_gateway
from tests.support.ports import free_port

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


def test_check_config_without_an_upstream_key_says_that_the_simulator_would_run() -> None:
    result = call("check-config", GATEWAY_SERVER_PORT=str(free_port()))
    assert result.exit_code == 0
    assert result.stdout.startswith("The settings are valid (no file, so defaults and environment).\n")
    assert "\nPrices: none" in result.stdout
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


def test_check_config_tells_scripts_the_same_and_no_secret_either() -> None:
    Path("own.yaml").write_text(f"server:\n  port: 9000\nupstream: {{proxy: 'http://u:{CANARY}@p:1'}}\n")
    assert answer(call("check-config", "--config", "own.yaml", "--json", GMI_API_KEY=CANARY, GMI_KEY="x")) == {
        "is_valid": True,
        "problems": [],
        "warnings": [{"text": "GMI_KEY is set and means nothing here", "cure": "did you mean GMI_API_KEY?"}],
        "file": "own.yaml",
        "changes": [
            {"setting": "server.port", "value": "9000", "source": "own.yaml:2"},
            {"setting": "upstream.api_key", "value": "**********", "source": "GMI_API_KEY"},
            {"setting": "upstream.proxy", "value": "http://***@p:1", "source": "own.yaml:3"},
        ],
        "priced_models": 0,
        "has_upstream_key": True,
    }


@pytest.mark.parametrize(
    "wrong", [{"GATEWAY_LOG_CALLS": "some"}, {"GATEWAY_PRICES_FILE": "own.yaml"}, {"GATEWAY_CONFIG": "nowhere.yaml"}]
)
def test_check_config_tells_scripts_what_is_wrong_and_fails(wrong: dict[str, str]) -> None:
    Path("own.yaml").write_text("server: 1\n")
    result = call("check-config", "--json", **wrong)
    assert (result.exit_code, result.stderr) == (1, "")
    told = json.loads(result.stdout)
    assert (told["is_valid"], told["warnings"]) == (False, [])
    assert told["problems"]


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
    ours = f"✓ a gateway runs on this folder at http://127.0.0.1:{port} (PID {process.pid})"
    assert f"{ours}; its upstream is the simulator\n" in result.stdout
    assert "no upstream key" not in result.stdout


@pytest.mark.usefixtures("priced")
def test_doctor_marks_every_line_and_fails_where_one_is_bad() -> None:
    with create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    result = call("doctor", GMI_API_KEY=CANARY, GMI_BASE_URL=f"http://127.0.0.1:{port}/v1", GATEWAY_SERVER_PORT="0")
    assert result.exit_code == 1
    marks = [line[0] for line in result.stdout.splitlines()]
    assert (marks[-1], set(marks[:-1])) == ("✗", {"✓"})
    assert CANARY not in result.output


def test_doctor_tells_scripts_each_finding_with_its_mark_and_cure() -> None:
    told = answer(call("doctor", "--port", "0", "--json"))
    assert told["is_well"] is True
    assert {finding["mark"] for finding in told["data"]} == {"good", "warning"}
    assert told["data"][-1]["cure"].startswith("set GMI_API_KEY")
    result = call("doctor", "--json", GATEWAY_LOG_CALLS="some")
    assert (result.exit_code, result.stderr) == (1, "")
    told = json.loads(result.stdout)
    assert (told["is_well"], [finding["mark"] for finding in told["data"]]) == (False, ["bad"])


def test_version_tells_scripts_a_member_each() -> None:
    told = answer(call("version", "--json"))
    assert (told["gmi-gateway"], told["httptools"]) == (__version__, version("httptools"))


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
