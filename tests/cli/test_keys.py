"""`gmi-gateway teams`, `keys` and `audit`, on the store of the settings file and on a running gateway."""

import contextlib
import json
import re
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from socket import create_server

import pytest

from gateway.access.keys import is_well_formed
from gateway.cli.printing import differences
from tests.cli.conftest import Run, answer, call, done, plain
from tests.http.admin_server import AdminServer

SECRET = re.compile(r"sk-gw-[0-9A-Za-z]+")


# --- on the store itself


def test_a_key_is_made_and_its_secret_stands_on_a_line_of_its_own(run: Run) -> None:
    done(run("teams", "create", "--name", "engines"))
    lines = done(run("keys", "create", "--team", "engines", "--name", "ada")).splitlines()
    assert lines[-2] == "The secret, shown once:"
    assert is_well_formed(lines[-1])
    shown = (
        done(run("keys", "show", "ada")) + done(run("keys", "list")) + done(run("audit")) + done(run("keys", "export"))
    )
    assert SECRET.search(shown) is None
    assert f"…{lines[-1][-4:]}" in shown


def test_a_script_gets_id_and_secret(run: Run) -> None:
    done(run("teams", "create", "--name", "engines"))
    key = answer(run("keys", "create", "--team", "engines", "--name", "ci", "--json"))
    assert key["id"].startswith("key_")
    assert is_well_formed(key["secret"])
    rotated = answer(run("keys", "rotate", key["id"], "--json"))
    assert is_well_formed(rotated["secret"])
    assert rotated["secret"] != key["secret"]


def test_a_key_without_limits_is_not_said_to_have_none_where_its_team_may(run: Run) -> None:
    done(run("teams", "create", "--name", "engines", "--rpm", "60"))
    done(run("keys", "create", "--team", "engines", "--name", "ada"))
    shown = plain(done(run("keys", "show", "ada")))
    assert "limits none of its own budgets none of its own" in shown
    assert "models any of its team's routes any of its team's networks any of its team's" in shown
    assert "limits 60 requests/min budgets none made" in plain(done(run("teams", "show", "engines")))


@pytest.mark.usefixtures("priced")
def test_every_term_that_is_said_is_in_the_key(run: Run) -> None:
    done(run("teams", "create", "--name", "engines"))
    options = "--models a,b* --routes chat,files --networks 10.0.0.0/8 --rpm 1 --rph 2 --rpd 3 --tpm 4 --tph 5 --tpd 6"
    amounts = "--parallel 7 --max-wait-s 8 --budget-usd 5/day --budget-usd 0.5/total"
    more = "--tag a=b --tag c=d --owner ada --role team_admin"
    words = f"{options} {amounts} {more} --expires 30d --json".split()
    before = int(time.time())
    key = answer(run("keys", "create", "--team", "engines", "--name", "ada", *words))
    assert key["grants"] == {"models": ["a", "b*"], "routes": ["chat", "files"], "networks": ["10.0.0.0/8"]}
    assert list(key["limits"].values()) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert key["budgets"] == {
        "day_microusd": 5_000_000,
        "week_microusd": None,
        "month_microusd": None,
        "total_microusd": 500_000,
    }
    assert (key["tags"], key["owner"], key["role"]) == ({"a": "b", "c": "d"}, "ada", "team_admin")
    assert 0 <= key["expires_at"] - before - 30 * 86_400 <= 60


