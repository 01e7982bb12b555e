"""`gmi-gateway serve`: what it prints first, and that it works as printed."""

import json
import re
import shutil
from pathlib import Path

import httpx2
import pytest

from gateway import __version__
from gateway.access.keys import is_well_formed
from gateway.store.sharers import name_of
from tests.cli.conftest import call
from tests.cli.process import CANARY, OWN_KEY, paste, serving, stop, until_curl, without_log
from tests.support.stores import fresh_postgres_url

pytestmark = pytest.mark.usefixtures("store")


def test_without_a_key_serve_runs_the_simulator_says_so_and_prints_a_line_that_works() -> None:
    with serving() as process:
        lines = until_curl(process)
        reply = paste(lines[-1])
        code, _, err = stop(process)
    assert lines[0] == "SIMULATOR: no GMI key is set, so a simulator makes the answers up. No model is asked."
    assert lines[1] == "For the real models, set GMI_API_KEY (or GMI_API_KEY_FILE) and start it again."
    assert reply.status_code == 200
    assert reply.json()["choices"][0]["message"]["content"].startswith("[simulated]")
    assert (code, without_log(err)) == (0, "")
    assert "\x1b" not in "\n".join(lines)


def test_the_first_start_makes_the_database_in_a_folder_for_this_user_alone() -> None:
    shutil.rmtree("data")
    with serving() as process:
        assert paste(until_curl(process)[-1]).status_code == 200
    assert [oct(path.stat().st_mode & 0o777) for path in (Path("data"), Path("data/gateway.db"))] == ["0o700", "0o600"]


def test_two_that_are_started_in_one_folder_take_the_same_demo_key_and_no_other() -> None:
    with serving() as first, serving() as second:
        lines = [until_curl(process)[-1] for process in (first, second)]
        (key,) = {found for line in lines for found in re.findall(r"sk-gw-\w+", line)}
        assert [paste(line).status_code for line in lines] == [200, 200]
        assert paste(lines[0].replace(key, "sk-gw-" + "0" * 38)).status_code == 401
    assert is_well_formed(key)
    assert oct(Path("data/demo.key").stat().st_mode & 0o777) == "0o600"


def test_the_demo_key_works_again_at_the_next_start_and_never_in_front_of_a_real_upstream() -> None:
    Path("data/demo.key").write_text("what is no key\n")
    with serving() as process:
        line = until_curl(process)[-1]
    authorization = re.findall(r"Authorization: (Bearer sk-gw-\w+)", line)[0]
    with serving(GMI_API_KEY=CANARY, GMI_BASE_URL="http://127.0.0.1:9/v1") as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[4].rstrip(",")
        refused = httpx2.get(f"{url}/models", headers={"authorization": authorization}, trust_env=False)
    assert refused.status_code == 401
    with serving("--simulator") as process:
        again = until_curl(process)[-1]
        assert authorization in again
        assert paste(again).status_code == 200


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


def first_lines(**environ: str) -> list[str]:
    """Three lines that a start in front of a real upstream prints first, which files it read left out, and all of
    standard error."""
    with serving(GMI_API_KEY=CANARY, GMI_BASE_URL="http://127.0.0.1:9/v1", **environ) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(4)]
        assert lines.pop(2).startswith("Settings: ")
        code, _, err = stop(process)
    assert code == 0
    return [*lines, without_log(err)]


def test_a_later_start_says_which_admin_key_there_is_and_how_to_get_another_that_works() -> None:
    with serving(GMI_API_KEY=CANARY, GMI_BASE_URL="http://127.0.0.1:9/v1") as process:
        until_curl(process)
    line = first_lines()[2]
    cure = "gmi-gateway keys rotate admins/admin"
    assert line == f"Its admin key (admins/admin) was shown when it was made. Lost? {cure}\n"
    assert is_well_formed(json.loads(call(*cure.split()[1:], "--json").stdout)["secret"])


def test_a_later_start_names_the_admin_key_of_the_settings_or_says_that_none_works() -> None:
    assert first_lines(GATEWAY_ADMIN_KEY=OWN_KEY)[2] == "Its admin key is the one that the settings hold.\n"
    line = first_lines()[2]
    cure = "gmi-gateway keys create --team admins --name NAME --role admin"
    assert line == f"No admin key works any more. Make one: {cure}\n"
    assert call(*cure.split()[1:]).exit_code == 0
    assert first_lines()[2].startswith("Its admin key (admins/NAME) ")


def test_a_start_says_in_full_where_all_is_kept(tmp_path: Path) -> None:
    assert first_lines()[1] == f"All that it keeps is in {tmp_path}/data: the database gateway.db, and journals.\n"
    line = first_lines(GATEWAY_DATABASE_URL="sqlite:///else.db")[1]
    assert line == f"All that it keeps is in sqlite:///{tmp_path}/else.db, and journals in {tmp_path}/data.\n"
    with serving("--simulator") as process:
        assert sum("All that it keeps" in each for each in until_curl(process)) == 1


def test_a_start_says_which_files_it_has_read(tmp_path: Path) -> None:
    def said(**environ: str) -> str:
        with serving("--simulator", **environ) as process:
            return next(line for line in until_curl(process) if line.startswith("Settings: "))

    without = f"Settings: no file, so defaults and environment. Prices: none in {tmp_path}/config/prices.yaml."
    assert said() == without
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "gateway.yaml").write_text("server: {workers: 1}\n")
    (tmp_path / "p.yaml").write_text(
        "unit: microusd_per_million_tokens\nmodels:\n  a: {looked_up: 2026-11-22, input: 1000, output: 1000}\n"
    )
    assert (
        said(GATEWAY_PRICES_FILE="p.yaml")
        == f"Settings: {tmp_path}/config/gateway.yaml. Prices: {tmp_path}/p.yaml (1)."
    )


