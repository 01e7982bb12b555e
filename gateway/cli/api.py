"""The admin API as commands use it: of a running gateway, or, in this process, on the store of the settings file.

One code path for both: an HTTP client. Knows how to reach the API and how to put a refusal in words; what to ask, the
commands know.
"""

import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from gateway.terms import SHORT_NAMES

if TYPE_CHECKING:
    import httpx2

    from gateway.http.admin import LedgerDesk
    from gateway.limits.overview import Overview
    from gateway.settings import Settings
    from gateway.store.engine import Store

PREFIX = "/admin/v1"
_TIMEOUT_S = 60.0
_PAGE = 200
_OPTIONS = {
    "group_by": "--by",
    "expires_at": "--expires",
    "grace_s": "--grace",
    "tags": "--tag",
    "limits.max_wait_s": "--max-wait-s",
    **{f"limits.{limit}": f"--{short}" for short, limit in SHORT_NAMES.items()},
    **{f"grants.{grant}": f"--{grant}" for grant in ("models", "routes", "networks")},
    **{f"budgets.{period}_microusd": "--budget-usd" for period in ("day", "week", "month", "total")},
}
"""By the members of requests that are called otherwise there."""


class Refused(Exception):
    """What was asked for was not done; `message` is a sentence with the cure."""

    exit_code = 1

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.message = message
        self.status = status


class NoStore(Refused):
    """There is no store to ask; a command is no reason to make one."""

    exit_code = 2


class Api:
    """The admin API. Every method raises `Refused`."""

    def __init__(self, client: "httpx2.AsyncClient", where: str, place: str) -> None:
        """`where` begins a sentence about who was asked; `place` ends one about what is there or not."""
        self.place = place
        self._client = client
        self._where = where

    async def get(self, path: str, **parameters: Any) -> Any:
        """The JSON object at `path`."""
        return (await self.ask("GET", path, params=_said(parameters))).json()

    async def post(self, path: str, body: object = None) -> Any:
        """The reply to a JSON body, or to none."""
        return (await self.ask("POST", path, **({} if body is None else {"json": body}))).json()

    async def patch(self, path: str, body: object) -> Any:
        """The object after the change."""
        return (await self.ask("PATCH", path, json=body)).json()

    async def listed(
        self,
        path: str,
        most: int | None = None,
        *,
        keep: Callable[[dict[str, Any]], bool] | None = None,
        **filters: Any,
    ) -> list[dict[str, Any]]:
        """The objects of a list, page by page: all of them that `keep` keeps, or the first `most` of these."""
        found: list[dict[str, Any]] = []
        after: str | None = None
        limit = _PAGE if most is None else min(_PAGE, most)
        while True:
            page = await self.get(path, limit=limit, after=after, **filters)
            found += filter(keep, page["data"])
            after = page["next"]
            if after is None or (most is not None and len(found) >= most):
                return found[:most]

    async def ask(self, method: str, path: str, **content: Any) -> "httpx2.Response":
        """The reply to a request that was not refused."""
        # It takes 50 ms to import, which other commands need not wait for.
        import httpx2  # noqa: PLC0415

        try:
            response = await self._client.request(method, PREFIX + path, **content)
        except UnicodeEncodeError:
            # Python keeps what it cannot read as halves of surrogate pairs.
            cure = "Set PYTHONUTF8=1, and type them as UTF-8"
            raise Refused(f"What was typed has letters that this terminal's locale cannot read. {cure}.") from None
        except httpx2.TransportError as error:
            raise Refused(
                f"{self._where} cannot be reached ({_reason(error)}). Is the gateway running there?"
            ) from None
        if response.is_success:
            return response
        # What a document says is called there as in the API.
        raise self._refusal(response, is_typed="content" not in content)

    def _refusal(self, response: "httpx2.Response", *, is_typed: bool) -> Refused:
        if response.status_code == 401:
            cure = "Put an admin key into GATEWAY_ADMIN_KEY, or name its file with --key-file"
            return Refused(f"{self._where} does not take this key. {cure}.", 401)
        try:
            error = response.json()["error"]
            message = str(error["message"])
            return Refused(_with_option(message, error["param"]) if is_typed else message, response.status_code)
        except (ValueError, KeyError, TypeError):
            what = f"{self._where} answered {response.status_code} and is no gateway with an admin API"
            return Refused(f"{what}. Give its root by --url: http://127.0.0.1:8080.", response.status_code)