@pytest.mark.usefixtures("priced")
def test_an_update_leaves_alone_what_is_not_said_and_lifts_what_is_said_so(run: Run) -> None:
    done(run("teams", "create", "--name", "engines", "--model-limit", "openai/*:rpm=5,tpm=9"))
    bound = "--models a --rpm 1 --parallel 7 --budget-usd 5/day --tag a=b --tag c=d --expires 30d"
    done(run("keys", "create", "--team", "engines", "--name", "ada", *bound.split()))
    lifted = "--models any --rpm none --budget-usd none/day --untag a --tag e=f --expires never --name eve --json"
    key = answer(run("keys", "update", "engines/ada", *lifted.split()))
    assert (key["grants"]["models"], key["expires_at"], key["name"]) == (None, None, "eve")
    assert (key["limits"]["requests_per_minute"], key["limits"]["parallel"]) == (None, 7)
    assert (key["budgets"]["day_microusd"], key["tags"]) == (None, {"c": "d", "e": "f"})
    team = answer(run("teams", "update", "engines", "--model-limit", "openai/*:rpm=none", "--json"))
    assert team["model_limits"]["openai/*"]["tokens_per_minute"] == 9
    assert team["model_limits"]["openai/*"]["requests_per_minute"] is None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("keys create --team engines --name x --rpm many", "--rpm: must be a whole number from 1, or none"),
        ("keys create --team engines --name x --models=", "--models: must be names"),
        ("keys create --team engines --name x --budget-usd 5", "--budget-usd: must be dollars"),
        ("keys create --team engines --name x --expires soon", "--expires: must be never"),
        ("keys create --team engines --name x --tag a", "--tag: must be a name"),
        ("keys update ada", "Nothing to change was said"),
        ("keys create --name x", "Missing option '--team'"),
        ("keys list --key x", "--key: goes with --url"),
        ("keys list --url localhost", "--url: must start with http"),
        ("keys list --url http://127.0.0.1:1", "--url: needs a key"),
        ("keys list --url http://127.0.0.1:1 --key-file nowhere", "--key-file: cannot be read"),
        ("keys import nowhere.yaml", "FILE: cannot be read"),
        ("keys list --config nowhere.yaml", "nowhere.yaml: cannot be read"),
        ("audit --since lately", "--since: must be today, yesterday, a time"),
    ],
)
def test_what_cannot_be_understood_is_exit_code_2_and_says_what_to_write(run: Run, words: str, said: str) -> None:
    done(run("teams", "create", "--name", "engines"))
    result = run(*words.split())
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in plain(result.stderr)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("keys revoke nobody", "There is no key nobody in /"),
        ("teams show nobody", "There is no team nobody in /"),
        ("keys show key_00000000000000000000", "There is no such key, or it is not yours to see."),
        ("keys create --team nobody --name x", "There is no team nobody in /"),
        ("teams create --name engines", "engines"),
        ("keys create --team engines --name x --role king", "role: must be 'member', 'team_admin' or 'admin'."),
        ("keys create --team engines --name x --expires 2001-01-01", "expires_at (--expires) must be in the future."),
        ("keys create --team engines --name x --routes caht", "grants.routes (--routes): each must be one of"),
        ("keys list --sort size", "sort: must be"),
    ],
)
def test_what_is_refused_is_exit_code_1_and_one_sentence_with_the_cure(run: Run, words: str, said: str) -> None:
    done(run("teams", "create", "--name", "engines"))
    result = run(*words.split())
    assert (result.exit_code, result.stdout) == (1, "")
    assert said in result.stderr
    assert result.stderr.endswith(".\n")
    assert result.stderr.count("\n") == 1


def test_a_key_is_found_by_its_name_where_that_names_one(run: Run) -> None:
    for team in ("engines", "tools"):
        done(run("teams", "create", "--name", team))
        done(run("keys", "create", "--team", team, "--name", "ada"))
    assert answer(run("keys", "show", "tools/ada", "--json"))["team"] == "tools"
    result = run("keys", "show", "ada")
    assert result.exit_code == 1
    assert result.stderr.startswith("Several keys are called ada: ")
    done(run("keys", "revoke", "tools/ada"))
    assert answer(run("keys", "show", "ada", "--json"))["team"] == "engines"


