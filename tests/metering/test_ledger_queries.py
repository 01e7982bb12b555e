"""What the ledger answers is what adding up its records one by one gives, from either kind of its rows."""

import itertools
import random
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest
from sqlalchemy import URL

from gateway.call import CallRecord, Principal, Route, Usage
from gateway.errors import BadRequest
from gateway.metering.ledger_drain import Drain
from gateway.metering.ledger_line import encode
from gateway.metering.ledger_queries import LedgerQueries
from gateway.metering.ledger_query import CallsQuery, Sums, UsageQuery
from gateway.metering.rollups import FAILED, Days
from gateway.store.engine import Store
from tests.metering.ledger import BERLIN, CHAT, NOON_S, RECORD, record

TEAMS = ("team_a", "team_b")
MODELS = ("openai/gpt-5.2", "zai/glm-5", None)
ROUTES = (CHAT, Route("POST", "responses"))
FIRST = datetime(2026, 10, 23, tzinfo=BERLIN)
"""The clocks go back in the night to the third day."""
LAST = FIRST + timedelta(days=5)
WORDS = {"team": "team_id", "key": "key_id"}


def us(moment: datetime) -> int:
    return int(moment.timestamp()) * 1_000_000


def made_up(seed: int, count: int) -> list[CallRecord]:
    """Calls of all kinds, from an hour before `FIRST` to an hour after `LAST`."""
    of = random.Random(seed)
    span_s = (LAST - FIRST).total_seconds() + 7_200
    return [
        one(of, f"req_{seed}_{number:04}", FIRST.timestamp() - 3_600 + of.random() * span_s) for number in range(count)
    ]


def one(of: random.Random, call_id: str, at_s: float) -> CallRecord:
    team, outcome = of.choice(TEAMS), of.choice(["done", "done", "refused", "cut", "client_left", "failed"])
    source = of.choice(["reported", "estimated", "unknown", "none"])
    tokens = of.randrange(1_000)
    return record(
        call_id,
        started_at_s=at_s,
        principal=Principal("k", "t", f"key_{team[-1]}{of.randrange(2)}", team),
        model=of.choice(MODELS),
        route=of.choice(ROUTES),
        outcome=outcome,
        status=of.choice([200, 429, 502, 0]),
        error=of.choice([None, "rate_limit_exceeded"]),
        usage=Usage(tokens, 2, tokens + 2, audio_ms=3) if source in ("reported", "estimated") else None,
        usage_source=source,
        cost_microusd=of.choice([None, of.randrange(10**6)]) if source in ("reported", "estimated") else None,
        tags={"project": of.choice("xy")} if outcome != "refused" and of.random() < 0.5 else {},
    )


RECORDS = made_up(1, 800)


@pytest.fixture
async def store(store_url: URL) -> AsyncIterator[Store]:
    made = Store(store_url)
    yield made
    await made.close()


@pytest.fixture
async def ledger(store: Store) -> LedgerQueries:
    """One with `RECORDS` in it, in Berlin."""
    lines = [encode(each) for each in RECORDS]
    for at in range(0, len(lines), 200):
        await Drain(store, Days(BERLIN)).write(lines[at : at + 200])
    return LedgerQueries(store, Days(BERLIN))


def value_of(record: CallRecord, word: str) -> Any:
    moment = datetime.fromtimestamp(record.started_at_s, BERLIN)
    assert record.principal is not None
    assert record.route is not None
    known = {
        "team": record.principal.team_id,
        "key": record.principal.key_id,
        "model": record.model,
        "route": record.route.path,
        "day": moment.date().isoformat(),
        "hour": int(record.started_at_s) // 3_600 * 3_600,
    }
    return known[word] if word in known else record.tags.get(word.removeprefix("tag:"))


def added_up(records: list[CallRecord]) -> dict[str, int]:
    """The sums as anybody would do them by hand."""
    used = [each.usage for each in records if each.usage is not None]
    return {
        "calls": len(records),
        "refused_calls": sum(each.outcome == "refused" for each in records),
        "failed_calls": sum(each.outcome in FAILED for each in records),
        "estimated_calls": sum(each.usage_source == "estimated" for each in records),
        "unknown_calls": sum(each.usage_source == "unknown" for each in records),
        "unpriced_calls": sum(each.usage is not None and each.cost_microusd is None for each in records),
        "cost_microusd": sum(each.cost_microusd or 0 for each in records),
        **{kind: sum(getattr(each, kind) for each in used) for kind in Usage.__struct_fields__},
    }


