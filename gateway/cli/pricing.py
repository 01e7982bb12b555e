"""Budgets that nothing draws on, or not all: said where one is set or shown while models that it is for have no price.

Knows which names a price list has a price for. The prices of a gateway that is asked by --url are not here: of those it
says itself whether there are any.
"""

import contextlib
from collections.abc import Iterable, Mapping
from datetime import date
from pathlib import Path

from gateway.cli.administering import Desk
from gateway.cli.api import Api, Refused
from gateway.cli.printing import Record, program
from gateway.cli.settings import print_finding
from gateway.doctor.findings import Finding, Mark
from gateway.metering.prices import DEFAULT_FILE, PricesError, load_prices
from gateway.settings import Settings

NO_PRICES = "no model has a price, so that no call draws on a budget"
_SHOWN = 3
"""Models that are named."""
_FORBIDDEN = 403


async def doubt_of(desk: Desk, record: Record) -> None:
    """Say on standard error why nothing will draw on the budgets of a team or a key that was made or changed."""
    if all(amount is None for amount in record["budgets"].values()):
        return
    finding = await _finding(desk, record)
    if finding is not None:
        print_finding(finding, err=True)


def lacks_prices(desk: Desk, told: Record) -> bool:
    """Whether no model has a price, where limits are as `told`; False where that cannot be known."""
    if desk.settings is None:
        return told["has_prices"] is False
    with contextlib.suppress(PricesError):
        return not _priced_names(desk.settings)
    return False


async def uncounted(api: Api, told: Record, whose: Mapping[str, str]) -> str | None:
    """What to say of calls whose cost nobody knows, since the first of the budgets in `told` began; None: of none.

    `whose`: the key or the team that is asked about; nobody: the key that asks.
    """
    budgets = (limit for limit in told["data"] if limit["dimension"] == "budget")
    windows = {limit["period"]: limit["id"].rpartition("/")[2] for limit in budgets}
    if not windows:
        return None
    since, when = begin_of(windows)
    found = await _unpriced_since(api, since, whose)
    if found is None or not found["totals"]["unpriced_calls"]:
        return None
    models = [row["group"]["model"] or "(none)" for row in found["data"] if row["unpriced_calls"]]
    shown = ", ".join(models[:_SHOWN]) + (" and others" if len(models) > _SHOWN else "")
    count = f"{found['totals']['unpriced_calls']:,} of its calls {when}"
    return (
        f"{count} used what has no price: {shown}. Of a model without any price budgets hold nothing, of others what "
        "was reserved. See docs/prices.md."
    )


def cure_of(settings: Settings | None) -> str:
    """Where to write prices."""
    file = DEFAULT_FILE if settings is None else settings.prices.file or DEFAULT_FILE
    return f"write prices into {file} (docs/prices.md)"


def unpriced(record: Record, priced: Iterable[str], aliases: Mapping[str, str]) -> str | None:
    """Why no call draws on the budgets of a team or a key, where these names have a price; None: one may."""
    names = tuple(priced)
    if not names:
        return NO_PRICES
    granted = record["grants"]["models"]
    if granted is None or any(may_overlap(aliases.get(model, model), name) for model in granted for name in names):
        return None
    return f"none of the models that {record['name']} may use has a price, so that no call draws on its budget"


def may_overlap(one: str, other: str) -> bool:
    """Whether some name may fit both, `*` being any run of characters: never wrongly no, at times wrongly yes."""
    if "*" not in one + other:
        return one == other
    heads = sorted((one.partition("*")[0], other.partition("*")[0]), key=len)
    tails = sorted((one.rpartition("*")[2], other.rpartition("*")[2]), key=len)
    return heads[1].startswith(heads[0]) and tails[1].endswith(tails[0])


def begin_of(windows: Mapping[str, str]) -> tuple[str, str]:
    """When the first of some budgets' windows, `2026-11` of a month say, began: for the API, and in words."""
    if "total" in windows:
        return "365d", "in the last 365 days"  # a member may ask for a year
    first_days = {"month": "{}-01", "week": "{}-1", "day": "{}"}
    since = min(date.fromisoformat(first_days[period].format(window)) for period, window in windows.items()).isoformat()
    return since, f"since {since}"


async def _unpriced_since(api: Api, since: str, whose: Mapping[str, str]) -> Record | None:
    """Sums by model; None where the ledger cannot be asked, since limits are known all the same."""
    path = "/usage" if whose else "/me/usage"
    try:
        found: Record = await api.get(path, group_by="model", since=since, sort="-unpriced_calls", **whose)
    except Refused as refusal:
        # A member sees the limits of one key, and its calls at one path.
        is_own = refusal.status == _FORBIDDEN and "key" in whose
        return await _unpriced_since(api, since, {}) if is_own else None
    return found


async def _finding(desk: Desk, record: Record) -> Finding | None:
    settings = desk.settings
    if settings is None:
        # It was done, whatever can be seen of it.
        with contextlib.suppress(Refused):
            if lacks_prices(desk, await desk.api.get("/limits", **{record["object"]: record["id"]})):
                return Finding(Mark.WARNING, NO_PRICES, cure_of(None))
        return None
    try:
        reason = unpriced(record, _priced_names(settings), settings.models.aliases)
    except PricesError as error:
        return Finding(Mark.WARNING, f"prices cannot be read: {error.problems[0]}", f"{program()} check-config")
    return None if reason is None else Finding(Mark.WARNING, reason, cure_of(settings))


def _priced_names(settings: Settings) -> tuple[str, ...]:
    file = settings.prices.file
    return load_prices(None if file is None else Path(file)).priced_names
