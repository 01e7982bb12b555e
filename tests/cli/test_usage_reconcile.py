"""`gmi-gateway usage reconcile`: a provider's account beside the ledger, and what its exit code says."""

from pathlib import Path

import pytest

from gateway.call import Usage
from tests.cli.conftest import Run, answer, done
from tests.cli.ledger import a_key, put
from tests.metering.ledger import record

HEAD = "date,model,input_tokens,output_tokens,cost_usd"
TODAY = "2026-11-22"
"""The day of the calls."""


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.split("  ") if cell.strip()]


@pytest.fixture
def ledger(run: Run) -> Run:
    """Runs commands where two calls of one model used 2,000 and 100 tokens, for $3, on one day."""
    ada = a_key(run, "engines", "ada")
    used = {"principal": ada, "usage": Usage(1_000, 50, 1_050), "cost_microusd": 1_500_000}
    put(record(f"req_{number}", **used) for number in range(2))
    return run


def export(*rows: str, head: str = HEAD) -> str:
    Path("export.csv").write_text("\n".join([head, *rows, ""]), "utf-8")
    return "export.csv"


def test_what_agrees_is_said_to(ledger: Run) -> None:
    file = export(f"{TODAY},openai/gpt-5.2,2000,100,3")
    lines = done(ledger("usage", "reconcile", file)).splitlines()
    assert [cells(line) for line in lines[2:]] == [
        ["total", "input", "2,000", "2,000", "0"],
        ["total", "output", "100", "100", "0"],
        ["total", "cost", "$3.00", "$3.00", "$0.00"],
        ["None of 1 days and models, each by itself, drifts by more than 1 %."],
    ]


def test_drift_is_shown_and_is_exit_code_1_above_the_tolerance(ledger: Run) -> None:
    file = export(f"{TODAY},openai/gpt-5.2,2010,100,2.4")
    result = ledger("usage", "reconcile", file)
    assert (result.exit_code, result.stderr) == (1, "")
    lines = result.stdout.splitlines()
    assert [cells(line) for line in lines[2:4]] == [
        [TODAY, "openai/gpt-5.2", "input", "2,010", "2,000", "-10", "-0.50 %"],
        [TODAY, "openai/gpt-5.2", "cost", "$2.40", "$3.00", "+$0.60", "+25.00 %"],
    ]
    assert lines[-1] == "1 of 1 days and models, each by itself, drift by more than 1 %."
    assert ledger("usage", "reconcile", file, "--tolerance", "25").exit_code == 0
    assert ledger("usage", "reconcile", file, GATEWAY_RECONCILE_TOLERANCE_PERCENT="25").exit_code == 0


def test_what_only_one_side_knows_is_drift(ledger: Run) -> None:
    result = ledger("usage", "reconcile", export(f"{TODAY},other,5,5,1"), "--json", "--tolerance", "100")
    assert result.exit_code == 1
    assert '"percent": null' in result.stdout
    shown = ledger("usage", "reconcile", export(f"{TODAY},other,5,5,1")).stdout
    assert "no calls" in shown
    assert "not theirs" in shown


def test_columns_are_those_of_the_settings(ledger: Run) -> None:
    Path("config").mkdir()
    names = "day_column: Day, model_column: Model, input_tokens_column: null, output_tokens_column: Completion tokens"
    Path("config/gateway.yaml").write_text(f"reconcile: {{{names}, cost_column: null}}\n", "utf-8")
    file = export(f"{TODAY}T10:00:00Z,100,openai/gpt-5.2", head="Day,Completion tokens,Model")
    told = answer(ledger("usage", "reconcile", file, "--json"))
    equal = {"provider": 100, "ledger": 100, "difference": 0, "percent": 0.0}
    counts = {"calls": 2, "estimated_calls": 0, "unknown_calls": 0, "unpriced_calls": 0}
    row = {"day": TODAY, "model": "openai/gpt-5.2", "output_tokens": equal, **counts}
    assert told == {"tolerance_percent": 1.0, "is_within": True, "data": [row], "totals": {"output_tokens": equal}}


def test_a_bad_file_is_named_with_its_lines_and_is_exit_code_2(run: Run) -> None:
    result = run("usage", "reconcile", export(f"{TODAY},m,1,1,1", "yesterday,m,1,1,1", f"{TODAY},m,many,1,1"))
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.splitlines() == [
        "export.csv: line 3: date must be a date such as 2026-11-22, or a time, and is 'yesterday'",
        "export.csv: line 4: input_tokens must be a whole number such as 1200, and is 'many'",
        "The settings reconcile.*_column say what the columns are called.",
    ]


@pytest.mark.parametrize("day", ["1970-01-01", "2997-12-31", "1970-01-01T00:00:00+14:00", "2997-12-31T23:59:59-12:00"])
@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "Etc/GMT+12"])
def test_the_first_and_the_last_days_are_compared_or_named_with_their_line(run: Run, day: str, zone: str) -> None:
    file = export(f"{day},m,1,1,1e-999999")
    result = run("usage", "reconcile", file, "--tolerance", "100", GATEWAY_LIMITS_TIME_ZONE=zone)
    is_compared = (result.exit_code, result.stderr) == (0, "")
    is_named = result.exit_code == 2 and result.stderr.startswith("export.csv: line 2: date must be a date")
    assert is_compared or is_named, result.output


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "export.csv cannot be read: No such file or directory."),
        (b"", "export.csv: line 1: must name the columns"),
        (b"\xff\xfe1", "export.csv: line 1 or later: is not UTF-8"),
        (b"\x00\n1", "export.csv: line 1: has no column date"),
    ],
)
def test_what_is_no_such_file_is_refused(run: Run, content: bytes | None, message: str) -> None:
    if content is not None:
        Path("export.csv").write_bytes(content)
    result = run("usage", "reconcile", "export.csv")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(message)
