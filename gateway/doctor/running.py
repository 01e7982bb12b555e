"""Whether a gateway runs where the settings say that one would.

Asks whoever listens there one question, GET /healthz, without a key; knows nothing of how that gateway is set up. It
loads no server, so a check of settings may ask too.
"""

from http.client import HTTPConnection, HTTPException
from ipaddress import ip_address
from typing import TYPE_CHECKING

from gateway.doctor.findings import Finding, Mark
from gateway.settings import Server

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.store.residents import Resident

NO_KEY_HERE = "no upstream key in this shell's settings"
UNSEEN = "what the running gateway has cannot be seen from here"
"""Of its settings: they may come from another file, or from variables of another shell."""


def is_running(server: Server, timeout_s: float) -> bool:
    """Whether a gateway answers at `server`'s address. Whoever is there gets `timeout_s` to."""
    connection = HTTPConnection(_reached(server.host), server.port, timeout=timeout_s)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().getheader("x-gateway-request-id") is not None
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def neighbours(others: "Sequence[Resident]") -> Finding:
    """What to say of `others`, one or more, on the folder of a gateway whose limits are in its memory."""
    who = "; ".join(map(str, others))
    what = f"another gateway runs on this folder ({who})" if len(others) == 1 else f"others run on this folder ({who})"
    return each_admits_all(what)


def each_admits_all(what: str) -> Finding:
    """Of gateways that count limits in memory, where `what` says that they are several."""
    cure = "set redis.url for each, or stop all but one"
    return Finding(Mark.WARNING, f"{what}: without redis.url each admits all that limits allow", cure)


def local_url(host: str, port: int) -> str:
    """Where a client on this machine reaches a server that listens on `host`: `http://127.0.0.1:8080`."""
    reached = _reached(host)
    return f"http://[{reached}]:{port}" if ":" in reached else f"http://{reached}:{port}"


def _reached(host: str) -> str:
    try:
        address = ip_address(host)
    except ValueError:
        return host
    if not address.is_unspecified:
        return host
    return "::1" if address.version == 6 else "127.0.0.1"
