"""What a machine lacks hides no test in CI."""

import re
from pathlib import Path

import pytest

from tests.support.missing import is_missing

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("ci", "ends"), [("true", pytest.fail.Exception), ("", pytest.skip.Exception)])
def test_what_is_missing_is_an_error_in_ci_and_said_elsewhere(
    monkeypatch: pytest.MonkeyPatch, ci: str, ends: type[BaseException]
) -> None:
    monkeypatch.setenv("CI", ci)
    with pytest.raises(ends, match="nginx is missing"):
        is_missing("nginx is missing")


def test_ci_says_that_it_is_ci_before_it_tests() -> None:
    lines = (ROOT / ".ci/run").read_text(encoding="utf-8").splitlines()
    commands = [line.split("#")[0].strip() for line in lines]
    assert commands.index("export CI=true") < commands.index("scripts/test")


def test_no_test_is_left_out_in_any_other_way() -> None:
    left_out = re.compile(r"pytest\.(skip|importorskip)\(|mark\.(skip|skipif|xfail)\b|\bunittest\.skip")
    found = [
        str(path.relative_to(ROOT))
        for path in (ROOT / "tests").rglob("*.py")
        if "node_modules" not in path.parts and left_out.search(path.read_text(encoding="utf-8"))
    ]
    assert found == ["tests/support/missing.py"]