def expected(words: tuple[str, ...], records: list[CallRecord]) -> dict[tuple[Any, ...], dict[str, int]]:
    groups: dict[tuple[Any, ...], list[CallRecord]] = {}
    for each in records:
        groups.setdefault(tuple(value_of(each, word) for word in words), []).append(each)
    return {values: added_up(members) for values, members in groups.items()}


def between(since: datetime, until: datetime) -> list[CallRecord]:
    return [each for each in RECORDS if since.timestamp() <= each.started_at_s < until.timestamp()]


async def all_groups(ledger: LedgerQueries, query: UsageQuery) -> dict[tuple[Any, ...], dict[str, int]]:
    """The groups of all pages; the totals of each are those of all."""
    found: dict[tuple[Any, ...], dict[str, int]] = {}
    after = None
    while True:
        page = await ledger.usage(msgspec.structs.replace(query, after=after))
        for each in page.groups:
            values = tuple(each.group[word] for word in query.group_by)
            assert values not in found
            found[values] = msgspec.structs.asdict(each.sums)
        after = page.next
        if after is None:
            return found


GROUPINGS = [
    *itertools.chain.from_iterable(itertools.combinations(["key", "team", "model", "route", "day"], n) for n in (1, 2)),
    ("hour",),
    ("tag:project",),
    ("team", "tag:project", "day"),
    ("tag:project", "tag:none"),
]


@pytest.mark.parametrize("words", GROUPINGS, ids="-".join)
async def test_groups_are_those_of_the_records(ledger: LedgerQueries, words: tuple[str, ...]) -> None:
    query = UsageQuery(since_us=us(FIRST), until_us=us(LAST), group_by=words, limit=7)
    assert await all_groups(ledger, query) == expected(words, between(FIRST, LAST))
    page = await ledger.usage(query)
    assert msgspec.structs.asdict(page.totals) == added_up(between(FIRST, LAST))
    needs_calls = "hour" in words or any(word.startswith("tag:") for word in words)
    assert page.source == ("calls" if needs_calls else "days")


@pytest.mark.parametrize("minutes", [1, 60, 24 * 60 + 30])
async def test_a_time_that_begins_within_a_day_is_exact_as_well(ledger: LedgerQueries, minutes: int) -> None:
    since = FIRST + timedelta(minutes=minutes)
    query = UsageQuery(since_us=us(since), until_us=us(LAST), group_by=("team", "day"))
    assert await all_groups(ledger, query) == expected(("team", "day"), between(since, LAST))
    assert (await ledger.usage(query)).source == "calls"


async def test_the_hour_that_comes_twice_is_two(ledger: LedgerQueries) -> None:
    query = UsageQuery(since_us=us(FIRST), until_us=us(LAST), group_by=("hour",), sort="hour", limit=1_000)
    hours = [each.group["hour"] for each in (await ledger.usage(query)).groups]
    twice = [hour for hour in hours if isinstance(hour, int) and datetime.fromtimestamp(hour, BERLIN).hour == 2]
    dates = [datetime.fromtimestamp(hour, BERLIN).date().isoformat() for hour in twice]
    assert dates.count("2026-10-25") == 2


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "Africa/Casablanca"])
async def test_days_and_hours_are_those_of_any_zone(store: Store, zone: str) -> None:
    days = Days(ZoneInfo(zone))
    first = datetime(2026, 1, 1, tzinfo=days.zone)
    last = datetime(2027, 1, 1, tzinfo=days.zone)
    of = random.Random(2)
    span_s = last.timestamp() - first.timestamp()
    calls = [record(f"req_{n}", started_at_s=first.timestamp() + of.random() * span_s) for n in range(400)]
    await Drain(store, days).write([encode(each) for each in calls])
    ledger = LedgerQueries(store, days)
    from_days = UsageQuery(since_us=us(first), until_us=us(last), group_by=("day",), sort="day", limit=1_000)
    from_calls = msgspec.structs.replace(from_days, until_us=us(last) - 1)
    answers = [await ledger.usage(query) for query in (from_days, from_calls)]
    assert [answer.source for answer in answers] == ["days", "calls"]
    assert answers[0].groups == answers[1].groups
    found = {each.group["day"]: each.sums.calls for each in answers[0].groups}
    dates = [datetime.fromtimestamp(each.started_at_s, days.zone).date().isoformat() for each in calls]
    assert found == {each: dates.count(each) for each in set(dates)}