def test_a_revoked_key_is_still_found_by_its_name_to_look_at_it_and_the_one_revoked_last_first(run: Run) -> None:
    done(run("teams", "create", "--name", "engines"))
    ids = []
    for _ in range(2):
        ids.append(answer(run("keys", "create", "--team", "engines", "--name", "ada", "--json"))["id"])
        done(run("keys", "revoke", "engines/ada"))
        with contextlib.closing(sqlite3.connect("data/gateway.db")) as database, database:
            database.execute("UPDATE keys SET updated_at = updated_at - 9 WHERE id = ?", (ids[0],))
    shown = answer(run("keys", "show", "ada", "--json"))
    assert (shown["id"], shown["state"]) == (ids[1], "revoked")
    assert {entry["object_id"] for entry in answer(run("audit", "--key-of", "engines/ada", "--json"))} == {ids[1]}
    assert done(run("usage", "--key-of", "ada"))
    for words in (("rotate",), ("enable",), ("update", "--role", "admin")):
        refused = run("keys", words[0], "ada", *words[1:])
        assert (refused.exit_code, refused.stdout) == (1, "")
        assert refused.stderr == f"The key ada was revoked, for good. See gmi-gateway keys show {ids[1]}.\n"
    third = answer(run("keys", "create", "--team", "engines", "--name", "ada", "--json"))
    assert answer(run("keys", "show", "ada", "--json"))["id"] == third["id"]


def test_of_revoked_keys_of_one_name_in_several_teams_it_is_asked_which(run: Run) -> None:
    ids = {}
    for team in ("engines", "tools"):
        done(run("teams", "create", "--name", team))
        ids[team] = answer(run("keys", "create", "--team", team, "--name", "ada", "--json"))["id"]
        done(run("keys", "revoke", f"{team}/ada"))
    for words in (("keys", "show", "ada"), ("usage", "--key-of", "ada"), ("audit", "--key-of", "ada")):
        refused = run(*words)
        assert (refused.exit_code, refused.stdout) == (1, "")
        assert (
            refused.stderr
            == "Several keys are called ada: engines/ada, tools/ada. Say which, with its team or by its id.\n"
        )
    assert "was revoked, for good" in run("keys", "rotate", "ada").stderr
    for team, key_id in ids.items():
        assert answer(run("keys", "show", f"{team}/ada", "--json"))["id"] == key_id


def test_of_keys_that_were_revoked_within_a_second_the_last_is_found(run: Run) -> None:
    done(run("teams", "create", "--name", "engines"))
    for _ in range(5):
        made = answer(run("keys", "create", "--team", "engines", "--name", "ada", "--json"))["id"]
        done(run("keys", "revoke", "engines/ada"))
        with contextlib.closing(sqlite3.connect("data/gateway.db")) as database, database:
            database.execute("UPDATE keys SET created_at = 1790000000, updated_at = 1790000000")
        assert answer(run("keys", "show", "ada", "--json"))["id"] == made


def test_no_key_is_taken_for_another_teams_by_its_name(run: Run) -> None:
    for team in ("eng", "mal", "a/b"):
        done(run("teams", "create", "--name", team))
    refused = run("keys", "create", "--team", "mal", "--name", "eng/ada")
    assert refused.exit_code == 1
    assert "name must hold no slash" in refused.stderr
    squat = answer(run("keys", "create", "--team", "mal", "--name", "x", "--json"))
    with contextlib.closing(sqlite3.connect("data/gateway.db")) as database, database:
        # As it was made before slashes were refused.
        database.execute("UPDATE keys SET name = 'eng/ada' WHERE id = ?", (squat["id"],))
    assert "There is no key eng/ada" in run("keys", "update", "eng/ada", "--role", "admin").stderr
    for name in (squat["id"], "mal/eng/ada"):
        assert answer(run("keys", "show", name, "--json"))["role"] == "member"
    ada = answer(run("keys", "create", "--team", "a/b", "--name", "ada", "--json"))
    assert answer(run("keys", "disable", "a/b/ada", "--json"))["id"] == ada["id"]


@pytest.mark.parametrize("name", ["ci", "/disable?", "x/../y?z#w", "0123456789abcdefghi/", "%2F", "ä 名"])
def test_a_name_that_only_begins_as_an_id_does_is_a_name(run: Run, name: str) -> None:
    team, key = f"team_{name}", f"key_{name.replace('/', '.')}"
    done(run("teams", "create", "--name", team))
    made = answer(run("keys", "create", "--team", team, "--name", key, "--json"))
    assert answer(run("keys", "show", key, "--json"))["id"] == made["id"]
    assert answer(run("keys", "disable", f"{team}/{key}", "--json"))["state"] == "disabled"
    assert answer(run("teams", "show", team, "--json"))["state"] == "active"
    assert answer(run("teams", "disable", team, "--json"))["name"] == team


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("teams disable team_blue/disable?", "There is no team team_blue/disable? in /"),
        ("teams show team_x/../y?z#w", "There is no team team_x/../y?z#w in /"),
        ("keys show key_ci?", "There is no key key_ci? in /"),
    ],
)
def test_what_is_no_id_gets_into_no_path(run: Run, words: str, said: str) -> None:
    result = run(*words.split())
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(said)


