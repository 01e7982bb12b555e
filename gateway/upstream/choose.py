"""Make the transport that the settings ask for.

Knows which transport can do what. Opens no connection; reads the file of
certificate authorities if there is one.
"""

from typing import TYPE_CHECKING

from gateway.settings import Upstream
from gateway.upstream.native import NativeTransport
from gateway.upstream.origin import Origin, tls_context
from gateway.upstream.transport import Timeouts, Transport

if TYPE_CHECKING:
    from gateway.upstream.httpx2_transport import Httpx2Transport


def make_transport(settings: Upstream) -> Transport:
    """A transport to the origin of `base_url`.

    Raises ValueError when the settings contradict each other, OSError when `ca_file` cannot be read and
    ssl.SSLError (an OSError too) when it holds no certificate.
    """
    if settings.transport == "native" and settings.proxy:
        raise ValueError(
            "upstream.transport is native, which goes through no proxy: "
            "set it to auto or httpx2, or take upstream.proxy out"
        )
    if settings.transport == "httpx2" or settings.proxy:
        return _httpx2(settings)
    return _native(settings)


def _native(settings: Upstream) -> NativeTransport:
    origin = Origin.from_url(settings.base_url)
    return NativeTransport(
        origin,
        _timeouts(settings),
        max_connections=settings.max_connections,
        ssl_context=tls_context(settings.ca_file) if origin.is_tls else None,
    )


def _httpx2(settings: Upstream) -> "Httpx2Transport":
    # Few take it, and it takes 25 ms to import.
    from gateway.upstream.httpx2_transport import Httpx2Transport  # noqa: PLC0415

    origin = Origin.from_url(settings.base_url)
    needs_tls = origin.is_tls or (settings.proxy or "").startswith("https:")
    return Httpx2Transport(
        origin,
        _timeouts(settings),
        max_connections=settings.max_connections,
        ssl_context=tls_context(settings.ca_file) if needs_tls else None,
        proxy=settings.proxy,
    )


def _timeouts(settings: Upstream) -> Timeouts:
    return Timeouts(
        connect_s=settings.connect_timeout_s,
        first_byte_s=settings.first_byte_timeout_s,
        idle_s=settings.idle_timeout_s,
        total_s=settings.total_timeout_s,
    )
