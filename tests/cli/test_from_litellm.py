"""docs/from-litellm.md is true: its names exist here, and its script brings keys over, from tables like LiteLLM's."""

import asyncio
import re
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import asyncpg  # type: ignore[import-untyped]
import yaml

from gateway.store.url import dsn
from tests.cli.conftest import ROOT, Run, answer, call, done
from tests.support.stores import empty_postgres_url

PAGE = (ROOT / "docs" / "from-litellm.md").read_text("utf-8")
COLUMNS = """
    models text[], max_parallel_requests integer, tpm_limit bigint, rpm_limit bigint, max_budget double precision,
    budget_duration text, blocked boolean, metadata jsonb DEFAULT '{}'
"""
TABLES = f"""
CREATE TABLE "LiteLLM_TeamTable" (team_id text PRIMARY KEY, team_alias text, {COLUMNS});
CREATE TABLE "LiteLLM_VerificationToken"
    (token text PRIMARY KEY, key_name text, key_alias text, expires timestamp(3), user_id text, team_id text,
    {COLUMNS});
INSERT INTO "LiteLLM_TeamTable" VALUES ('t-1', 'engines', '{{openai/*}}', NULL, 9, 8, 500.5, '30d', false);
INSERT INTO "LiteLLM_TeamTable" VALUES ('t-2', NULL, '{{}}', NULL, NULL, NULL, NULL, NULL, true);
INSERT INTO "LiteLLM_TeamTable" VALUES ('t-3', '🚀', '{{}}', NULL, NULL, 7, 9, NULL, NULL);
INSERT INTO "LiteLLM_TeamTable" VALUES ('t-4', '🚀', '{{}}', NULL, NULL, NULL, 5, NULL, NULL);
INSERT INTO "LiteLLM_TeamTable" VALUES ('t-6', 'hourly', '{{}}', NULL, NULL, NULL, 5, '1h', NULL);
INSERT INTO "LiteLLM_TeamTable" VALUES ('t-5', 'none', '{{}}', NULL, NULL, 0, NULL, NULL, NULL);
"""
KEY = """
INSERT INTO "LiteLLM_VerificationToken" (token, key_name, key_alias, expires, user_id, team_id, models, blocked,
    max_budget, max_parallel_requests) VALUES ($1, $2, $3, $4::text::timestamp, $5, $6, $7, $8, $9, $10)
"""


def secret_hash(secret: str) -> str:
    return sha256(secret.encode()).hexdigest()


ROWS: list[tuple[Any, ...]] = [
    (secret_hash("sk-ada"), "sk-...-ada", "eng/ada", "2126-01-31 18:00:00.123", "ada", "t-1", ["x"], None, 5.0, 3),
    (secret_hash("sk-bob"), "my key", None, None, None, "t-1", ["all-team-models"], True, None, None),
    (secret_hash("sk-eve"), None, "eve", "2020-01-31 18:00:00", None, "t-1", [], None, None, None),
    (secret_hash("sk-solo"), None, "solo", None, None, None, [], False, None, None),
    (secret_hash("sk-none"), None, "none 🚀", None, None, "t-4", [], False, 3.0, 0),
    (secret_hash("sk-poor"), None, "poor", None, None, "t-3", [], False, 0.0, None),
]


def block(language: str) -> str:
    (found,) = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    return str(found)


async def exported() -> str:
    """What the page's statement says of such tables."""
    connection = await asyncpg.connect(dsn(empty_postgres_url()))
    try:
        await connection.execute(TABLES)
        await connection.executemany(KEY, ROWS)
        return str(await connection.fetchval(block("sql")))
    finally:
        await connection.close()


def turned(folder: Path, script: str = block("python")) -> str:
    """What the page's script says in `folder`, where it turns what is exported into files."""
    (folder / "litellm.json").write_text(asyncio.run(exported()), "utf-8")
    command = [sys.executable, "-X", "utf8=0", "-c", script]
    done = subprocess.run(
        command,
        cwd=folder,
        check=True,
        timeout=30,
        capture_output=True,
        env={"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "utf-8"},
    )
    return done.stdout.decode()


def test_keys_come_over_with_their_secrets_and_terms(run: Run, tmp_path: Path) -> None:
    said = turned(tmp_path)
    files = sorted(tmp_path.glob("import-*.json"))
    assert [file.stat().st_mode & 0o777 for file in files] == [0o600] * 7
    for file in files:
        made = answer(run("keys", "import", str(file), "--json"))["made_keys"]
        assert {key["secret"] for key in made} <= {None}
    text = done(run("keys", "export", "--with-digests"))
    teams = {team["name"]: team for team in yaml.safe_load(text)["teams"]}
    keys = {f"{name}/{key['name']}": key for name, team in teams.items() for key in team["keys"]}
    assert set(teams) == {"engines", "t-2", "litellm", "🚀", "none", "hourly"}
    of_rockets = {"🚀/none 🚀", "🚀/poor"}
    assert set(keys) == {"engines/eng-ada", f"engines/{secret_hash('sk-bob')[:12]}", "litellm/solo"} | of_rockets
    engines, ada, bob = teams["engines"], keys["engines/eng-ada"], keys[f"engines/{secret_hash('sk-bob')[:12]}"]
    assert engines["limits"] == {"requests_per_minute": 8, "tokens_per_minute": 9}
    assert (engines["budgets"], engines["grants"]) == ({"month_microusd": 500_500_000}, {"models": ["openai/*"]})
    assert (teams["t-2"]["state"], bob["state"], bob["grants"], bob["hint"]) == ("disabled", "disabled", {}, "")
    assert (ada["secret_sha256"], ada["hint"], ada["owner"]) == (secret_hash("sk-ada"), "", "ada")
    assert (ada["limits"], ada["budgets"]) == ({"parallel": 3}, {"total_microusd": 5_000_000})
    assert str(ada["expires_at"]).startswith("2126-01-31")
    refused = {**{name: keys[name] for name in of_rockets}, "none": teams["none"]}
    assert {each["state"] for each in refused.values()} == {"disabled"}
    names = ("none", "none 🚀", "poor")
    assert said.splitlines() == [
        "hourly: no budget by 1h here, so it is one by day",
        *(f"{name}: a limit or budget of 0, so it is disabled" for name in names),
    ]
    assert teams["hourly"]["budgets"] == {"day_microusd": 5_000_000}
    assert keys["🚀/none 🚀"]["budgets"] == {"total_microusd": 3_000_000}
    rockets = teams["🚀"]
    assert (rockets["limits"], rockets["budgets"]) == ({"requests_per_minute": 7}, {"total_microusd": 5_000_000})


def test_hints_come_where_they_are_asked_for_and_the_files_are_read_whatever_the_locale(tmp_path: Path) -> None:
    turned(tmp_path, block("python").replace("HINTS = False", "HINTS = True"))
    assert '"hint": "-ada"' in (tmp_path / "import-1.json").read_text("utf-8")
    assert '"hint": ""' not in (tmp_path / "import-1.json").read_text("utf-8")


def test_the_options_that_the_page_names_exist() -> None:
    commands = ("keys create", "teams create", "keys import")
    helps = " ".join(done(call(*words.split(), "--help")) for words in commands)
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", PAGE))
    assert len(named) > 5
    assert {option for option in named if option not in helps} == set()
