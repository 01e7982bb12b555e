"""What people type for terms, and what it means."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from gateway.cli import values
from gateway.metering import moments

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=timezone(timedelta(hours=1)))


@pytest.mark.parametrize(
    ("reader", "text", "value"),
    [
        (values.count, "60", 60),
        (values.count, "none", None),
        (values.wait_s, "0", 0),
        (values.wait_s, "600", 600),
        (values.wait_s, "none", None),
        (values.names, "a", ["a"]),
        (values.names, "openai/*, gpt-5.2", ["openai/*", "gpt-5.2"]),
        (values.names, "any", None),
        (moments.duration_s, "90s", 90),
        (moments.duration_s, "10m", 600),
        (moments.duration_s, "2w", 14 * 86_400),
        (values.budget, "5/day", ("day_microusd", 5_000_000)),
        (values.budget, "$0.50/month", ("month_microusd", 500_000)),
        (values.budget, "0.000001/total", ("total_microusd", 1)),
        (values.budget, ".5/day", ("day_microusd", 500_000)),
        (values.budget, "none/week", ("week_microusd", None)),
        (values.tag, "a=b=c", ("a", "b=c")),
        (values.tag, "a=", ("a", "")),
        (
            values.model_limit,
            "openai/*:rpm=60,tpm=9",
            ("openai/*", {"requests_per_minute": 60, "tokens_per_minute": 9}),
        ),
        (values.model_limit, "a:b:parallel=none", ("a:b", {"parallel": None})),
        (values.model_limit, "a:none", ("a", None)),
        (values.server_url, "http://h:1/", "http://h:1"),
        (values.server_url, "https://h/v1/", "https://h"),
        (values.server_url, "http://h/admin/v1", "http://h"),
    ],
)
def test_values_mean_what_they_say(reader: Callable[[str], object], text: str, value: object) -> None:
    assert reader(text) == value


@pytest.mark.parametrize(
    ("reader", "text"),
    [
        *((values.count, text) for text in ("", "0", "-1", "1.5", "x", "any", " 1", "\u0661", "9" * 16)),
        *((values.wait_s, text) for text in ("", "601", "-1", "1.5", "x", "any", " 1", "\u0661")),
        *((values.names, text) for text in ("", ",", "a,", "a,,b", " ")),
        *((moments.duration_s, text) for text in ("", "5", "5y", "-5m", "1h30m")),
        *(
            (values.budget, text)
            for text in (
                "",
                "5",
                "5/hour",
                "/day",
                "0/day",
                "-1/day",
                "0.0000001/day",
                "x/day",
                "inf/day",
                "nan/day",
                "1e99999999/day",
                "1e5000/day",
                "1e3/day",
                "\u0665/day",
            )
        ),
        *((values.tag, text) for text in ("", "a", "=b")),
        *((values.model_limit, text) for text in ("", "a", ":rpm=1", "a:rpx=1", "a:rpm", "a:rpm=0")),
        *((values.server_url, text) for text in ("", "h:1", "ftp://h")),
    ],
)
def test_what_means_nothing_is_refused_with_what_to_write(reader: Callable[[str], object], text: str) -> None:
    with pytest.raises(ValueError, match=r"^must "):
        reader(text)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("30d", NOW + timedelta(days=30)),
        ("12h", NOW + timedelta(hours=12)),
        ("2027-01-31", datetime(2027, 1, 31, 22, 59, 59, tzinfo=UTC)),
        ("2027-01-31T18:00", datetime(2027, 1, 31, 17, 0, tzinfo=UTC)),
        ("2027-01-31 18:00", datetime(2027, 1, 31, 17, 0, tzinfo=UTC)),
        ("2027-01-31T18:00-05:00", datetime(2027, 1, 31, 23, 0, tzinfo=UTC)),
        ("2027-01-31T18:00:00Z", datetime(2027, 1, 31, 18, 0, tzinfo=UTC)),
    ],
)
def test_a_key_ends_at_the_end_of_a_day_at_a_moment_or_after_a_time(text: str, moment: datetime) -> None:
    assert values.expiry(text, NOW) == int(moment.timestamp())


def test_never_is_no_expiry() -> None:
    assert values.expiry("never", NOW) is None


@pytest.mark.parametrize("text", ["", "none", "tomorrow", "2027-02-30", "31.01.2027", "30"])
def test_an_expiry_that_means_nothing_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^must be never, a time from now such as 30d, or a date"):
        values.expiry(text, NOW)


def test_the_key_is_taken_as_given_or_from_a_file_or_from_the_environment(tmp_path: Path) -> None:
    file, other = tmp_path / "key", tmp_path / "other"
    environ = {"GATEWAY_ADMIN_KEY": "from-env", "GATEWAY_ADMIN_KEY_FILE": str(other)}
    assert values.secret_source("given", file, environ) == ("--key", "given")
    assert values.secret_source(None, file, environ) == ("--key-file", file)
    assert values.secret_source(None, None, environ) == ("GATEWAY_ADMIN_KEY", "from-env")
    assert values.secret_source(None, None, {"GATEWAY_ADMIN_KEY_FILE": str(other)}) == ("GATEWAY_ADMIN_KEY_FILE", other)
    assert values.secret_source(None, None, {"GATEWAY_ADMIN_KEY": "", "GATEWAY_ADMIN_KEY_FILE": ""}) is None


@pytest.mark.parametrize("length", [4_096, 4_097])
def test_of_a_key_file_so_much_is_read_as_a_key_may_be_long(tmp_path: Path, length: int) -> None:
    (tmp_path / "key").write_bytes(b"k" * length)
    if length > 4_096:
        with pytest.raises(ValueError, match="must hold a key and nothing else"):
            values.secret(tmp_path / "key")
    else:
        assert len(values.secret(tmp_path / "key")) == length


def test_a_key_file_need_have_no_end() -> None:
    with pytest.raises(ValueError, match="must hold a key and nothing else"):
        values.secret(Path("/dev/zero"))


def test_a_key_file_may_end_its_line(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"from-file \r\n")
    assert values.secret(tmp_path / "key") == "from-file"


@pytest.mark.parametrize("text", ["none", "openai/*", "openai/*:any", ":none"])
def test_a_limit_of_a_model_that_means_nothing_is_told_how_one_is_lifted(text: str) -> None:
    with pytest.raises(ValueError, match=r"'openai/\*:none'"):
        values.model_limit(text)
