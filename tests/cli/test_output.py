"""What becomes of a command whose output cannot be written, or whose words cannot be read."""

import json
import os
import pty
import re
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import IO

import pytest

from tests.cli.conftest import Run, answer, done, plain
from tests.http.admin_server import AdminServer

pytestmark = pytest.mark.usefixtures("run")

ROOT = Path(__file__).parents[2]
SECRET = re.compile(r"sk-gw-[0-9A-Za-z]{38}")
C_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def process(
    *words: str | bytes,
    output: IO[bytes] | int = subprocess.PIPE,
    closed: str = "",
    before: str = "",
    environ: Mapping[str, str] = MappingProxyType({}),
) -> subprocess.CompletedProcess[str]:
    """`gmi-gateway` on a real standard output. The shell does `before`; `closed`, a redirection, closes a stream."""
    command = ["sh", "-c", f'{before} exec "$@" {closed}', "sh", sys.executable, "-m", "gateway", *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **environ}
    return subprocess.run(
        command, env=environment, stdout=output, stderr=subprocess.PIPE, text=True, timeout=30, check=False
    )


@contextmanager
def no_reader() -> Iterator[int]:
    """A pipe whose other end is closed."""
    reading, writing = os.pipe()
    os.close(reading)
    yield writing
    os.close(writing)


@pytest.mark.parametrize(
    "words",
    ["version", "check-config", "keys list", "keys list --json", "keys export", "keys --help"],
)
def test_a_full_disk_is_one_sentence(words: str) -> None:
    with Path("/dev/full").open("wb") as full:
        result = process(*words.split(), output=full)
    assert (result.returncode, result.stderr) == (1, "Cannot go on: No space left on device.\n")


@pytest.mark.parametrize("words", ["keys list", "keys list --json", "keys export"])
def test_whoever_has_read_enough_is_told_nothing(words: str) -> None:
    with no_reader() as pipe:
        result = process(*words.split(), output=pipe)
    assert (result.returncode, result.stderr) == (1, "")


@pytest.mark.parametrize("words", ["", "--json"])
@pytest.mark.parametrize("kind", ["full", "no reader"])
def test_a_secret_that_could_not_be_printed_is_told_with_the_cure(run: Run, words: str, kind: str) -> None:
    done(run("teams", "create", "--name", "engines"))
    create = ["keys", "create", "--team", "engines", "--name", "ada", *words.split()]
    with Path("/dev/full").open("wb") as full, no_reader() as pipe:
        result = process(*create, output=full if kind == "full" else pipe)
    (key,) = answer(run("keys", "list", "--json"))
    assert result.returncode == 1
    assert result.stderr == (
        "The secret of engines/ada could not be printed and is lost. "
        f"Get another with gmi-gateway keys rotate {key['id']}.\n"
    )
    with Path("/dev/full").open("wb") as full:
        result = process("keys", "rotate", "ada", *words.split(), output=full)
    assert result.stderr.endswith(f"Get another with gmi-gateway keys rotate {key['id']}.\n")
    assert SECRET.search(result.stderr) is None


@pytest.mark.parametrize("words", ["", "--json"])
def test_secrets_of_an_import_that_could_not_be_printed_are_told_with_the_cure(words: str) -> None:
    Path("in.yaml").write_text("teams:\n- name: engines\n  keys:\n  - name: ada\n  - name: eve\n")
    with Path("/dev/full").open("wb") as full:
        result = process("keys", "import", "in.yaml", *words.split(), output=full)
    assert result.returncode == 1
    assert result.stderr == (
        "The secrets of engines/ada, engines/eve could not be printed and are lost. "
        "Get others with gmi-gateway keys rotate TEAM/NAME.\n"
    )
    with Path("/dev/full").open("wb") as full:
        result = process("keys", "import", "in.yaml", *words.split(), output=full)
    assert result.stderr == "Cannot go on: No space left on device.\n"


@pytest.mark.parametrize("words", ["", "--json"])
def test_secrets_of_an_import_into_a_file_are_its_owners_alone_and_not_printed(run: Run, words: str) -> None:
    Path("in.yaml").write_text("teams:\n- name: engines\n  keys:\n  - name: ada\n")
    into = ["keys", "import", "in.yaml", "--output", "made.json", *words.split()]
    assert "dry run" in done(run("keys", "import", "in.yaml", "--output", "made.json", "--dry-run"))
    assert not Path("made.json").exists()
    said = done(run(*into))
    assert SECRET.search(said) is None
    assert said == "" if words else "\nThe secrets are in made.json, and nowhere else.\n" in said
    assert stat.S_IMODE(Path("made.json").stat().st_mode) == 0o600
    (key,) = json.loads(Path("made.json").read_text("utf-8"))["made_keys"]
    assert SECRET.fullmatch(key["secret"])


def test_an_import_into_a_file_that_is_there_does_nothing_and_leaves_it(run: Run) -> None:
    Path("in.yaml").write_text("teams:\n- name: engines\n")
    for name in ("in.yaml", "nowhere/made.json"):
        result = run("keys", "import", "in.yaml", "--output", name)
        assert (result.exit_code, result.stdout) == (2, "")
    assert "--output: in.yaml is there already" in plain(run("keys", "import", "in.yaml", "-o", "in.yaml").stderr)
    assert Path("in.yaml").read_text() == "teams:\n- name: engines\n"
    assert answer(run("teams", "list", "--json")) == []


