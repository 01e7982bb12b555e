"""What a terminal gets: nothing that it would obey, whatever clients called things, and no word in two pieces."""

import contextlib
import csv
import io
import json
import os
import pty
import re
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.call import Principal
from gateway.cli.fitting import GAP, Layout, fitted, longest_word
from gateway.cli.printing import Printer, json_text, visible
from tests.cli.conftest import Run, done
from tests.cli.ledger import a_key, call_of, put
from tests.cli.process import command

EVIL = "m\x1b]0;owned\x07\x1b[2J\x9b31m\u202eevil\u2028\u200b\U000e0041\x7f\r\nforged line  200  done"
SHOWN = r"m\x1b]0;owned\x07\x1b[2J\x9b31m\u202eevil\u2028\u200b\U000e0041\x7f\r\nforged line  200  done"
TEXTS = st.text(st.characters(codec="utf-8")) | st.sampled_from([EVIL, EVIL * 9])
Print = Callable[[Printer, str], None]
COMMANDS = [
    "calls list",
    "calls show req_evil",
    "usage --by model,tag:job",
    "usage --by model,tag:job --csv",
    "usage reconcile export.csv",
]


def is_harmless(text: str) -> bool:
    """Whether it has visible characters alone, and ends of lines."""
    return all(line.isprintable() for line in text.split("\n"))


@pytest.fixture
def evil(run: Run, tmp_path: Any) -> Principal:
    """A key whose call has such a model, such an error, and such a tag."""
    ada = a_key(run, "engines", "ada")
    ill: dict[str, Any] = {
        "outcome": "failed",
        "status": 400,
        "error": EVIL,
        "upstream_error": EVIL,
        "upstream_request_id": EVIL,
    }
    put([call_of(ada, "req_evil", model=EVIL, tags={"job": EVIL}, **ill)])
    head = "date,model,input_tokens,output_tokens,cost_usd"
    (tmp_path / "export.csv").write_text(f'{head}\n2026-11-22,"{EVIL}",1,1,1\n', "utf-8", newline="")
    return ada


# --- nothing that a terminal would obey


@pytest.mark.usefixtures("evil")
@pytest.mark.parametrize("words", [*COMMANDS, *(f"{words} --json" for words in COMMANDS if "--csv" not in words)])
def test_no_command_prints_what_a_terminal_would_obey(run: Run, words: str) -> None:
    printed = run(*words.split()).stdout
    assert "forged" in printed
    assert is_harmless(printed)


@pytest.mark.usefixtures("evil")
@pytest.mark.parametrize("words", [(), ("--json",)])
def test_nor_does_tail(words: Sequence[str]) -> None:
    process = subprocess.Popen(command("tail", *words), stdout=subprocess.PIPE, text=True, encoding="utf-8")
    with process:
        assert process.stdout is not None
        line = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
    assert "forged" in line
    assert is_harmless(line)
    assert rest == ""


@pytest.mark.usefixtures("evil")
def test_scripts_get_every_character_of_it(run: Run) -> None:
    (told,) = json.loads(done(run("calls", "list", "--json")))
    assert (told["model"], told["error"], told["tags"]) == (EVIL, EVIL, {"job": EVIL})
    (row,) = csv.DictReader(io.StringIO(done(run("usage", "--by", "model", "--csv"))))
    assert row["model"] == SHOWN


def test_a_refusal_quotes_nothing_that_a_terminal_would_obey(run: Run) -> None:
    result = run("calls", "show", "\x1b[2J\u202e")
    assert (result.exit_code, is_harmless(result.stderr)) == (1, True)
    assert r"There is no call \x1b[2J\u202e in " in result.stderr


@given(TEXTS)
@example("\x00\x1b\x7f\x85\x9b\xad\u061c\u202e\u2066\u2069\ufeff\U000e0001")
@pytest.mark.parametrize(
    "to_print",
    [
        lambda printer, text: printer.line(text),
        lambda printer, text: printer.facts([("model", text), ("tags", text)]),
        lambda printer, text: printer.rows(("id", "what", "n"), [("1", text, text)], numbers=("n",), prose=("what",)),
        lambda printer, text: printer.rows(("id", "model"), [(text, text)], least=("model",)),
        lambda printer, text: printer.secrets([(text, "sk-gw-x")]),
        lambda printer, text: printer.json({text: [text]}),
    ],
    ids=["line", "facts", "prose", "rows", "secrets", "json"],
)
def test_whatever_is_printed_is_harmless(to_print: Print, text: str) -> None:
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdout", printed)
        to_print(Printer(as_json=False), text)
    assert is_harmless(printed.getvalue())


@given(TEXTS)
def test_what_is_visible_stays_as_it_is_and_json_means_the_same(text: str) -> None:
    assert visible(text).isprintable()
    assert visible(text) == text or not text.isprintable()
    assert json.loads(json_text({text: text})) == {text: text}
    assert "Düsentrieb 東京" in json_text("Düsentrieb 東京")


# --- narrow windows


CELLS = st.lists(st.text("ab €東", min_size=1, max_size=40), min_size=4, max_size=4)


