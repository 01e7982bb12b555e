"""When a time begins, as people say it: `today`, `7d`, `2027-01-31T18:00`. Pure.

Commands and the admin API take the same words. `now` has a zone, in which days begin and times without an offset are
read. Each function raises ValueError with a sentence that says what to write.
"""

import re
from datetime import date, datetime, time

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
DURATION = re.compile(r"([0-9]{1,9})([smhdw])")
"""As `12h`, which `duration_s` reads."""
_EPOCH = date(1970, 1, 1).toordinal()


def duration_s(text: str) -> int:
    """Seconds of `90s`, `10m`, `12h`, `30d` or `2w`."""
    found = DURATION.fullmatch(text)
    if found is None:
        raise ValueError("must be a number with a unit, such as 10m, 12h or 30d")
    return int(found[1]) * _UNITS_S[found[2]]


def since(text: str, now: datetime) -> int:
    """Unix time at which `today`, `yesterday` or the day `2027-01-31` begins, of `12h` ago, or of `2027-01-31T18:00`.

    Of `7d` and `2w`, the beginning of the first of so many days, of which today is the last. Nothing is before 1970.
    """
    days = {"today": 1, "yesterday": 2}.get(text) or _days(text)
    if days is not None:
        first = max(now.toordinal() - days + 1, _EPOCH)
        return max(0, int(datetime.combine(date.fromordinal(first), time(), now.tzinfo).timestamp()))
    if DURATION.fullmatch(text):
        return max(0, int(now.timestamp()) - duration_s(text))
    wanted = "must be today, yesterday, a time before now such as 7d or 12h, or a date such as 2027-01-31"
    return max(0, int(moment(text, now, wanted).timestamp()))


def moment(text: str, now: datetime, wanted: str) -> datetime:
    """The moment `2027-01-31T18:00`, or of the beginning of a day; `wanted` is what an error says."""
    try:
        read = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(wanted) from None
    return read.replace(tzinfo=now.tzinfo) if read.tzinfo is None else read


def _days(text: str) -> int | None:
    found = DURATION.fullmatch(text)
    if found is None or found[2] not in ("d", "w"):
        return None
    return max(1, int(found[1]) * _UNITS_S[found[2]] // _UNITS_S["d"])
