"""What people type for terms of keys and teams, as the API takes it: pure.

`none`, `any` and `never` lift what binds, so that an empty variable in a script never does. Each function raises
ValueError with a sentence that says what to write.
"""

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from urllib.parse import urlsplit

from gateway.metering import moments
from gateway.terms import MOST_WAIT_S, SHORT_NAMES

_MICROUSD = 1_000_000
_MOST_KEY_BYTES = 4096
_MOST_DOLLARS = 9_000_000_000
_DOLLARS = re.compile(r"\$?([0-9]+\.?[0-9]*|\.[0-9]+)")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_HEADER_SAFE = re.compile(r"[!-~]+")
"""Visible ASCII (RFC 9110, section 5.5)."""
_PERIODS = ("day", "week", "month", "total")


def count(text: str) -> int | None:
    """A whole number from 1, or None for `none`."""
    if text == "none":
        return None
    if not re.fullmatch(r"[0-9]{1,15}", text) or int(text) == 0:
        raise ValueError("must be a whole number from 1, or none")
    return int(text)


def wait_s(text: str) -> int | None:
    """Whole seconds from 0, or None for `none`: as the team says, or else the settings."""
    if text == "none":
        return None
    if not re.fullmatch(r"[0-9]{1,3}", text) or int(text) > MOST_WAIT_S:
        raise ValueError(f"must be whole seconds from 0 to {MOST_WAIT_S}, or none")
    return int(text)


def names(text: str) -> list[str] | None:
    """Names with commas between them, or None for `any`."""
    if text == "any":
        return None
    found = [name.strip() for name in text.split(",")]
    if not all(found):
        raise ValueError("must be names with commas between them, or any")
    return found


def expiry(text: str, now: datetime) -> int | None:
    """Unix time of `30d` from now, of the end of the day `2027-01-31`, of `2027-01-31T18:00`; None for `never`.

    `now` has a zone, in which days begin and end and times without an offset are read.
    """
    if text == "never":
        return None
    if moments.DURATION.fullmatch(text):
        return int(now.timestamp()) + moments.duration_s(text)
    ends = moments.moment(text, now, "must be never, a time from now such as 30d, or a date such as 2027-01-31")
    if _DATE.fullmatch(text):
        # Whoever says "until the 31st" means that day too.
        ends += timedelta(days=1) - timedelta(seconds=1)
    return int(ends.timestamp())


def budget(text: str) -> tuple[str, int | None]:
    """The member and the micro-dollars of `5/day`, `0.50/month` or `none/total`."""
    amount, slash, period = text.partition("/")
    if not slash or period not in _PERIODS:
        raise ValueError(f"must be dollars, a slash and one of {', '.join(_PERIODS)}: 5/day")
    return f"{period}_microusd", None if amount == "none" else _microusd(amount)


def _microusd(amount: str) -> int:
    if not _DOLLARS.fullmatch(amount):
        raise ValueError("must begin with a number of dollars, or none: 5/day")
    dollars = Decimal(amount.removeprefix("$"))
    if not 0 < dollars < _MOST_DOLLARS or dollars * _MICROUSD % 1:
        raise ValueError(f"must be more than 0 and less than {_MOST_DOLLARS:,} dollars, with at most six decimals")
    return int(dollars * _MICROUSD)


def model_limit(text: str) -> tuple[str, dict[str, int | None] | None]:
    """Model and limits of `openai/*:rpm=60,tpm=90000`; None for `openai/*:none`."""
    model, colon, limits = text.rpartition(":")
    if not colon or not model:
        raise ValueError("must be a model, a colon and limits, or none: 'openai/*:rpm=60,tpm=90000', 'openai/*:none'")
    if limits == "none":
        return model, None
    found = {}
    for limit in limits.split(","):
        name, _, value = limit.partition("=")
        if name not in SHORT_NAMES:
            known = ", ".join(SHORT_NAMES)
            raise ValueError(f"must have limits out of {known}: 'openai/*:rpm=60'; 'openai/*:none' lifts them")
        found[SHORT_NAMES[name]] = count(value)
    return model, found


def tag(text: str) -> tuple[str, str]:
    """Name and value of `name=value`."""
    name, sign, value = text.partition("=")
    if not sign or not name:
        raise ValueError("must be a name, an equals sign and a value: cost-centre=42")
    return name, value


def secret_source(given: str | None, file: Path | None, environ: Mapping[str, str]) -> tuple[str, str | Path] | None:
    """The option or variable that says the key to ask with, and the key, or the file that holds it."""
    named = environ.get("GATEWAY_ADMIN_KEY_FILE")
    sources = (
        ("--key", given),
        ("--key-file", file),
        ("GATEWAY_ADMIN_KEY", environ.get("GATEWAY_ADMIN_KEY")),
        ("GATEWAY_ADMIN_KEY_FILE", Path(named) if named else None),
    )
    return next(((name, source) for name, source in sources if source), None)


def secret(source: str | Path) -> str:
    """The key, which a header can carry. Raises OSError too."""
    text = source if isinstance(source, str) else _content(source)
    # HTTP clients quote what they cannot send, so nothing else may get to one.
    if "..." in text or "…" in text:
        raise ValueError("must be the key itself, where dots stand in its place")
    if not _HEADER_SAFE.fullmatch(text):
        raise ValueError("must hold a key and nothing else: visible ASCII characters on one line")
    return text


def _content(file: Path) -> str:
    with file.open("rb") as opened:  # which may have no end
        content = opened.read(_MOST_KEY_BYTES + 1)
    if len(content) > _MOST_KEY_BYTES:
        return ""
    return content.decode("latin-1").strip(" \t\r\n")


def server_url(text: str) -> str:
    """The gateway's root, of its base URL too."""
    if not text.startswith(("http://", "https://")):
        raise ValueError("must start with http:// or https://")
    if not _is_root(text):
        raise ValueError("must be http:// or https://, a host, perhaps a port, and no more: http://127.0.0.1:8080")
    return text.rstrip("/").removesuffix("/v1").removesuffix("/admin").rstrip("/")


def _is_root(url: str) -> bool:
    if not url.isprintable() or any(character in url for character in " ?#@"):
        return False
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
