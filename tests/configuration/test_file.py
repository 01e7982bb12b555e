"""What the settings file may hold, and how text that cannot be read is reported."""

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.configuration import SettingsError, load_settings
from gateway.settings import Settings
from tests.configuration.conftest import Read, Refuse


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "server:\n", "keys:\nmodels:\n  aliases:\n", "\ufeff"])
def test_a_file_that_says_nothing_leaves_the_defaults(read: Read, text: str) -> None:
    assert read(text) == Settings()


@pytest.mark.parametrize("port", ["9000", "'9000'", "9_000", '"9000"'])
def test_a_number_may_stand_in_quotes(read: Read, port: str) -> None:
    assert read(f"server: {{port: {port}}}").server.port == 9000


@pytest.mark.parametrize(
    ("word", "value"), [("yes", True), ("On", True), ("TRUE", True), ("no", False), ("off", False), ("false", False)]
)
def test_booleans_are_those_of_yaml(read: Read, word: str, value: bool) -> None:
    assert read(f"streams: {{include_usage: {word}}}").streams.include_usage is value


def test_words_that_yaml_takes_for_something_else_stay_words_where_words_are_asked_for(read: Read) -> None:
    settings = read("log: {calls: off}\nkeys: [{name: 007, team: no, secret: 1234567890123456}]")
    assert settings.log.calls == "off"
    assert (settings.keys[0].name, settings.keys[0].team) == ("007", "no")


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(read: Read) -> None:
    assert read(b"\xef\xbb\xbfserver:\r\n  port: 9000\r\n").server.port == 9000


def test_anchors_work(read: Read) -> None:
    text = (
        "keys:\n- {name: a, team: &t core, secret: 0123456789abcdef0}\n- {name: b, team: *t, secret: 0123456789abcdef1}"
    )
    assert [key.team for key in read(text).keys] == ["core", "core"]


BOMBS = [
    "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n" + "".join(f"a{n}: &a{n} [{f'*a{n - 1},' * 10}]\n" for n in range(1, 9)),
    "a0: &a0 {x: 1}\n"
    + "".join(f"a{n}: &a{n} {{{','.join(f'k{m}: *a{n - 1}' for m in range(10))}}}\n" for n in range(1, 9)),
    f"keys: &a [{'*a,' * 100}]",
]


@pytest.mark.parametrize("bomb", BOMBS, ids=["lists", "tables", "itself"])
def test_aliases_that_multiply_are_one_problem(refuse: Refuse, bomb: str) -> None:
    (said,) = refuse(bomb)
    assert said.startswith("gateway.yaml:")
    assert said.endswith("repeats too much through aliases (`*name`); write it out, or in fewer levels")


def test_a_thousand_keys_may_share_their_team_by_an_alias(read: Read) -> None:
    rows = "".join(f"- {{name: k{n}, team: *t, secret: 0123456789abcdef{n}}}\n" for n in range(1000))
    keys = read("keys:\n- {name: a, team: &t core, secret: 0123456789abcdef-a}\n" + rows).keys
    assert {key.team for key in keys} == {"core"}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("server:\n\tport: 1", "gateway.yaml:2: is not YAML: a tab in the indentation; indent with spaces"),
        ("a: [1\nb: 2", "gateway.yaml:2: is not YAML: expected ',' or ']', but got ':'; look at this line"),
        (
            "log: {}\nredis: {",
            "gateway.yaml:2: is not YAML: expected the node content, but the file ended; look at this",
        ),
        ("log: {}\n- a", "gateway.yaml:2: is not YAML"),
        ("- a", "gateway.yaml:1: is not a table of sections at its top; begin with a section, as in `server:`"),
        ("just text", "gateway.yaml:1: is not a table of sections at its top"),
        ("log: {}\n---\nlog: {}", "gateway.yaml:2: is not one YAML document but several"),
        (b"log: {}\n# caf\xe9", "gateway.yaml:2: is not UTF-8 text; save it as UTF-8"),
        ("log: {}".encode("utf-16"), "gateway.yaml:1: is not UTF-8 text"),
        ("log: {}\n# \x07", "gateway.yaml:2: is not YAML: a control character"),
        ("log: *log", "gateway.yaml:1: is not YAML: an alias (`*name`) without its anchor"),
        ("log: &a {calls: *a}", "gateway.yaml:1: log.calls.calls.calls"),
        ("log: {calls: !x all}", "gateway.yaml:1: log.calls: has a tag; take the `!tag` out"),
        ("[" * 5000, "gateway.yaml: is nested too deep; no setting has so many levels"),
        ("{" * 5000, "gateway.yaml: is nested too deep"),
        ("- " * 5000, "gateway.yaml: is nested too deep"),
        ('log: {calls: "\\UFFFFFFFF"}', "gateway.yaml: is not YAML: an escape that is no character"),
        ('log: {calls: "\\U00110000"}', "gateway.yaml: is not YAML: an escape that is no character"),
        ('"\\uD800": 1', "gateway.yaml:1: has a key that is not text"),
        ("log: {? [a] : b}", "gateway.yaml:1: log: has a key that is not text"),
        ("log:\n  calls: all\n  calls: off", "gateway.yaml:3: log.calls: is there twice, the first time on line 2"),
        ("log: {}\nlog: {}", "gateway.yaml:2: log: is there twice, the first time on line 1; keep one of the two"),
    ],
)
def test_text_that_cannot_be_read_is_reported_with_its_line(refuse: Refuse, text: str | bytes, problem: str) -> None:
    first, *_ = refuse(text)
    assert first.startswith(problem)


