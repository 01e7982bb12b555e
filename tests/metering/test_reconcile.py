"""A provider's account and the ledger: what is read, what is refused, and what drift is."""

from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest

from gateway.metering.reconcile import MEASURES, Columns, Drift, ExportError, compare, read_export, total

COLUMNS = Columns("date", "model", "in", "out", "usd")
BERLIN = ZoneInfo("Europe/Berlin")
HEAD = "date,model,in,out,usd"


def read(*lines: str, columns: Columns = COLUMNS) -> Any:
    return read_export([f"{line}\n" for line in lines], columns, BERLIN)


@pytest.mark.parametrize("text", ["-$0.5", "$-0.5", "-0.5", "-$.5", "-$5e-1"])
def test_a_refund_has_its_sign_before_the_dollar_or_behind(text: str) -> None:
    assert read(HEAD, f"2026-11-22,m,1,1,{text}")["2026-11-22", "m"]["cost_microusd"] == -500_000


def test_empty_cells_behind_the_last_column_are_nothing() -> None:
    assert read(HEAD, "2026-11-22,m,1,1,1,, ") == read(HEAD, "2026-11-22,m,1,1,1")


def problems(*lines: str) -> tuple[str, ...]:
    with pytest.raises(ExportError) as caught:
        read(*lines)
    return caught.value.problems


def test_rows_of_one_day_and_model_are_added_up() -> None:
    found = read(HEAD, "2026-11-22,m,10,2,0.5", "2026-11-22,m,5,1,$0.25", "2026-11-23,m,1,1,1")
    assert found == {
        ("2026-11-22", "m"): {"input_tokens": 15, "output_tokens": 3, "cost_microusd": 750_000},
        ("2026-11-23", "m"): {"input_tokens": 1, "output_tokens": 1, "cost_microusd": 1_000_000},
    }


def test_columns_may_stand_in_any_order_among_others() -> None:
    found = read("\ufeffusd,region,out,model,in,date", '0,"eu, west",2,m,1.0,2026-11-22', "", " , ")
    assert found == {("2026-11-22", "m"): {"input_tokens": 1, "output_tokens": 2, "cost_microusd": 0}}


def test_a_column_that_is_not_named_is_not_compared() -> None:
    columns = msgspec.structs.replace(COLUMNS, cost=None, input_tokens=None)
    assert read("date,model,out", "2026-11-22,m,7", columns=columns) == {("2026-11-22", "m"): {"output_tokens": 7}}


@pytest.mark.parametrize(
    ("text", "day"),
    [
        ("2026-11-22T00:00:00", "2026-11-22"),
        ("2026-11-22T23:30:00Z", "2026-11-23"),
        ("2026-11-22 00:30:00+02:00", "2026-11-21"),
    ],
)
def test_a_time_is_of_its_day_in_the_zone(text: str, day: str) -> None:
    assert list(read(HEAD, f"{text},m,1,1,1")) == [(day, "m")]


@pytest.mark.parametrize(
    ("text", "microusd"), [("0.0000014", 1), ("1e-6", 1), ("-2", -2_000_000), ("1e-999999999", 0), ("3", 3_000_000)]
)
def test_money_is_exact_to_the_micro_dollar(text: str, microusd: int) -> None:
    assert read(HEAD, f"2026-11-22,m,1,1,{text}")["2026-11-22", "m"]["cost_microusd"] == microusd