@given(rows=st.lists(CELLS, max_size=6), room=st.integers(1, 140))
def test_a_table_fits_with_whole_words_and_its_first_columns(rows: list[list[str]], room: int) -> None:
    headings = ("id", "name", "what happened", "n")
    layout = Layout(numbers=("n",), prose=("what happened",), least=("n", "what happened"))
    widths = fitted(headings, rows, layout, room)
    if widths is None:
        return
    assert sum(widths.values()) + GAP * (len(widths) - 1) <= room
    assert list(widths) == [heading for heading in headings if heading in widths]
    assert {"id", "name"} <= widths.keys()
    assert "n" not in widths or "what happened" in widths
    for index, heading in enumerate(headings):
        for cell in (heading, *(row[index] for row in rows)):
            assert heading not in widths or longest_word(cell) <= widths[heading]


def test_columns_are_left_out_in_their_order_and_only_where_room_is_short() -> None:
    headings, rows = ("id", "name", "owner", "secret"), [["k" * 10, "n" * 10, "o" * 10, "s" * 10]]
    layout = Layout(least=("secret", "owner"))
    rooms = {room: list(fitted(headings, rows, layout, room) or ()) for room in (49, 48, 36, 35, 22)}
    assert rooms == {49: [*headings], 48: [*headings[:3]], 36: [*headings[:3]], 35: [*headings[:2]], 22: []}


def on_a_terminal(columns: int, *words: str) -> list[str]:
    """The lines that a window of so many columns gets."""
    terminal, its_end = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(columns), "TERM": "xterm"}
    with os.fdopen(terminal, "rb", 0) as reader:
        process = subprocess.Popen(command(*words), env=environment, stdout=its_end)
        os.close(its_end)
        shown = b""
        with contextlib.suppress(OSError):  # so a terminal ends
            while piece := reader.read(10_000):
                shown += piece
        assert process.wait(timeout=30) == 0
    return [line.rstrip() for line in re.sub(r"\x1b\[[0-9;]*m", "", shown.decode()).splitlines()]


@pytest.fixture
def some(run: Run, priced: None) -> Mapping[str, str]:
    """A member's key, and its calls, as wide as they come."""
    assert priced is None
    ada = a_key(run, "engines", "member-of-engines")
    done(run("keys", "update", "engines/member-of-engines", "--owner", "ada@example.com"))
    limits = ("--rpm", "6000", "--tpm", "9000000", "--budget-usd", "500/month")
    done(run("teams", "update", "engines", *limits))
    call_id = "req_01KB0Z6Q0V8V8D0T6S1Y5F3H2A"
    refused: dict[str, Any] = {"outcome": "refused", "status": 429, "error": "rate_limit_exceeded"}
    put([call_of(ada, call_id), call_of(ada, f"{call_id[:-1]}B", **refused)])
    return {"key": ada.key_id, "team": ada.team_id, "call": call_id}


@pytest.mark.parametrize("columns", [80, 100])
@pytest.mark.parametrize(
    ("words", "first"),
    [
        ("calls list", "{call}"),
        ("keys list", "{key}"),
        ("teams list", "{team}"),
        ("usage --by key,model", "engines/member-of-engines"),
        ("audit", "cli"),
        ("calls show {call}", "{call}"),
        ("keys show {key}", "{key}"),
    ],
)
def test_on_a_narrow_window_words_are_whole_and_the_first_columns_stay(
    run: Run, some: Mapping[str, str], columns: int, words: str, first: str
) -> None:
    asked = words.format(**some).split()
    whole = set(done(run(*asked)).split())
    shown = [line for line in on_a_terminal(columns, *asked) if not line.endswith(": this window is too narrow.")]
    assert {word for line in shown for word in line.split() if set(word) != {"─"}} <= whole
    assert any(first.format(**some) in line.split() for line in shown)
    if any("──" in line for line in shown):
        assert max(map(len, shown)) <= columns


@pytest.mark.parametrize(
    ("words", "heads"),
    [
        ("calls list", "when (UTC) id key"),
        ("keys list", "id team name role state"),
        ("teams list", "id name state limits budgets"),
    ],
)
def test_what_is_needed_most_stays_in_80_columns(some: Mapping[str, str], words: str, heads: str) -> None:
    assert some
    found = " ".join(on_a_terminal(80, *words.split())[0].split())
    assert (found, len(found.split())) == (heads, len(heads.split()))


def test_what_is_left_out_is_said(some: Mapping[str, str]) -> None:
    assert some
    assert on_a_terminal(80, "keys", "list")[-1].endswith(": this window is too narrow.")
    assert "too narrow" not in "\n".join(on_a_terminal(250, "keys", "list"))


def test_what_fits_into_no_table_is_a_line_each_with_names_for_what_needs_one(run: Run) -> None:
    name = "n" * 90
    done(run("teams", "create", "--name", "engines"))
    done(run("keys", "create", "--team", "engines", "--name", name))
    (line,) = [line for line in on_a_terminal(80, "keys", "list") if name in line]
    assert re.fullmatch(rf"key_\w+  engines  {name}  role member  active  secret …\w+  last used never  .*", line)


def test_into_a_pipe_every_column_goes_however_wide(capsys: pytest.CaptureFixture[str]) -> None:
    row = ["i" * 300, "w " * 300, "m" * 300]
    Printer(as_json=False).rows(("id", "what", "model"), [row], prose=("what",), least=("model", "what"))
    assert capsys.readouterr().out.splitlines()[-1].split() == [word for cell in row for word in cell.split()]