def test_a_start_with_budgets_and_without_prices_says_that_nothing_draws_on_them() -> None:
    assert first_lines(GATEWAY_ADMIN_KEY=OWN_KEY)[3] == ""
    call("teams", "create", "--name", "core", "--budget-usd", "5/day")
    assert first_lines()[3] == (
        "! budgets are set, but no model has a price, so that no call draws on a budget;"
        " write prices into config/prices.yaml (docs/prices.md)\n"
    )
    Path("p.yaml").write_text(
        "unit: microusd_per_million_tokens\nmodels:\n  a: {looked_up: 2026-11-22, input: 1000, output: 1000}\n"
    )
    assert first_lines(GATEWAY_PRICES_FILE="p.yaml")[3] == ""


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


def test_serve_warns_of_what_was_hardly_meant_and_starts() -> None:
    with serving(GATEWAY_KEY="x", GMI_API_KEY=CANARY, GMI_BASE_URL="http://127.0.0.1:9") as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[4].removesuffix("/v1,")
        httpx2.get(f"{url}/healthz", trust_env=False)
        code, _, err = stop(process)
    assert code == 0
    assert without_log(err) == (
        "! GATEWAY_KEY is set and means nothing here; did you mean GATEWAY_KEYS?\n"
        "! upstream.base_url has no path; most APIs sit under /v1: http://127.0.0.1:9/v1\n"
    )


def test_a_store_that_was_served_with_a_key_is_not_put_before_the_simulator_unless_somebody_says_so() -> None:
    with serving(GMI_API_KEY=CANARY, GMI_BASE_URL="http://127.0.0.1:9/v1") as process:
        until_curl(process)
    with serving() as process:
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (1, "")
    assert without_log(err) == (
        "This gateway was run with a GMI key before, and none is set now: set GMI_API_KEY (or GMI_API_KEY_FILE). To"
        " let the simulator answer all the same, start it with --simulator, or upstream.simulator: true"
        " (GATEWAY_UPSTREAM_SIMULATOR=true).\n"
    )
    assert json.loads(call("keys", "list", "--all", "--team", "admins", "--json").stdout)  # nor is a demo key made
    assert call("keys", "list", "--team", "demo").exit_code == 1
    with serving("--simulator", GMI_API_KEY=CANARY) as process:
        lines = until_curl(process)
        assert paste(lines[-1]).headers["x-simulated"] == "true"
    assert lines[0] == "SIMULATOR: it was asked for, so a simulator makes the answers up. No model is asked."
    with serving(GATEWAY_UPSTREAM_SIMULATOR="true") as process:
        assert paste(until_curl(process)[-1]).status_code == 200


def test_a_start_with_a_key_says_once_that_sums_hold_what_the_simulator_answered() -> None:
    with serving() as process:
        assert paste(until_curl(process)[-1]).status_code == 200
        stop(process)
    assert first_lines()[3] == (
        "! sums and budgets hold calls that the simulator answered; begin anew with another folder or database, or set"
        " budgets back with gmi-gateway limits reset\n"
    )
    assert first_lines()[3] == ""


def test_a_second_gateway_on_one_folder_says_that_limits_do_not_hold_and_so_does_the_doctor() -> None:
    with serving(GMI_API_KEY=CANARY) as first:
        assert first.stdout is not None
        url = first.stdout.readline().split()[4].removesuffix("/v1,")
        port = url.rpartition(":")[2]
        told = (
            f"! another gateway runs on this folder (PID {first.pid}, {url}): without redis.url each admits all that"
            " limits allow; set redis.url for each, or stop all but one\n"
        )
        assert first_lines()[3] == told
        for each in ("0", port):
            said = call("doctor", "--port", each).output
            assert f"✓ a gateway runs on this folder at {url} (PID {first.pid}); its upstream is https://" in said
            assert "another gateway" not in said
            assert "free" not in said
        with serving(GMI_API_KEY=CANARY) as second:
            assert second.stdout is not None
            second.stdout.readline()
            assert f"! another gateway runs on this folder (PID {second.pid}, " in call("doctor", "--port", port).output
            assert "! others run on this folder (" in call("doctor", "--port", "0").output
    assert first_lines()[3] == ""


def test_gateways_that_share_limits_in_redis_may_share_a_folder() -> None:
    with serving(GMI_API_KEY=CANARY) as first:
        assert first.stdout is not None
        first.stdout.readline()
        assert first_lines(GATEWAY_REDIS_URL="redis://127.0.0.1:1")[3] == ""


def test_a_gateway_with_a_folder_of_its_own_tells_of_others_on_its_database_unless_limits_are_in_redis(
    tmp_path: Path,
) -> None:
    on_one = {"GMI_API_KEY": CANARY, "GATEWAY_DATABASE_URL": fresh_postgres_url().render_as_string(hide_password=False)}
    told = f"nother gateway uses this database ({name_of('data').removeprefix('gmi-gateway serve ')})"
    with serving(**on_one) as first:
        assert first.stdout is not None
        url = httpx2.URL(first.stdout.readline().split()[4].rstrip(","))
        assert httpx2.get(f"{url}/models", trust_env=False).status_code == 401  # answered: it has been to the database
        port = str(url.port)
        assert told not in call("doctor", "--port", port, **on_one).output
        own = {**on_one, "GATEWAY_SERVER_STATE_DIR": str(tmp_path / "own")}
        assert f"! a{told}: without redis.url each admits" in call("doctor", "--port", "0", **own).output
        in_redis = call("doctor", "--port", "0", **own, GATEWAY_REDIS_URL="redis://127.0.0.1:1")
        assert told not in in_redis.output
        with serving(**own) as second:
            assert second.stderr is not None
            assert any(told in line for line in second.stderr)