def test_an_import_that_is_refused_leaves_no_file(run: Run) -> None:
    Path("in.yaml").write_text("teams: 1\n")
    assert run("keys", "import", "in.yaml", "--output", "made.json").exit_code == 1
    assert not Path("made.json").exists()


def test_secrets_that_a_full_disk_did_not_take_are_told_with_the_cure(server: AdminServer) -> None:
    Path("in.yaml").write_text("teams:\n- name: engines\n  keys:\n  - name: ada\n")
    words = ("keys", "import", "in.yaml", "--output", "made.json", "--url", server.url)
    result = process(*words, before="ulimit -f 0;", environ={"GATEWAY_ADMIN_KEY": server.secret})
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == (
        "made.json cannot be written: File too large. The secrets of engines/ada could not be written and are lost. "
        "Get others with gmi-gateway keys rotate TEAM/NAME.\n"
    )
    assert not Path("made.json").exists()


def test_an_import_into_a_file_needs_no_standard_output() -> None:
    Path("in.yaml").write_text("teams:\n- name: engines\n  keys:\n  - name: ada\n")
    result = process("keys", "import", "in.yaml", "--output", "made.json", closed=">&-")
    assert (result.returncode, result.stderr) == (0, "")
    assert SECRET.search(Path("made.json").read_text("utf-8"))


@pytest.mark.parametrize("words", ["keys create --team engines --name ada", "keys import in.yaml", "keys rotate lead"])
def test_without_a_standard_output_no_secret_is_made(run: Run, words: str) -> None:
    Path("in.yaml").write_text("teams:\n- name: engines\n  keys:\n  - name: eve\n")
    done(run("teams", "create", "--name", "engines"))
    made = answer(run("keys", "create", "--team", "engines", "--name", "lead", "--json"))
    result = process(*words.split(), closed=">&-")
    assert (result.returncode, result.stderr) == (1, "Standard output is closed, so nothing was done.\n")
    assert [key["version"] for key in answer(run("keys", "list", "--json"))] == [made["version"]]


def test_an_export_to_a_file_needs_no_standard_output(run: Run) -> None:
    result = process("keys", "export", "--output", "out.yaml", closed=">&-")
    assert (result.returncode, result.stderr) == (0, "")
    assert Path("out.yaml").read_text("utf-8") == done(run("keys", "export"))


def test_without_a_standard_input_nothing_is_imported() -> None:
    result = process("keys", "import", "-", closed="<&-")
    assert (result.returncode, result.stdout) == (2, "")
    assert "FILE: cannot be read: standard input is closed" in plain(result.stderr)


@pytest.mark.parametrize("file", ["nowhere/out.yaml", "/dev/full", "."])
def test_an_export_to_what_cannot_be_written_is_exit_code_2(run: Run, file: str) -> None:
    result = run("keys", "export", "--output", file)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "--output: cannot be written: " in plain(result.stderr)


def test_secrets_of_an_import_are_whole_on_a_narrow_terminal() -> None:
    long = "n" * 90
    Path("in.yaml").write_text(f"teams:\n- name: engines\n  keys:\n  - name: {long}\n  - name: ada\n")
    terminal, its_end = pty.openpty()
    try:
        result = process("keys", "import", "in.yaml", output=its_end, environ={"COLUMNS": "80", "TERM": "xterm"})
        shown = os.read(terminal, 100_000).decode()
    finally:
        os.close(terminal)
        os.close(its_end)
    assert (result.returncode, result.stderr) == (0, "")
    lines = [line for line in shown.splitlines() if SECRET.match(line)]
    assert [line.split(" ", 1)[1].strip() for line in lines] == [f"engines/{long}", "engines/ada"]


@pytest.mark.parametrize(
    "words",
    [
        [b"teams", b"create", b"--name", b"\xc3\xa9"],
        [b"teams", b"show", b"\xc3\xa9"],
        [b"keys", b"list", b"--owner", b"\xc3\xa9"],
    ],
)
def test_letters_that_the_locale_cannot_read_are_one_sentence_with_the_cure(words: list[bytes]) -> None:
    result = process(*words, environ=C_LOCALE)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == (
        "What was typed has letters that this terminal's locale cannot read. "
        "Set PYTHONUTF8=1, and type them as UTF-8.\n"
    )


def test_with_the_cure_they_are_read(run: Run) -> None:
    result = process(b"teams", b"create", b"--name", b"\xc3\xa9", environ=C_LOCALE | {"PYTHONUTF8": "1"})
    assert result.returncode == 0
    assert answer(run("teams", "show", "é", "--json"))["name"] == "é"


@pytest.mark.parametrize("words", ["teams list", "teams list --json", "audit", "keys export"])
def test_names_are_whole_where_the_locale_knows_ascii_alone(run: Run, words: str) -> None:
    done(run("teams", "create", "--name", "Düsentrieb"))
    assert "Düsentrieb" in process(*words.split(), environ=C_LOCALE).stdout
