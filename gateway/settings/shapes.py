"""What the text of a setting must look like: URLs, addresses, names, secrets.

Each shape says in one phrase what is wrong and what is wanted, and never quotes what it was given: that may be a
password. Nothing here connects or looks anything up.
"""

import ipaddress
import re
from typing import Annotated
from urllib.parse import SplitResult, parse_qs, urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, Field, SecretStr

_SECRET_LENGTH = 16
_LISTEN = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^:\[\]]+)):([0-9]{1,5})")
_ENCODE = "percent-encode what is special in the password: %40 is @, %2F is /, %23 is #"
_REDIS_OPTIONS = frozenset(
    ("db", "client_name", "ssl_cert_reqs", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_check_hostname")
)
"""What redis-py reads from a URL and the gateway does not decide itself, as it does timeouts and retries."""
_PORTS = {"sentinel": 26_379, "cluster": 6_379}


def is_header_safe(text: str) -> bool:
    """Whether `text` is visible ASCII alone (RFC 9110, section 5.5: no space, no control character)."""
    return bool(text) and all("!" <= character <= "~" for character in text)


def is_strong(secret: str) -> bool:
    """Whether `secret` is long enough for a bearer key, and can be sent as one."""
    return len(secret) >= _SECRET_LENGTH and is_header_safe(secret)


def host_and_port(address: str) -> tuple[str, int]:
    """The two parts of `127.0.0.1:8081` or `[::1]:8081`, the brackets taken off. Raises ValueError."""
    parts = _LISTEN.fullmatch(address)
    if parts is None or not is_header_safe(address) or int(parts[3]) > 65_535:
        raise ValueError("must be host:port, such as 127.0.0.1:8081 or [::1]:8081")
    return parts[1] or parts[2], int(parts[3])


def _split_url(value: str, cure: str = "") -> SplitResult:
    # urlsplit drops line ends without a word, and would let them through into a Host header.
    if not is_header_safe(value):
        raise ValueError("is not a URL: write it in visible ASCII characters, without spaces")
    try:
        url = urlsplit(value)
        zero = url.port == 0
    except ValueError:
        # The original message quotes the URL, which may hold a password.
        hint = f"; {cure}" if cure else ""
        raise ValueError(f"is not a URL: its host or its port cannot be read{hint}") from None
    if zero:
        raise ValueError("is not a URL: its port is 0")
    return url


def _parse_http_url(value: str) -> SplitResult:
    url = _split_url(value)
    if url.scheme not in ("http", "https") or not url.hostname:
        raise ValueError("is not a URL that starts with http:// or https:// and names a host")
    return url


def _is_http_url(value: str) -> str:
    url = _parse_http_url(value)
    if "?" in value or "#" in value or "@" in url.netloc:
        raise ValueError("must not have a query, a fragment or credentials")
    return value.rstrip("/")


def _is_webhook_url(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    url = _parse_http_url(text)
    if "#" in text or "@" in url.netloc:
        raise ValueError("must not have a fragment or credentials")
    return value


def _is_proxy_url(value: str) -> str:
    url = _parse_http_url(value)
    if url.path not in ("", "/") or "?" in value or "#" in value:
        raise ValueError("must be scheme, host and port alone, with user:password@ before the host if need be")
    return value


def _is_database_url(value: str) -> str:
    url = _split_url(value, _ENCODE)
    _check_credentials(url)
    scheme, _, driver = url.scheme.partition("+")
    if scheme == "sqlite" and driver in ("", "aiosqlite"):
        _check_sqlite(url)
    elif scheme in ("postgresql", "postgres") and driver in ("", "asyncpg"):
        if len(url.path) < 2 or "/" in url.path[1:]:
            raise ValueError(f"must name a database: postgresql://user:password@host/name; {_ENCODE}")
    elif driver and scheme in ("sqlite", "postgresql", "postgres"):
        raise ValueError(f"names a driver that is not here; begin it with {scheme}://")
    else:
        raise ValueError("must start with postgresql:// or sqlite:///")
    return value


def _check_sqlite(url: SplitResult) -> None:
    if url.netloc:
        raise ValueError("must be sqlite:/// with three slashes and a path; four where the path begins at the root")
    # Each connection of a database in memory would see another one.
    if url.query or url.path in ("", "/") or ":memory:" in url.path or url.path.endswith("/"):
        raise ValueError("must name a file and nothing else: sqlite:///data/gateway.db")


def _is_redis_url(value: str) -> str:
    scheme, has_kind, kind = value.partition(":")[0].partition("+")
    if has_kind and scheme in ("redis", "rediss") and kind in ("sentinel", "cluster"):
        return _is_url_of_several(value, scheme, kind)
    url = _split_url(value, _ENCODE)
    _check_credentials(url)
    if url.scheme == "unix":
        if len(url.path) < 2:
            raise ValueError("must name a socket: unix:///run/redis.sock")
    elif url.scheme not in ("redis", "rediss") or not url.hostname:
        raise ValueError("must start with redis:// or rediss:// and name a host, or with unix:// and name a socket")
    elif re.fullmatch(r"(?:/[0-9]*)?", url.path) is None:
        raise ValueError(f"must end with the number of a database, such as /0, or without one; {_ENCODE}")
    _check_redis_options(url, is_tls=url.scheme == "rediss")
    return value


def _is_url_of_several(value: str, scheme: str, kind: str) -> str:
    """The hosts of sentinels, or some of a cluster, with commas between them."""
    start = f"{scheme}+{kind}://"
    login, at, hosts = value.removeprefix(start).partition("/")[0].partition("?")[0].rpartition("@")
    for host in hosts.split(","):
        if not _split_url(f"{scheme}://{login}{at}{host}", _ENCODE).hostname:
            raise ValueError(f"must name hosts with commas between them: {start}a:{_PORTS[kind]},b:{_PORTS[kind]}")
    first, rest = hosts.partition(",")[0], value.removeprefix(f"{start}{login}{at}{hosts}")
    url = _split_url(f"{scheme}://{login}{at}{first}{rest}", _ENCODE)
    _check_credentials(url)
    if kind == "sentinel" and re.fullmatch(r"/[^/]+(?:/[0-9]*)?", url.path) is None:
        raise ValueError(f"must name what the sentinels watch, and may name a database: {start}a,b/mymaster/0")
    if kind == "cluster" and url.path not in ("", "/"):
        raise ValueError("must not name a database: a cluster has one alone")
    _check_redis_options(url, is_tls=scheme == "rediss", without_db=True)
    return value


def _check_redis_options(url: SplitResult, *, is_tls: bool, without_db: bool = False) -> None:
    options = parse_qs(url.query, keep_blank_values=True)
    known = _REDIS_OPTIONS - {"db"} if without_db else _REDIS_OPTIONS
    if not options.keys() <= known:
        raise ValueError(f"has an option that is not one of {', '.join(sorted(known))}")
    if not is_tls and any(option.startswith("ssl_") for option in options):
        raise ValueError("has an option for TLS, which rediss:// alone has")
    if not all(number.isdecimal() for number in options.get("db", [])):
        raise ValueError("must have the number of a database as db")


def _check_credentials(url: SplitResult) -> None:
    # Readers of URLs differ on these, and half a password could end up in the name of a host.
    if url.fragment or url.netloc.count("@") > 1:
        raise ValueError(f"holds # or a second @; {_ENCODE}")


def _is_header_value(value: str) -> str:
    if not is_header_safe(value):
        raise ValueError("must be visible ASCII characters without spaces, since it is sent in a header")
    return value


def _is_secret_header_value(value: SecretStr) -> SecretStr:
    _is_header_value(_is_no_placeholder(value).get_secret_value())
    return value


def _is_no_placeholder(value: SecretStr) -> SecretStr:
    if any(dots in value.get_secret_value() for dots in ("...", "…")):
        raise ValueError("must be the key itself, where dots stand in its place")
    return value


def _is_strong_secret(value: SecretStr) -> SecretStr:
    _is_no_placeholder(value)
    if not is_strong(value.get_secret_value()):
        raise ValueError("must be 16 or more visible ASCII characters; make one with: openssl rand -hex 24")
    return value


def _is_host(value: str) -> str:
    if not is_header_safe(value):
        raise ValueError("must be an address or a host name")
    return value


def _is_listen_address(value: str) -> str:
    host_and_port(value)
    return value


def _is_time_zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("must be a time zone, such as UTC or Europe/Berlin") from None
    return value


def _is_network(value: str) -> str:
    try:
        return str(ipaddress.ip_network(value))
    except ValueError as error:
        if "host bits" in str(error):
            raise ValueError("must be a network whose bits after the prefix are 0, such as 10.0.0.0/8") from None
        raise ValueError("must be a network or an address, such as 10.0.0.0/8 or 192.0.2.7") from None


def _is_printable(value: str) -> str:
    if not value.isprintable():
        raise ValueError("must not hold line ends or other control characters")
    return value


def _is_sha256(value: str) -> str:
    if re.fullmatch(r"[0-9A-Fa-f]{64}", value) is None:
        raise ValueError('must be 64 hex digits, as `printf %s "$KEY" | sha256sum | cut -c1-64` prints')
    return value.lower()


Seconds = Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)]
Bytes = Annotated[int, Field(ge=1)]
HttpUrl = Annotated[str, AfterValidator(_is_http_url)]
WebhookUrl = Annotated[SecretStr, AfterValidator(_is_webhook_url)]
"""Its path or query is often all that keeps others from posting there."""
ProxyUrl = Annotated[str, AfterValidator(_is_proxy_url)]
DatabaseUrl = Annotated[str, AfterValidator(_is_database_url)]
RedisUrl = Annotated[str, AfterValidator(_is_redis_url)]
HeaderValue = Annotated[str, AfterValidator(_is_header_value)]
SecretHeaderValue = Annotated[SecretStr, AfterValidator(_is_secret_header_value)]
StrongSecret = Annotated[SecretStr, AfterValidator(_is_strong_secret)]
Host = Annotated[str, AfterValidator(_is_host)]
TimeZone = Annotated[str, AfterValidator(_is_time_zone)]
ListenAddress = Annotated[str, AfterValidator(_is_listen_address)]
Network = Annotated[str, AfterValidator(_is_network)]
Sha256 = Annotated[str, AfterValidator(_is_sha256)]
FilePath = Annotated[str, Field(min_length=1)]
Name = Annotated[str, Field(min_length=1, max_length=100), AfterValidator(_is_printable)]
ModelName = Annotated[str, Field(min_length=1, max_length=256), AfterValidator(_is_printable)]