def test_fractions_of_a_micro_dollar_add_up_before_they_are_rounded() -> None:
    rows = ["2026-11-22,m,1,1,0.00000049", "2026-11-22,m,1,1,4.9e-7"] * 500
    assert read(HEAD, *rows, "2026-11-22,n,1,1,0.0000005", "2026-11-22,n,1,1,-1e-30") == {
        ("2026-11-22", "m"): {"input_tokens": 1_000, "output_tokens": 1_000, "cost_microusd": 490},
        ("2026-11-22", "n"): {"input_tokens": 2, "output_tokens": 2, "cost_microusd": 0},
    }
    large = ["2026-11-22,m,1,1,999999999"] * 1_000
    assert (
        read(HEAD, *large, "2026-11-22,m,1,1,5e-7", "2026-11-22,m,1,1,1e-30")["2026-11-22", "m"]["cost_microusd"]
        == 999_999_999_000_000_000 + 1
    )


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("22.11.2026,m,1,1,1", "date must be a date such as 2026-11-22, or a time, and is '22.11.2026'"),
        ("2026-11-22,,1,1,1", "model is empty"),
        ("2026-11-22,m,,1,1", "in must be a whole number such as 1200, and is ''"),
        ('2026-11-22,m,"1,200",1,1', "in must be a whole number such as 1200, and is '1,200'"),
        ("2026-11-22,m,1,-1,1", "out must be a whole number such as 1200, and is '-1'"),
        ("2026-11-22,m,1,1.5,1", "out must be a whole number such as 1200, and is '1.5'"),
        ("2026-11-22,m,1,1,free", "usd must be dollars such as 1.25, and is 'free'"),
        ("2026-11-22,m,1,1,NaN", "usd must be dollars such as 1.25, and is 'NaN'"),
        ("2026-11-22,m,1,1,1e400", "usd must be dollars such as 1.25, and is '1e400'"),
        ("2026-11-22,m,1,1,1e999999", "usd must be dollars such as 1.25, and is '1e999999'"),
        ("2026-11-22,m,1,1,-1e99999999999999999", "usd must be dollars such as 1.25, and is '-1e99999999999999999'"),
        *(
            (f"2026-11-22,m,1,1,{text}", f"usd must be dollars such as 1.25, and is '{text}'")
            for text in ("1_000.5", "\uff11", "\u0661.5", "1e", ".", "+-1", "Infinity", "")
        ),
        ("1066-10-14,m,1,1,1", "date must be a date such as 2026-11-22, or a time, and is '1066-10-14'"),
        *(
            (f"{time},m,1,1,1", f"date must be a date such as 2026-11-22, or a time, and is '{time}'")
            for time in ("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00")
        ),
        ("2026-11-22,m,1", "has 3 cells, and the columns are more"),
        *(
            (f"2026-11-22,m,{rest}", f"has {cells} cells, and the columns are 5; a number with commas needs quotes")
            for cells, rest in ((6, "2,001,2,0.003005"), (7, "1,1,1,200,50"), (6, "1,1,1,x"))
        ),
        ("2026-11-22,m,1,1,$-$1", "usd must be dollars such as 1.25, and is '$-$1'"),
        ("2026-11-22,m,1,1,-$-1", "usd must be dollars such as 1.25, and is '-$-1'"),
        ('2026-11-22,"m', "is no CSV (unexpected end of data)"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_line(row: str, message: str) -> None:
    assert problems(HEAD, "2026-11-22,m,1,1,1", row) == (f"line 3: {message}",)


def test_no_more_than_ten_problems_are_told() -> None:
    found = problems(HEAD, *["x,m,1,1,1"] * 12)
    assert [each.partition(":")[0] for each in found] == [f"line {number}" for number in range(2, 12)]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ((), "line 1: must name the columns"),
        (("",), "line 1: must name the columns"),
        ((HEAD,), "the file has no rows"),
        (("date,model,in,out",), "line 1: has no column usd; there are date, model, in, out"),
        (("date,model,in,out,usd,in",), "line 1: has the column in more than once"),
    ],
)
def test_a_file_without_the_columns_or_rows_is_refused(lines: tuple[str, ...], message: str) -> None:
    assert problems(*lines) == (message,)


def test_drift_is_how_much_more_the_ledger_has() -> None:
    assert (Drift(200, 210).difference, Drift(200, 210).percent) == (10, 5.0)
    assert Drift(200, 190).percent == -5.0
    assert (Drift(0, 0).percent, Drift(0, 1).percent) == (0.0, None)


@pytest.mark.parametrize(
    ("theirs", "ours", "is_above"), [(100, 101, False), (100, 102, True), (100, 98, True), (0, 0, False), (0, 1, True)]
)
def test_drift_is_above_a_tolerance_either_way(theirs: int, ours: int, *, is_above: bool) -> None:
    assert Drift(theirs, ours).is_above(1.0) is is_above


def amounts(tokens_in: int, tokens_out: int, cost: int) -> Any:
    return dict(zip(MEASURES, (tokens_in, tokens_out, cost), strict=True))


def test_what_only_one_of_them_knows_is_compared_with_nothing() -> None:
    theirs = {("2026-11-22", "a"): amounts(1, 2, 3)}
    ours = {("2026-11-22", "b"): amounts(4, 5, 6), ("2026-11-22", "c"): amounts(0, 0, 0)}
    rows = compare(theirs, ours, MEASURES)
    assert [(row.model, row.drifts["input_tokens"]) for row in rows] == [("a", Drift(1, 0)), ("b", Drift(0, 4))]
    assert total(rows, "cost_microusd") == Drift(3, 6)