@pytest.mark.parametrize("source", ["days", "calls"])
@pytest.mark.parametrize(
    "filters",
    [
        {"team_ids": ("team_a",)},
        {"key_ids": ("key_a0", "key_b1")},
        {"models": ("zai/glm-5",), "team_ids": TEAMS},
        {"routes": ("/v1/responses",)},
        {"team_ids": ()},
    ],
    ids=str,
)
async def test_filters_let_through_what_they_name(ledger: LedgerQueries, filters: dict[str, Any], source: str) -> None:
    since = FIRST if source == "days" else FIRST + timedelta(hours=1)
    page = await ledger.usage(UsageQuery(since_us=us(since), until_us=us(LAST), **filters))
    words = {"team_ids": "team", "key_ids": "key", "models": "model", "routes": "route"}
    wanted = [
        each
        for each in between(since, LAST)
        if all(value_of(each, words[name]) in values for name, values in filters.items())
    ]
    assert (page.source, page.groups, page.next) == (source, (), None)
    assert msgspec.structs.asdict(page.totals) == added_up(wanted)


async def test_a_tag_is_a_filter_too(ledger: LedgerQueries) -> None:
    query = UsageQuery(since_us=us(FIRST), until_us=us(LAST), tags={"project": "x"}, group_by=("team",))
    wanted = [each for each in between(FIRST, LAST) if each.tags.get("project") == "x"]
    assert await all_groups(ledger, query) == expected(("team",), wanted)


@pytest.mark.parametrize("sort", ["cost_microusd", "-calls", "model", "-day"])
async def test_groups_come_in_the_order_that_was_asked_for(ledger: LedgerQueries, sort: str) -> None:
    query = UsageQuery(since_us=us(FIRST), until_us=us(LAST), group_by=("model", "day"), sort=sort)
    groups = (await ledger.usage(query)).groups
    name = sort.removeprefix("-")
    values = [each.group[name] if name in each.group else getattr(each.sums, name) for each in groups]
    known = [value for value in values if value is not None]
    assert known == sorted(known, reverse=sort.startswith("-"))
    assert values[: len(known)] == known, "what has no name comes last"


@pytest.mark.parametrize("words", [("model", "day"), ("tag:project", "hour"), ("day",), ("key", "route", "model")])
@pytest.mark.parametrize("way", ["", "-"])
async def test_pages_in_the_order_of_a_group_hold_each_once_whatever_calls_come_meanwhile(
    store: Store, ledger: LedgerQueries, words: tuple[str, ...], way: str
) -> None:
    query = UsageQuery(since_us=us(FIRST), until_us=us(LAST), group_by=words, sort=way + words[0], limit=3)
    found: list[tuple[Any, ...]] = []
    new, after = random.Random(2), None
    for number in itertools.count():
        page = await ledger.usage(msgspec.structs.replace(query, after=after))
        found += [tuple(each.group[word] for word in words) for each in page.groups]
        if page.next is None:
            break
        after = page.next
        call = one(new, f"req_new{number}", FIRST.timestamp() + new.random() * 86_400)
        await Drain(store, Days(BERLIN)).write([encode(msgspec.structs.replace(call, model=f"a{number:03}"))])
    assert len(found) == len(set(found))
    assert set(found) >= set(expected(words, between(FIRST, LAST)))
    first = [values[0] for values in found if values[0] is not None]
    assert first == sorted(first, reverse=way == "-")


@pytest.mark.parametrize(
    "wrong",
    [
        {"group_by": ("owner",)},
        {"group_by": ("tag:",)},
        {"group_by": ("team", "team")},
        {"group_by": ("day", "hour")},
        {"sort": "owner"},
        {"limit": 0},
        {"limit": 1_001},
        {"after": "nonsense"},
        {"until_us": 0},
        {"until_us": 2**63},
        {"since_us": -1},
    ],
    ids=str,
)
async def test_what_makes_no_sense_is_refused(store: Store, wrong: dict[str, Any]) -> None:
    with pytest.raises(BadRequest):
        await LedgerQueries(store, Days()).usage(UsageQuery(**{"since_us": us(FIRST), "until_us": us(LAST), **wrong}))


async def test_nothing_comes_to_nothing(store: Store) -> None:
    page = await LedgerQueries(store, Days()).usage(UsageQuery(since_us=0, until_us=10**15, group_by=("team",)))
    assert page.groups == ()
    assert page.totals == Sums(*[0] * len(Sums.__struct_fields__))