def test_a_directory_in_place_of_a_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read: Is a directory"):
        load_settings(tmp_path, {}, {})


@given(st.text() | st.binary())
def test_any_content_gives_settings_or_a_settings_error(content: str | bytes) -> None:
    Path("any.yaml").write_bytes(content.encode(errors="surrogatepass") if isinstance(content, str) else content)
    with contextlib.suppress(SettingsError):
        load_settings(Path("any.yaml"), {}, {})


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("${NAME}", "ann"),
        ("x-${NAME}-y-${NAME}", "x-ann-y-ann"),
        ("${NONE:-bob}", "bob"),
        ("${EMPTY:-bob}", "bob"),
        ("${NAME:-bob}", "ann"),
        ("a$$b", "a$b"),
        ("$${NAME}", "${NAME}"),
        ("a$b", "a$b"),
        ("${DOLLAR}", "${NAME}"),
    ],
)
def test_references_are_expanded_once(read: Read, written: str, value: str) -> None:
    environ = {"NAME": "ann", "EMPTY": "", "DOLLAR": "${NAME}"}
    text = f"keys: [{{name: '{written}', team: t, secret: 0123456789abcdef}}]"
    assert read(text, environ).keys[0].name == value


def test_a_reference_is_converted_after_it_is_expanded(read: Read) -> None:
    assert read("server: {port: '${PORT}'}", {"PORT": "9000"}).server.port == 9000


def test_a_reference_that_may_be_empty_leaves_the_default(read: Read) -> None:
    assert read("server: {port: '${PORT:-}'}\nupstream: {proxy: '${PROXY:-}'}") == Settings()


@pytest.mark.parametrize("environ", [{}, {"SECRET": ""}])
def test_a_missing_variable_is_named_and_is_one_problem_only(refuse: Refuse, environ: dict[str, str]) -> None:
    reason = "reads the environment variable SECRET, which is not set"
    problems = refuse("keys:\n- name: ann\n  team: t\n  secret: ${SECRET}", environ)
    assert problems == [f"gateway.yaml:4: keys[0].secret: {reason}; set it, or write ${{SECRET:-default}}"]


@pytest.mark.parametrize("written", ["${", "${1X}", "${A-b}", "${A B}", "$NAME"])
def test_what_looks_like_a_reference_and_is_none_is_refused(refuse: Refuse, written: str) -> None:
    (problem,) = refuse(f"upstream:\n  api_key: '{written}'", {"NAME": "x"})
    assert problem.startswith("gateway.yaml:2: upstream.api_key: ")
    assert "write ${NAME}" in problem


def test_keys_of_tables_are_not_expanded(read: Read) -> None:
    assert read("models: {aliases: {'${A}': b}}").models.aliases == {"${A}": "b"}
