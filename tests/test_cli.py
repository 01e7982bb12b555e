"""What a person at a terminal reads, and what a script gets as exit code."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from socket import create_server

import httpx2
import pytest
from typer.testing import CliRunner, Result

from gateway import __version__
from gateway.access.keys import is_well_formed
from gateway.cli.commands import app
from tests.support.stores import fresh_sqlite_url

ROOT = Path(__file__).parents[1]
CANARY = "canary-5f2e8c1b9d7a4e60"
OWN_KEY = "0123456789abcdef0123"


@pytest.fixture(autouse=True)
def _clean_surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith(("GATEWAY_", "GMI_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PYTHONUTF8", "1")
    fresh_sqlite_url(tmp_path / "data")


def call(*arguments: str, **environ: str) -> Result:
    return CliRunner().invoke(app, arguments, env=environ)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "gateway", *arguments]


def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **environ}
    return subprocess.run(command(*arguments), env=environment, capture_output=True, text=True, timeout=30, check=False)


@contextmanager
def serving(*arguments: str, **environ: str) -> Iterator[subprocess.Popen[str]]:
    """`gmi-gateway serve` as a process on a free port; it is told to stop at the end, if it has not been."""
    process = subprocess.Popen(
        command("serve", "--port", "0", *arguments),
        env={**os.environ, **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=10)


def stop(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=10)
    return process.returncode, out, err


def until_curl(process: subprocess.Popen[str]) -> list[str]:
    """The lines that are printed first, up to the one to paste."""
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line.rstrip("\n"))
        if line.startswith("curl "):
            return lines
    raise AssertionError("\n".join([*lines, process.stderr.read() if process.stderr else ""]))


def paste(line: str) -> httpx2.Response:
    """Do what a shell and curl would do with the line."""
    words = shlex.split(line)
    assert words[0] == "curl"
    assert words[2::2] == ["-H", "-H", "-d"]
    headers = dict(header.split(": ", 1) for header in (words[3], words[5]))
    return httpx2.post(words[1], headers=headers, content=words[7], timeout=10, trust_env=False)


# --- serve


def test_without_a_key_serve_runs_the_simulator_says_so_and_prints_a_line_that_works() -> None:
    with serving() as process:
        lines = until_curl(process)
        reply = paste(lines[-1])
        code, _, err = stop(process)
    assert lines[0] == "SIMULATOR: no GMI key is set, so a simulator makes the answers up. No model is asked."
    assert lines[1] == "For the real models, set GMI_API_KEY (or GMI_API_KEY_FILE) and start it again."
    assert reply.status_code == 200
    assert reply.json()["choices"][0]["message"]["content"].startswith("[simulated]")
    assert (code, err) == (0, "")
    assert "\x1b" not in "\n".join(lines)


def test_the_first_start_makes_the_database_in_a_folder_for_this_user_alone() -> None:
    shutil.rmtree("data")
    with serving() as process:
        assert paste(until_curl(process)[-1]).status_code == 200
    assert [oct(path.stat().st_mode & 0o777) for path in (Path("data"), Path("data/gateway.db"))] == ["0o700", "0o600"]


def test_the_demo_key_is_the_only_one_and_is_a_new_one_each_time() -> None:
    keys = []
    for _ in range(2):
        with serving() as process:
            line = until_curl(process)[-1]
            keys += re.findall(r"sk-gw-\w+", line)
            refused = paste(line.replace(keys[-1], "sk-gw-" + "0" * 38))
        assert refused.status_code == 401
        assert is_well_formed(keys[-1])
    assert len(set(keys)) == 2


def test_beyond_loopback_there_is_no_demo_key_but_the_admin_key_of_the_first_start() -> None:
    shutil.rmtree("data")
    with serving("--host", "0.0.0.0") as process:
        line = until_curl(process)[-1]
        assert process.stdout is not None
        admin_line = process.stdout.readline()
        while "Admin key" not in admin_line:
            admin_line = process.stdout.readline()
        assert paste(line).status_code == 401
        assert paste(line.replace("YOUR_KEY", admin_line.split()[-1])).status_code == 200
    assert "sk-gw-" not in line


def test_with_keys_of_ones_own_the_simulator_takes_those_and_none_is_printed() -> None:
    key = json.dumps([{"name": "ann", "team": "core", "secret": OWN_KEY}])
    with serving(GATEWAY_KEYS=key) as process:
        lines = until_curl(process)
        reply = paste(lines[-1].replace("YOUR_KEY", OWN_KEY))
        _, out, err = stop(process)
    assert "; put one of your keys in place of YOUR_KEY:" in lines[-3]
    assert "$" not in lines[-1]
    assert reply.status_code == 200
    assert OWN_KEY not in "\n".join(lines) + out + err


def test_a_proxy_for_upstream_is_not_in_the_way_of_the_simulator() -> None:
    with serving(GATEWAY_UPSTREAM_PROXY="http://127.0.0.1:1", GATEWAY_UPSTREAM_TRANSPORT="httpx2") as process:
        assert paste(until_curl(process)[-1]).status_code == 200


@pytest.mark.parametrize(
    ("host", "url"), [("0.0.0.0", "http://127.0.0.1:"), ("::1", "http://[::1]:"), ("localhost", "http://localhost:")]
)
def test_the_line_to_paste_reaches_the_host_that_was_asked_for(host: str, url: str) -> None:
    key = json.dumps([{"name": "ann", "team": "core", "secret": OWN_KEY}])
    with serving("--host", host, GATEWAY_KEYS=key) as process:
        line = until_curl(process)[-1]
        assert line.startswith(f"curl {url}")
        assert paste(line.replace("YOUR_KEY", OWN_KEY)).status_code == 200


def test_with_a_key_serve_names_the_upstream_and_never_the_key() -> None:
    with serving(GMI_API_KEY=CANARY, GMI_BASE_URL="http://127.0.0.1:9/v1") as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        pasted = until_curl(process)[-1]
        reply = paste(pasted)
        code, out, err = stop(process)
    assert line.startswith(f"GMI gateway {__version__} on http://127.0.0.1:")
    assert "upstream http://127.0.0.1:9/v1" in line
    assert "SIMULATOR" not in line
    assert reply.status_code == 502
    assert CANARY not in line + out + err + reply.text
    assert code == 0


@pytest.mark.parametrize(
    "environ", [{"GATEWAY_SERVER_PROT": "1"}, {"GATEWAY_UPSTREAM_PROXY": f"http://u:{CANARY}@p:x"}]
)
def test_bad_settings_are_told_on_standard_error_without_a_traceback(environ: dict[str, str]) -> None:
    result = run("serve", **environ)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith(f"{next(iter(environ))}: ")
    assert "Traceback" not in result.stderr
    assert CANARY not in result.stderr


def test_a_port_that_is_taken_is_one_clear_line() -> None:
    with create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        result = run("serve", "--port", str(port))
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == (
        f"✗ cannot listen on 127.0.0.1:{port}: Address already in use; "
        "choose another with --port or --host, or stop what listens there (see: ss -ltnp)\n"
    )


@pytest.mark.parametrize(
    ("host", "said"),
    [
        ("127.0.0.1", r"on http://127\.0\.0\.1:\d+/v1, upstream \S+\."),
        ("0.0.0.0", r"listening on 0\.0\.0\.0:(\d+) \(here: http://127\.0\.0\.1:\1/v1\), upstream \S+\."),
        ("::", r"listening on \[::\]:(\d+) \(here: http://\[::1\]:\1/v1\), upstream \S+\."),
    ],
)
def test_the_first_line_says_who_can_reach_the_gateway_and_how(host: str, said: str) -> None:
    with serving("--host", host, GMI_API_KEY=CANARY) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
    assert re.fullmatch(rf"GMI gateway {re.escape(__version__)} {said}\n", line)


def test_the_first_start_prints_an_admin_key_that_works_and_the_next_one_does_not() -> None:
    with serving(GMI_API_KEY=CANARY, GMI_BASE_URL="http://127.0.0.1:9/v1") as process:
        lines = until_curl(process)
        (secret,) = re.findall(r"^Admin key, shown this once: (\S+)$", "\n".join(lines), re.MULTILINE)
        root = re.findall(r"(http://127\.0\.0\.1:\d+)/v1", lines[0])[0]
        created = call("teams", "create", "--name", "core", "--url", root, GATEWAY_ADMIN_KEY=secret)
        stop(process)
    assert is_well_formed(secret)
    assert created.exit_code == 0
    assert secret in lines[-1]
    with serving(GMI_API_KEY=CANARY, GMI_BASE_URL="http://127.0.0.1:9/v1") as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[4].rstrip(",").removesuffix("/v1")
        listed = call("teams", "list", "--json", "--url", url, GATEWAY_ADMIN_KEY=secret)
        _, out, err = stop(process)
    assert [team["name"] for team in json.loads(listed.stdout)] == ["admins", "core"]
    assert "sk-gw-" not in out + err


def test_an_admin_key_of_ones_own_is_taken_and_none_is_made() -> None:
    own = {"GATEWAY_ADMIN_KEY": OWN_KEY, "GMI_API_KEY": CANARY, "GMI_BASE_URL": "http://127.0.0.1:9/v1"}
    with serving(**own) as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[4].rstrip(",").removesuffix("/v1")
        listed = call("keys", "list", "--json", "--url", url, GATEWAY_ADMIN_KEY=OWN_KEY)
        _, out, err = stop(process)
    assert [key["source"] for key in json.loads(listed.stdout)] == ["settings"]
    assert "sk-gw-" not in out + err
    assert OWN_KEY not in out + err


def test_the_simulator_says_where_it_listens_beyond_loopback() -> None:
    keys = json.dumps([{"name": "ann", "team": "core", "secret": OWN_KEY}])
    with serving("--host", "0.0.0.0", GATEWAY_KEYS=keys) as process:
        line = until_curl(process)[-3]
    assert re.match(r"Base URL http://127\.0\.0\.1:(\d+)/v1, listening on 0\.0\.0\.0:\1\. Try it", line)


@pytest.mark.parametrize("host", ["nosuchhost.invalid", "x" * 64])
def test_a_host_that_does_not_resolve_is_one_clear_line(host: str) -> None:
    keys = json.dumps([{"name": "ann", "team": "core", "secret": OWN_KEY}])
    result = run("serve", "--host", host, GATEWAY_KEYS=keys)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith(f"✗ cannot listen on {host}, which does not resolve: ")
    assert result.stderr.count("\n") == 1


def test_serve_warns_of_what_was_hardly_meant_and_starts() -> None:
    with serving(GATEWAY_KEY="x", GMI_API_KEY=CANARY, GMI_BASE_URL="http://127.0.0.1:9") as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[4].removesuffix("/v1,")
        httpx2.get(f"{url}/healthz", trust_env=False)
        code, _, err = stop(process)
    assert code == 0
    assert err == (
        "! GATEWAY_KEY is set and means nothing here; did you mean GATEWAY_KEYS?\n"
        "! upstream.base_url has no path; most APIs sit under /v1: http://127.0.0.1:9/v1\n"
    )


def test_a_refusal_tells_of_misspelt_variables_too() -> None:
    result = run("serve", GATEWAY_LOG_CALLS="some", GATEWAY_KEY="x")
    assert result.returncode == 2
    assert result.stderr.endswith("\n! GATEWAY_KEY is set and means nothing here; did you mean GATEWAY_KEYS?\n")


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


@pytest.mark.parametrize("command", ["check-config", "serve"])
def test_prices_that_cannot_be_read_are_told_a_line_each_and_nothing_starts(command: str) -> None:
    Path("p.yaml").write_text("unit: dollars\nmodels:\n  a: {looked_up: today, input: 1.75}\n")
    result = call(command, GATEWAY_PRICES_FILE="p.yaml")
    assert (result.exit_code, result.stdout) == (2, "")
    lines = result.stderr.splitlines()
    assert len(lines) == 4
    assert [line.split(": ")[0] for line in lines] == ["p.yaml:1", *["p.yaml:3"] * 3]


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
