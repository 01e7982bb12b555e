"""docs/operations.md names what there is, and nothing else."""

import re
from pathlib import Path
from typing import get_args

import httpx2

from gateway import errors
from gateway.access.directory import LookUpResult
from gateway.call import Outcome, UpstreamErrorKind
from gateway.errors import GatewayError
from gateway.observe.logs import _fields
from tests.observe.test_metrics import RECORD
from tests.support.gateway import running_gateway

PAGE = (Path(__file__).parents[1] / "docs" / "operations.md").read_text(encoding="utf-8")


def named(heading: str) -> set[str]:
    """The names in the first columns of the tables whose heads begin with `heading`."""
    tables = [part.split("\n\n", 1)[0] for part in PAGE.split(f"\n| {heading} |")[1:]]
    rows = [row for table in tables for row in table.splitlines()[2:]]
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row.split("|")[1])}


def test_every_metric_is_described_and_no_other() -> None:
    with running_gateway("http://127.0.0.1:9") as gateway:
        text = httpx2.get(f"{gateway.url}/metrics", trust_env=False).text
    assert named("metric") == set(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE))


def test_every_result_of_a_look_up_is_described() -> None:
    row = next(row for row in PAGE.splitlines() if row.startswith("| `gmi_gateway_key_lookups_total`"))
    assert set(re.findall(r"`([^`]+)`", row.split("|")[3])) == set(get_args(LookUpResult))


def test_every_field_of_a_log_line_is_described_and_no_other() -> None:
    assert named("field") == set(_fields(RECORD, ""))


def test_every_outcome_is_described_and_no_other() -> None:
    assert named("outcome") == set(get_args(Outcome))


def test_every_kind_of_upstream_error_is_described_and_no_other() -> None:
    assert named("upstream error") == set(get_args(UpstreamErrorKind))


def test_every_error_code_of_the_gateway_is_described() -> None:
    classes = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, GatewayError)]
    rows = PAGE.split("| status | code |", 1)[1].split("\n\n", 1)[0]
    for error in classes:
        if error.code is not None:
            assert f"`{error.code}`" in rows, error
            assert str(error.status) in rows, error
