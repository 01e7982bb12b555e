"""The windows of budgets, against the calendar of the standard library."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.limits.windows import WindowPeriod, window

PERIODS: tuple[WindowPeriod, ...] = ("day", "week", "month")
MOMENTS = st.integers(
    int(datetime(1975, 1, 1, tzinfo=UTC).timestamp()), int(datetime(2090, 1, 1, tzinfo=UTC).timestamp())
)
ZONES = st.sampled_from(
    [
        "UTC",
        "Europe/Berlin",
        "America/New_York",
        "America/Sao_Paulo",
        "America/Havana",
        "Asia/Beirut",
        "Asia/Kathmandu",
        "Africa/Cairo",
        "Australia/Lord_Howe",
        "Pacific/Apia",
        "Pacific/Kiritimati",
    ]
).map(ZoneInfo)
CAIRO_SKIPS_MIDNIGHT = int(datetime(2024, 4, 25, 12, tzinfo=UTC).timestamp())
HAVANA_REPEATS_MIDNIGHT = int(datetime(2024, 11, 3, 4, 30, tzinfo=UTC).timestamp())
APIA_SKIPS_A_DAY = int(datetime(2011, 12, 30, 9, 59, 59, tzinfo=UTC).timestamp())


def date_name(period: WindowPeriod, at_s: float, zone: ZoneInfo) -> str:
    local = datetime.fromtimestamp(at_s, zone)
    return local.strftime({"day": "%Y-%m-%d", "week": "%G-W%V", "month": "%Y-%m"}[period])


@given(MOMENTS, ZONES, st.sampled_from(PERIODS))
@example(CAIRO_SKIPS_MIDNIGHT, ZoneInfo("Africa/Cairo"), "day")
@example(HAVANA_REPEATS_MIDNIGHT, ZoneInfo("America/Havana"), "day")
@example(APIA_SKIPS_A_DAY, ZoneInfo("Pacific/Apia"), "day")
def test_a_window_is_named_by_the_local_date_and_ends_when_that_changes(
    at_s: int, zone: ZoneInfo, period: WindowPeriod
) -> None:
    found = window(period, at_s, zone)
    assert found.resets_at_s is not None
    assert found.resets_at_s > at_s
    assert found.name == date_name(period, at_s, zone)
    assert date_name(period, found.resets_at_s - 1, zone) == found.name
    assert date_name(period, found.resets_at_s, zone) != found.name


@given(MOMENTS, ZONES, st.sampled_from(PERIODS), st.floats(0, 1))
def test_all_moments_of_a_window_name_the_same_window(
    at_s: int, zone: ZoneInfo, period: WindowPeriod, share: float
) -> None:
    found = window(period, at_s, zone)
    assert found.resets_at_s is not None
    later_s = at_s + int((found.resets_at_s - 1 - at_s) * share)
    assert window(period, later_s, zone) == found


@given(MOMENTS, ZONES)
def test_weeks_begin_on_monday(at_s: int, zone: ZoneInfo) -> None:
    resets_at_s = window("week", at_s, zone).resets_at_s
    assert resets_at_s is not None
    assert datetime.fromtimestamp(resets_at_s, zone).weekday() == 0


@given(MOMENTS, ZONES)
def test_months_begin_on_the_first(at_s: int, zone: ZoneInfo) -> None:
    resets_at_s = window("month", at_s, zone).resets_at_s
    assert resets_at_s is not None
    assert datetime.fromtimestamp(resets_at_s, zone).day == 1


@pytest.mark.parametrize(
    ("month", "day", "hours"), [(3, 31, 23), (10, 27, 25), (11, 22, 24)], ids=["spring", "autumn", "winter"]
)
def test_a_day_is_as_long_as_the_clocks_make_it(month: int, day: int, hours: int) -> None:
    zone = ZoneInfo("Europe/Berlin")
    midnight_s = datetime(2024, month, day, tzinfo=zone).timestamp()
    assert window("day", midnight_s, zone).resets_at_s == midnight_s + timedelta(hours=hours).total_seconds()


def test_a_week_across_the_new_year_is_one_window() -> None:
    assert window("week", datetime(2026, 12, 31, tzinfo=UTC).timestamp()).name == "2026-W53"
    assert window("week", datetime(2027, 1, 3, tzinfo=UTC).timestamp()).name == "2026-W53"


def test_a_budget_in_all_has_one_window_without_end() -> None:
    assert window("total", 0) == window("total", 1_800_000_000)
    assert window("total", 0).resets_at_s is None
