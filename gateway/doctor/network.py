"""Whether upstream can be reached, shows a good certificate, takes the key, and has the same time.

Asks for the list of models once, which costs nothing. No finding holds a key
or a proxy's URL.
"""

import socket
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx2

from gateway.doctor.findings import KEYS_PAGE, Finding, Mark
from gateway.settings import Upstream
from gateway.upstream.origin import Origin, tls_context

_MAX_SKEW_S = 300.0


def examine_upstream(upstream: Upstream, now: datetime, timeout_s: float) -> Iterator[Finding]:
    """The findings about `upstream`, which has a key, up to the first that makes the rest pointless."""
    resolved = _resolve(upstream)
    yield resolved
    if resolved.mark is Mark.GOOD:
        yield from _ask(upstream, now, timeout_s)


def _resolve(upstream: Upstream) -> Finding:
    # Behind a proxy it is the proxy that looks upstream's name up.
    what, url = ("upstream", upstream.base_url) if upstream.proxy is None else ("the proxy", upstream.proxy)
    origin = Origin.from_url(url)
    try:
        found = socket.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        cure = "check the name in the settings, and this machine's DNS (see: /etc/resolv.conf)"
        reason = getattr(error, "strerror", None) or "not a host name"
        return Finding(Mark.BAD, f"{what}'s name {origin.host} does not resolve: {reason}", cure)
    return Finding(Mark.GOOD, f"{what}'s name {origin.host} resolves ({len({entry[4] for entry in found})})")


def _ask(upstream: Upstream, now: datetime, timeout_s: float) -> Iterator[Finding]:
    origin = Origin.from_url(upstream.base_url)
    try:
        reply = _get_models(upstream, timeout_s)
    except httpx2.HTTPError as error:
        yield _unreachable(origin, error, timeout_s)
        return
    secured = " with a valid certificate" if origin.is_tls else " (without TLS)"
    yield Finding(Mark.GOOD, f"{origin.authority} answers{secured}")
    yield _verdict(upstream, reply.status_code)
    yield from _clock(reply.headers.get("date", ""), now)


def _get_models(upstream: Upstream, timeout_s: float) -> httpx2.Response:
    """The reply to GET models, its body unread. Raises httpx2.HTTPError."""
    headers = {}
    if upstream.api_key is not None:
        headers["Authorization"] = f"Bearer {upstream.api_key.get_secret_value()}"
    if upstream.organization_id is not None:
        headers["X-Organization-ID"] = upstream.organization_id
    with (
        httpx2.Client(
            verify=tls_context(upstream.ca_file),
            proxy=upstream.proxy,
            trust_env=False,
            timeout=timeout_s,
            headers=headers,
        ) as client,
        client.stream("GET", f"{upstream.base_url}/models") as reply,
    ):
        return reply


def _unreachable(origin: Origin, error: httpx2.HTTPError, timeout_s: float) -> Finding:
    where = origin.authority
    if isinstance(error, httpx2.TimeoutException):
        cure = "check the firewall and whether the way out leads through a proxy (upstream.proxy)"
        return Finding(Mark.BAD, f"{where} did not answer within {timeout_s:g} s", cure)
    if isinstance(error, httpx2.ProxyError):
        return Finding(Mark.BAD, f"the proxy does not let us through to {where}", "check upstream.proxy")
    if (refused := _certificate_error(error)) is not None:
        cure = "if a proxy or a private authority signs for it, name its certificate in upstream.ca_file"
        return Finding(Mark.BAD, f"{where} shows a certificate that is not trusted: {refused}", cure)
    cure = "check upstream.base_url (scheme and port too), the firewall, and upstream.proxy"
    return Finding(Mark.BAD, f"{where} cannot be reached: {type(error).__name__}", cure)


def _certificate_error(error: BaseException | None) -> str | None:
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return error.verify_message
        error = error.__cause__ or error.__context__
    return None


def _verdict(upstream: Upstream, status: int) -> Finding:
    asked = f"GET {upstream.base_url}/models answers {status}"
    if status in (401, 403):
        cure = f"make another at {KEYS_PAGE}, or check upstream.organization_id"
        return Finding(Mark.BAD, f"{asked}: the key is refused", cure)
    if status == 200:
        return Finding(Mark.GOOD, f"{asked}: the key is good")
    if status == 429 or status >= 500:
        return Finding(Mark.WARNING, f"{asked}: the key could not be checked", "try again in a minute")
    return Finding(Mark.BAD, asked, "check upstream.base_url; OpenAI's API sits under a path such as /v1")


def _clock(date: str, now: datetime) -> Iterator[Finding]:
    try:
        theirs = parsedate_to_datetime(date)
    except ValueError:
        return
    skew_s = (now - (theirs if theirs.tzinfo else theirs.replace(tzinfo=UTC))).total_seconds()
    if abs(skew_s) > _MAX_SKEW_S:
        way = "ahead of" if skew_s > 0 else "behind"
        text = f"this machine's clock is {abs(skew_s) / 60:.0f} min {way} upstream's"
        yield Finding(Mark.WARNING, text, "let it follow a time server (see: timedatectl)")
    else:
        yield Finding(Mark.GOOD, "this machine's clock agrees with upstream's")