def _with_option(message: str, member: object) -> str:
    """The same, with the option behind the member of a request that it is about, if that is called otherwise."""
    option = _OPTIONS.get(str(member))
    if option is None:
        return message
    path, name = str(member), str(member).rpartition(".")[2]
    return re.sub(rf"(?<![\w.])({re.escape(path)}|{name})(?![\w.])", rf"\1 ({option})", message, count=1)


def _said(parameters: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in parameters.items() if value is not None}


def _reason(error: "httpx2.TransportError") -> str:
    import httpx2  # noqa: PLC0415 - as above

    # One about what was to be sent quotes it, and so perhaps the key.
    is_quoting = isinstance(error, httpx2.LocalProtocolError)
    return type(error).__name__ if is_quoting else str(error) or type(error).__name__


@asynccontextmanager
async def remote_api(url: str, key: str) -> AsyncIterator[Api]:
    """The API of the gateway at `url`, its root. Raises `Refused`."""
    async with _client(url, key) as client:
        yield Api(client, url, f"at {url}")


def _client(url: str, key: str) -> "httpx2.AsyncClient":
    import httpx2  # noqa: PLC0415 - as above

    # A proxy for the world outside is not in the way to this machine.
    is_proxied = not _is_this_machine(urlsplit(url).hostname or "")
    headers = {"authorization": f"Bearer {key}"}
    try:
        httpx2.URL(url)
    except httpx2.InvalidURL:
        raise Refused(f"{url} is no URL. Write it as http://host:port.") from None
    try:
        return httpx2.AsyncClient(base_url=url, headers=headers, timeout=_TIMEOUT_S, trust_env=is_proxied)
    except (ValueError, ImportError, httpx2.InvalidURL):
        # It is the environment's, and may hold a password.
        cure = "Put right what HTTP_PROXY, HTTPS_PROXY and ALL_PROXY say, or add the host to NO_PROXY"
        raise Refused(f"{url} cannot be reached through the proxy that the environment names. {cure}.") from None


def _is_this_machine(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@asynccontextmanager
async def local_api(settings: "Settings") -> AsyncIterator[Api]:
    """The API on the store of `settings`, for whoever may read and write that. Raises `Refused` at once.

    Makes no database, since it would be an empty one in whatever folder this is.
    """
    import httpx2  # noqa: PLC0415 - as above

    from gateway.access.administration import Administration  # noqa: PLC0415 - with the store, another 200 ms
    from gateway.access.records import Actor  # noqa: PLC0415
    from gateway.cli.migration import existing, migrated  # noqa: PLC0415
    from gateway.http.admin import admin_app  # noqa: PLC0415
    from gateway.http.routes import ROUTES  # noqa: PLC0415
    from gateway.store.engine import Store  # noqa: PLC0415

    async def authenticate(_: object) -> Actor:
        return Actor("cli", "admin")

    place = existing(settings)
    store = Store(await migrated(settings), pool_size=1, timeout_s=settings.database.timeout_s)
    try:
        groups = frozenset(route.group for route in ROUTES)
        # Running gateways look for changes themselves.
        administration = Administration(store, on_change=None, route_groups=groups)
        async with _limits_seen(settings, store) as overview:
            # Who sees budgets asks for the calls that go past them.
            desk = None if overview is None else _ledger(settings, store)
            transport = httpx2.ASGITransport(admin_app(administration, authenticate, overview, desk))
            async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
                yield Api(client, "The store", f"in {place}")
    finally:
        await store.close()


def _ledger(settings: "Settings", store: "Store") -> "LedgerDesk":
    from zoneinfo import ZoneInfo  # noqa: PLC0415 - with what asks the store, as above

    from gateway.http.admin import LedgerDesk  # noqa: PLC0415
    from gateway.metering.ledger_queries import LedgerQueries  # noqa: PLC0415
    from gateway.metering.rollups import Days  # noqa: PLC0415

    days = Days(ZoneInfo(settings.limits.time_zone))
    return LedgerDesk(store, days, LedgerQueries(store, days), timeout_s=settings.database.timeout_s)


@asynccontextmanager
async def _limits_seen(settings: "Settings", store: "Store") -> AsyncIterator["Overview | None"]:
    if settings.redis.url is None:
        yield None  # they are in the memory of the gateway that counts
        return
    from gateway.composition import shared_overview  # noqa: PLC0415 - with the rooms of a gateway, another 100 ms

    async with shared_overview(settings, store) as overview:
        yield overview
