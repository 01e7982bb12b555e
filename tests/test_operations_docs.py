"""docs/operations.md names what there is, and nothing else."""

import re
from pathlib import Path
from typing import get_args

from gateway import errors
from gateway.call import Outcome
from gateway.errors import GatewayError
from gateway.observe.logs import _fields
from gateway.observe.metrics import CallMetrics
from tests.observe.test_metrics import RECORD

PAGE = (Path(__file__).parents[1] / "docs" / "operations.md").read_text(encoding="utf-8")


def named(heading: str) -> set[str]:
    """The names in the first column of the table whose head begins with `heading`."""
    table = PAGE.split(f"| {heading} |", 1)[1].split("\n\n", 1)[0]
    return {name for row in table.splitlines()[2:] for name in re.findall(r"`([^`]+)`", row.split("|")[1])}


def test_every_metric_is_described_and_no_other() -> None:
    metrics = CallMetrics([(f"open_{what}", what, float) for what in ("calls", "streams")])
    metrics.observe(RECORD)
    families = {family.name for family in metrics.collect()}
    assert {name.removesuffix("_total") for name in named("metric")} == families


def test_every_field_of_a_log_line_is_described_and_no_other() -> None:
    assert named("field") == set(_fields(RECORD, ""))


def test_every_outcome_is_described_and_no_other() -> None:
    assert named("outcome") == set(get_args(Outcome))


def test_every_error_code_of_the_gateway_is_described() -> None:
    classes = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, GatewayError)]
    rows = PAGE.split("| status | code |", 1)[1].split("\n\n", 1)[0]
    for error in classes:
        if error.code is not None:
            assert f"`{error.code}`" in rows, error
            assert str(error.status) in rows, error
