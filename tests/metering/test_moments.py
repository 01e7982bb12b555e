"""Times as people say them."""

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest

from gateway.metering import moments

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=timezone(timedelta(hours=1)))


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("today", "2026-11-22T00:00+01:00"),
        ("1d", "2026-11-22T00:00+01:00"),
        ("0d", "2026-11-22T00:00+01:00"),
        ("yesterday", "2026-11-21T00:00+01:00"),
        ("7d", "2026-11-16T00:00+01:00"),
        ("1w", "2026-11-16T00:00+01:00"),
        ("2026-11-01", "2026-11-01T00:00+01:00"),
        ("2026-11-01T18:00", "2026-11-01T18:00+01:00"),
        ("2026-11-01T18:00Z", "2026-11-01T18:00+00:00"),
        ("999999999w", "1970-01-01T00:00+00:00"),
        ("999999999h", "1970-01-01T00:00+00:00"),
        ("0001-01-01", "1970-01-01T00:00+00:00"),
    ],
)
def test_a_time_begins_with_its_first_day_of_which_today_is_the_last(text: str, moment: str) -> None:
    assert moments.since(text, NOW) == int(datetime.fromisoformat(moment).timestamp())


def test_hours_are_counted_from_now() -> None:
    assert moments.since("12h", NOW) == int((NOW - timedelta(hours=12)).timestamp())


def test_a_day_begins_at_its_own_midnight_also_where_the_clocks_changed_since() -> None:
    now = datetime(2026, 10, 26, 12, 0, tzinfo=ZoneInfo("Europe/Berlin"))
    assert moments.since("2d", now) == int(datetime(2026, 10, 24, 22, 0, tzinfo=UTC).timestamp())