def test_lists_come_whole_however_many_there_are(run: Run) -> None:
    keys = "".join(f"  - name: k{number:03}\n" for number in range(205))
    done(run("keys", "import", "-", feed=f"teams:\n- name: engines\n  keys:\n{keys}"))
    names = [key["name"] for key in answer(run("keys", "list", "--team", "engines", "--json"))]
    assert names == [f"k{number:03}" for number in range(205)]
    assert len(answer(run("keys", "list", "--limit", "3", "--json"))) == 3
    assert len(done(run("keys", "list", "--team", "engines")).splitlines()) == 207


@pytest.mark.usefixtures("priced")
def test_tables_show_money_times_and_terms_as_people_write_them(run: Run) -> None:
    done(run("teams", "create", "--name", "engines", "--budget-usd", "1234.5/month", "--rpm", "60000"))
    shown = done(run("teams", "show", "engines"))
    assert "$1,234.50/month" in shown
    assert "60,000 requests/min" in shown


@pytest.fixture
def _west() -> Iterator[None]:
    """This machine stands five hours west of Greenwich."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "EST5")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("_west")
def test_times_are_told_in_utc_wherever_they_were_typed(run: Run) -> None:
    done(run("teams", "create", "--name", "engines"))
    done(run("keys", "create", "--team", "engines", "--name", "ada", "--expires", "2127-01-31"))
    done(run("keys", "update", "ada", "--expires", "2127-01-31T12:00"))
    told = [done(run(*words.split())) for words in ("keys show ada", "keys list", "audit", "teams list")]
    assert re.search(r"^expires +2127-01-31 17:00Z$", told[0], re.MULTILINE)
    assert told[1].rstrip().endswith("never       2127-01-31 17:00Z")
    assert "expires_at 2127-02-01 04:59Z → 2127-01-31 17:00Z" in told[2]
    times = re.findall(r"\d{4}-\d\d-\d\d \S+", "".join(told))
    assert [each for each in times if not re.fullmatch(r".{10} \d\d:\d\d(:\d\d)?Z,?", each)] == []


def test_names_are_shown_as_they_are_and_colour_nothing(run: Run) -> None:
    done(run("teams", "create", "--name", "[red]x[/red] :smile:"))
    shown = done(run("teams", "list"))
    assert "[red]x[/red] :smile:" in shown
    assert "\x1b" not in shown


def test_the_audit_log_says_who_did_what_to_what(run: Run) -> None:
    done(run("teams", "create", "--name", "engines"))
    done(run("keys", "create", "--team", "engines", "--name", "ada", "--parallel", "4"))
    done(run("keys", "update", "ada", "--parallel", "8", "--expires", "2127-01-31"))
    lines = done(run("audit")).splitlines()
    assert "limits.parallel 4 → 8" in lines[2]
    assert "expires_at none → 2127-01-31 23:59Z" in lines[2]
    assert [re.split(r" {2,}", line)[1:3] for line in lines[2:]] == [
        ["cli", "key.update"],
        ["cli", "key.create"],
        ["cli", "team.create"],
    ]
    assert [re.split(r" {2,}", line)[3].partition(" (")[0] for line in lines[2:]] == [
        "engines/ada",
        "engines/ada",
        "engines",
    ]
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ ", line) for line in lines[2:])
    assert [entry["action"] for entry in answer(run("audit", "--key-of", "ada", "--json"))] == [
        "key.update",
        "key.create",
    ]
    assert answer(run("audit", "--until", "2020-01-01", "--json")) == []
    assert len(answer(run("audit", "--since", "1h", "--action", "team", "--json"))) == 1


def test_a_grant_that_was_lifted_or_taken_reads_in_the_audit_log_as_where_the_key_is_shown(run: Run) -> None:
    done(run("teams", "create", "--name", "engines"))
    done(run("keys", "create", "--team", "engines", "--name", "ada", "--networks", "10.20.0.0/16"))
    done(run("keys", "update", "ada", "--networks", "any"))
    assert "grants.networks 10.20.0.0/16 → any " in done(run("audit")).splitlines()[2]
    assert differences({"grants": {"routes": None}}, {"grants": {"routes": []}}) == "grants.routes any → nothing"


def test_an_export_can_be_imported_elsewhere(run: Run, tmp_path: Path) -> None:
    done(run("teams", "create", "--name", "engines", "--models", "openai/*"))
    done(run("keys", "create", "--team", "engines", "--name", "ada", "--owner", "on"))
    done(run("keys", "export", "--output", "out.yaml"))
    assert done(run("keys", "export")) == (tmp_path / "out.yaml").read_text("utf-8")
    done(run("teams", "create", "--name", "others"))
    assert done(run("keys", "export", "--team", "engines")) == (tmp_path / "out.yaml").read_text("utf-8")
    exported = answer(run("keys", "export", "--json"))
    assert exported["teams"][0]["keys"][0]["owner"] == "on"
    (tmp_path / "new.yaml").write_text(f"server: {{state_dir: {tmp_path / 'new'}}}\n")
    done(run("migrate", "--config", "new.yaml"))
    dry = done(run("keys", "import", "out.yaml", "--dry-run", "--config", "new.yaml"))
    assert dry.endswith("2 made or changed, 0 as the file says already. This was a dry run: nothing was done.\n")
    assert SECRET.search(dry) is None
    imported = done(run("keys", "import", "out.yaml", "--config", "new.yaml"))
    assert len(SECRET.findall(imported)) == 1
    assert answer(run("keys", "import", "out.yaml", "--config", "new.yaml", "--json"))["unchanged"] == 2


@pytest.mark.parametrize("words", ["migrate", "keys list"])
def test_a_database_that_is_away_is_one_sentence_without_its_password(words: str) -> None:
    with create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    url = f"postgresql://me:canary-password@127.0.0.1:{port}/gateway"
    result = call(*words.split(), GATEWAY_DATABASE_URL=url)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("The database postgresql://")
    assert result.stderr.endswith("Run gmi-gateway doctor.\n")
    assert "canary-password" not in result.stderr


# --- on a running gateway


def test_the_same_commands_work_on_a_running_gateway(server: AdminServer) -> None:
    where = {"GATEWAY_URL": f"{server.url}/v1", "GATEWAY_ADMIN_KEY": server.secret}
    done(call("teams", "create", "--name", "engines", **where))
    key = answer(call("keys", "create", "--team", "engines", "--name", "ada", "--json", **where))
    assert server.client(key["secret"]).get("/me").status_code == 200
    done(call("keys", "revoke", "engines/ada", **where))
    assert server.client(key["secret"]).get("/me").status_code == 401
    entry = done(call("audit", "--limit", "1", **where)).splitlines()[2]
    assert "admins/admin" in entry
    assert "127.0.0.1" in entry


def test_the_key_may_stand_in_a_file(server: AdminServer, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(server.secret + "\n")
    assert len(answer(call("keys", "list", "--url", server.url, "--key-file", "key", "--json"))) == 1


def test_a_refusal_names_the_option_beside_the_member_of_the_api(server: AdminServer) -> None:
    admin = {"GATEWAY_URL": server.url, "GATEWAY_ADMIN_KEY": server.secret}
    done(call("teams", "create", "--name", "engines", **admin))
    held = ("--role", "team_admin", "--rpm", "5", "--max-wait-s", "2", "--expires", "30d")
    lead = answer(call("keys", "create", "--team", "engines", "--name", "lead", *held, "--json", **admin))
    own = {"GATEWAY_URL": server.url, "GATEWAY_ADMIN_KEY": lead["secret"]}
    ada = ("keys", "create", "--team", "engines", "--name", "ada")
    more = "Nobody hands out more than they have"
    for given, said in (
        ((), "requests_per_minute (--rpm) must be set, to 5 at most."),
        (("--rpm=5", "--max-wait-s=3", "--expires=1d"), "max_wait_s (--max-wait-s) must be set, to 2 at most."),
        (("--rpm=5", "--max-wait-s=2"), f"expires_at (--expires) must be {lead['expires_at']} at the latest,"),
    ):
        result = call(*ada, *given, **own)
        assert result.exit_code == 1
        assert result.stderr.startswith(f"{more}: {said}")


def test_a_team_admin_uses_the_same_commands_within_the_team(server: AdminServer) -> None:
    admin = {"GATEWAY_URL": server.url, "GATEWAY_ADMIN_KEY": server.secret}
    done(call("teams", "create", "--name", "engines", **admin))
    lead = answer(
        call("keys", "create", "--team", "engines", "--name", "lead", "--role", "team_admin", "--json", **admin)
    )
    own = {"GATEWAY_URL": server.url, "GATEWAY_ADMIN_KEY": lead["secret"]}
    done(call("keys", "create", "--team", "engines", "--name", "ada", **own))
    assert [key["name"] for key in answer(call("keys", "list", "--json", **own))] == ["ada", "lead"]
    result = call("keys", "create", "--team", "engines", "--name", "boss", "--role", "admin", **own)
    assert result.exit_code == 1
    assert "Nobody hands out more than they have" in result.stderr
    assert "engines/lead" in done(call("audit", **own))


def test_a_member_sees_and_rotates_their_own_key_by_its_name_and_no_other(server: AdminServer) -> None:
    admin = {"GATEWAY_URL": server.url, "GATEWAY_ADMIN_KEY": server.secret}
    done(call("teams", "create", "--name", "engines", **admin))
    eve, ada = (
        answer(call("keys", "create", "--team", "engines", "--name", name, "--json", **admin))
        for name in ("eve", "ada")
    )
    own = {"GATEWAY_URL": server.url, "GATEWAY_ADMIN_KEY": eve["secret"]}
    assert answer(call("keys", "show", "engines/eve", "--json", **own))["id"] == eve["id"]
    for name in ("ada", "engines/ada", ada["id"]):
        assert call("keys", "show", name, **own).exit_code == 1
    own["GATEWAY_ADMIN_KEY"] = answer(call("keys", "rotate", "eve", "--json", **own))["secret"]
    assert answer(call("keys", "show", eve["id"], "--json", **own))["state"] == "active"
    refused = call("keys", "disable", "eve", **own)
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "commands take its name (keys show NAME)" in call("keys", "list", **own).stderr


def test_a_key_that_is_not_taken_is_told_with_the_cure(server: AdminServer) -> None:
    result = call("keys", "list", "--url", server.url, "--key", "sk-gw-canary")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        f"{server.url} does not take this key. "
        "Put an admin key into GATEWAY_ADMIN_KEY, or name its file with --key-file.\n"
    )


def test_a_gateway_that_is_not_there_is_told_with_the_cure() -> None:
    with create_server(("127.0.0.1", 0)) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
    result = call("keys", "list", "--url", url, GATEWAY_ADMIN_KEY="x", HTTP_PROXY="http://127.0.0.1:1")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"{url} cannot be reached (")
    assert result.stderr.endswith("Is the gateway running there?\n")


def test_what_is_no_gateway_is_told(server: AdminServer) -> None:
    result = call("keys", "list", "--url", f"{server.url}/docs", GATEWAY_ADMIN_KEY=server.secret)
    assert result.exit_code == 1
    assert "Invalid URL" in result.stderr


# --- the frame


def test_every_command_speaks_json_where_it_shows_anything() -> None:
    for group in ("teams", "keys", "limits", "calls", "alerts"):
        for name in re.findall(r"^│ (\w+) ", done(call(group, "--help")), re.MULTILINE):
            assert "--json" in done(call(group, name, "--help")), (group, name)
    for name in ("audit", "migrate", "doctor", "check-config", "version", "usage", "tail"):
        assert "--json" in done(call(name, "--help"))


def test_json_is_whole_and_plain(run: Run) -> None:
    done(run("teams", "create", "--name", "Düsentrieb"))
    text = done(run("teams", "show", "Düsentrieb", "--json"))
    assert "Düsentrieb" in text
    assert json.loads(text)["object"] == "team"