@pytest.mark.parametrize("since", [FIRST, FIRST + timedelta(minutes=1)], ids=["from sums by day", "from calls"])
async def test_usage_that_came_late_is_no_call_of_its_own(store: Store, since: datetime) -> None:
    at_s = (FIRST + timedelta(hours=1)).timestamp()
    due = record("req_1", started_at_s=at_s, usage=None, usage_source="due", cost_microusd=0)
    late = record("late_resp_1", started_at_s=at_s)
    await Drain(store, Days(BERLIN)).write([encode(due), encode(late)])
    page = await LedgerQueries(store, Days(BERLIN)).usage(UsageQuery(since_us=us(since), until_us=us(LAST)))
    assert (page.totals.calls, page.totals.output_tokens, page.totals.cost_microusd) == (1, 2, 12)


async def single_calls(ledger: LedgerQueries, query: CallsQuery) -> list[str]:
    """The ids of all pages."""
    found: list[str] = []
    after = None
    while True:
        page = await ledger.calls(msgspec.structs.replace(query, after=after))
        found += [each.id for each in page.calls]
        after = page.next
        if after is None:
            return found


def newest_first(records: list[CallRecord]) -> list[str]:
    return [each.id for each in sorted(records, key=lambda each: (int(each.started_at_s * 1e6), each.id), reverse=True)]


@pytest.mark.parametrize(
    ("filters", "holds"),
    [
        ({}, lambda _: True),
        ({"outcomes": ("cut", "failed")}, lambda each: each.outcome in ("cut", "failed")),
        ({"status_classes": (4, 0)}, lambda each: each.status in (429, 0)),
        ({"status_classes": ()}, lambda _: False),
        ({"errors": ("rate_limit_exceeded",)}, lambda each: each.error is not None),
        ({"tags": {"project": "y"}}, lambda each: each.tags.get("project") == "y"),
        (
            {"team_ids": ("team_b",), "models": ("zai/glm-5",)},
            lambda each: (each.principal.team_id, each.model) == ("team_b", "zai/glm-5"),
        ),
    ],
    ids=["all", "outcomes", "classes of status", "no class", "errors", "tags", "teams and models"],
)
async def test_single_calls_come_newest_first_each_once(
    ledger: LedgerQueries, filters: dict[str, Any], holds: Any
) -> None:
    query = CallsQuery(since_us=us(FIRST), until_us=us(LAST), limit=70, **filters)
    assert await single_calls(ledger, query) == newest_first([each for each in between(FIRST, LAST) if holds(each)])


async def test_pages_neither_repeat_nor_skip_calls_of_one_moment(store: Store) -> None:
    calls = [record(f"req_{number:02}") for number in range(10)]
    await Drain(store, Days()).write([encode(each) for each in calls])
    query = CallsQuery(since_us=0, until_us=10**16, limit=3)
    assert await single_calls(LedgerQueries(store, Days()), query) == newest_first(calls)


async def test_a_single_call_has_all_that_is_known_of_it(store: Store) -> None:
    unknown = record("req_2", usage=None, usage_source="unknown", cost_microusd=None)
    await Drain(store, Days()).write([encode(record("req_1", tags={"a": "b", "c": "d"})), encode(unknown)])
    ledger = LedgerQueries(store, Days())
    call = await ledger.call("req_1")
    assert call is not None
    assert RECORD.usage is not None
    assert (call.tags, call.usage) == ({"a": "b", "c": "d"}, msgspec.structs.asdict(RECORD.usage))
    assert (call.started_at_us, call.streamed, call.cost_microusd) == (int(NOON_S * 1e6), False, 12)
    other = await ledger.call("req_2")
    assert other is not None
    assert (other.usage, other.cost_microusd) == (None, None)


async def test_a_call_of_another_team_is_none(store: Store) -> None:
    await Drain(store, Days()).write([encode(record("req_1"))])
    ledger = LedgerQueries(store, Days())
    assert await ledger.call("req_1", ("team_engines",)) is not None
    for scope in (("team_other",), ()):
        assert await ledger.call("req_1", scope) is None
    assert await ledger.call("req_9") is None


@pytest.mark.usefixtures("ledger")
async def test_calls_that_ended_since_are_found_whenever_they_began(store: Store) -> None:
    end_s = LAST.timestamp() + 86_400
    ago_s = [(5, 1), (900, 0), (9, 2)]
    ended = [record(f"req_{began}", started_at_s=end_s - began, duration_s=began - end) for began, end in ago_s]
    await Drain(store, Days(BERLIN)).write([encode(each) for each in ended])
    last_second_us = int(end_s - 1) * 1_000_000
    query = CallsQuery(since_us=us(LAST), until_us=us(LAST + timedelta(days=2)), ended_since_us=last_second_us)
    page = await LedgerQueries(store, Days(BERLIN)).calls(query)
    assert [each.id for each in page.calls] == ["req_5", "req_900"]
