"""Which server upstream is, and which certificates it may show.

Knows scheme, host and port, and how to set up TLS. Opens no connection.
"""

import ssl
from dataclasses import dataclass
from urllib.parse import urlsplit

_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Origin:
    """One server, as in RFC 6454: `scheme` is http or https, `host` a name or an address without brackets."""

    scheme: str
    host: str
    port: int

    @classmethod
    def from_url(cls, url: str) -> "Origin":
        """The origin of an http or https URL; its path is ignored. Raises ValueError for any other URL."""
        parts = urlsplit(url)
        if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
            raise ValueError("an upstream URL starts with http:// or https:// and names a host")
        return cls(parts.scheme, parts.hostname, parts.port or _DEFAULT_PORTS[parts.scheme])

    @property
    def is_tls(self) -> bool:
        return self.scheme == "https"

    @property
    def authority(self) -> str:
        """Host and port as the Host header has them: no default port, IPv6 in brackets (RFC 9110, 7.2)."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"


def tls_context(ca_file: str | None) -> ssl.SSLContext:
    """TLS 1.2 or later with certificate and host name checked.

    `ca_file`: PEM file of the authorities to trust instead of the system's. Raises OSError when it cannot be
    read, and ssl.SSLError (an OSError too) when it holds no certificate.
    """
    context = ssl.create_default_context(cafile=ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context
