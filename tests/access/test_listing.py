"""Lists: filters, order and pages, on both kinds of database."""

import base64
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from sqlalchemy import URL, update

from gateway.access.drafts import AuditFilters, KeyFilters, TeamFilters
from gateway.access.records import Page
from gateway.errors import BadRequest
from gateway.store.tables import keys
from tests.access.desk import NOW, ROOT, Desk, opened


@pytest.fixture
async def desk(store_url: URL) -> AsyncIterator[Desk]:
    """Keys a to e in `research`, made one second after the other, and one in `sales`."""
    async with opened(store_url) as desk:
        await desk.team()
        await desk.team("sales", tags={"floor": "2"})
        for number, name in enumerate("abcde"):
            await desk.key(
                name, tags={"odd": str(number % 2), "it's": "x", "a.b[0]$": "y", "1": "z"}, owner=f"Owner {name}"
            )
            desk.now += 1
        await desk.key("Zoë", "sales", role="team_admin", expires_at=desk.now + 10)
        yield desk


def names(page: Page) -> str:
    return " ".join(item.name for item in page.items)


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        (KeyFilters(), "a b c d e Zoë"),
        (KeyFilters(team="sales"), "Zoë"),
        (KeyFilters(name="zO"), "Zoë"),
        (KeyFilters(name="%"), ""),
        (KeyFilters(owner="Owner b"), "b"),
        (KeyFilters(role="team_admin"), "Zoë"),
        (KeyFilters(state="disabled"), ""),
        (KeyFilters(tag="odd"), "a b c d e"),
        (KeyFilters(tag="odd=1"), "b d"),
        (KeyFilters(tag="it's=x", name="a"), "a"),
        (KeyFilters(tag="a.b[0]$=y", name="b"), "b"),
        (KeyFilters(tag="1=z", name="c"), "c"),
        (KeyFilters(tag="nope"), ""),
        (KeyFilters(expired=True), ""),
        (KeyFilters(expired=False, team="sales"), "Zoë"),
    ],
)
async def test_keys_are_filtered(desk: Desk, filters: KeyFilters, found: str) -> None:
    assert sorted(names(await desk.do.keys(ROOT, filters)).split()) == sorted(found.split())


async def test_a_key_that_ended_is_found_as_such(desk: Desk) -> None:
    desk.now += 10
    assert names(await desk.do.keys(ROOT, KeyFilters(expired=True))) == "Zoë"
    assert names(await desk.do.keys(ROOT, KeyFilters(expired=False))) == "a b c d e"


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        (TeamFilters(name="SEAR"), "research"),
        (TeamFilters(state="active"), "research sales"),
        (TeamFilters(tag="floor=2"), "sales"),
        (TeamFilters(state="disabled"), ""),
    ],
)
async def test_teams_are_filtered(desk: Desk, filters: TeamFilters, found: str) -> None:
    assert names(await desk.do.teams(ROOT, filters)) == found


@pytest.mark.parametrize("limit", [1, 2, 5])
@pytest.mark.parametrize(
    ("sort", "order"),
    [
        ("name", "a b c d e"),
        ("-name", "e d c b a"),
        ("created_at", "a b c d e"),
        ("-created_at", "e d c b a"),
        ("last_used_at", "a c e b d"),
        ("-last_used_at", "d b e c a"),
        ("expires_at", "c a b d e"),
    ],
)
async def test_pages_one_after_the_other_show_each_key_once_in_order(
    desk: Desk, sort: str, order: str, limit: int
) -> None:
    ids = {key.name: key.id for key in (await desk.do.keys(ROOT)).items}
    async with desk.store.writing() as connection:
        # Those that were never used, or never end, go by their ids, which are random.
        for at, name in enumerate(order.split()):
            values: dict[str, object] = {"id": f"key_{at if sort[0] != '-' else 9 - at:020}"}
            values |= {"last_used_at": NOW} if name in "bd" else {}
            values |= {"expires_at": NOW + 100} if name == "c" else {}
            await connection.exec_driver_sql(f"DELETE FROM secrets WHERE key_id = '{ids[name]}'")
            await connection.execute(update(keys).where(keys.c.id == ids[name]).values(values))
    shown, after = [], None
    while True:
        page = await desk.do.keys(ROOT, KeyFilters(team="research"), sort=sort, limit=limit, after=after)
        assert 0 < len(page.items) <= limit
        shown.append(names(page))
        if (after := page.next) is None:
            break
    assert " ".join(shown) == order


async def test_what_is_made_between_two_pages_neither_repeats_nor_hides_a_key(desk: Desk) -> None:
    first = await desk.do.keys(ROOT, KeyFilters(team="research"), limit=2)
    await desk.key("aa")
    await desk.do.revoke_key(ROOT, first.items[0].id)
    rest = await desk.do.keys(ROOT, KeyFilters(team="research"), after=first.next)
    assert names(first) + " " + names(rest) == "a b c d e"


@pytest.mark.parametrize(
    ("filters", "actions"),
    [
        (AuditFilters(action="team"), ["team.create"] * 2),
        (AuditFilters(action="key.create", until=NOW + 1), ["key.create"]),
        (AuditFilters(since=NOW + 5), ["key.create"]),
        (AuditFilters(team="sales"), ["key.create", "team.create"]),
        (AuditFilters(actor="nobody"), []),
        (AuditFilters(action="tea%"), []),
    ],
)
async def test_the_audit_log_is_filtered(desk: Desk, filters: AuditFilters, actions: list[str]) -> None:
    assert [entry.action for entry in (await desk.do.audit(ROOT, filters)).items] == actions


async def test_the_audit_log_comes_newest_first_page_by_page(desk: Desk) -> None:
    whole = (await desk.do.audit(ROOT)).items
    first = await desk.do.audit(ROOT, limit=3)
    rest = await desk.do.audit(ROOT, after=first.next)
    assert first.items + rest.items == whole
    assert [entry.id for entry in whole] == sorted((entry.id for entry in whole), reverse=True)
    assert rest.next is None


def _cursor(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode()


BAD: list[dict[str, Any]] = [
    {"sort": "hint"},
    {"sort": "--name"},
    {"sort": ""},
    {"limit": 0},
    {"limit": 201},
    *(
        {"after": cursor}
        for cursor in [
            "",
            "x",
            "ü",
            "AAAA",
            _cursor("[]"),
            _cursor('["-name","a","key_1"]'),
            _cursor('["name",5,"key_1"]'),
            _cursor('["name","\\u0000","key_1"]'),
            _cursor('["created_at",5,"key_1"]'),
        ]
    ),
    {"after": _cursor('["created_at",99999999999999999999,"key_1"]'), "sort": "created_at"},
    {"after": _cursor('["created_at",-1,"key_1"]'), "sort": "created_at"},
    {"after": _cursor('["created_at","a","key_1"]'), "sort": "created_at"},
]


@pytest.mark.parametrize("arguments", BAD)
async def test_what_no_list_can_be_cut_by_is_refused(desk: Desk, arguments: dict[str, Any]) -> None:
    for listing in (desk.do.keys, desk.do.teams):
        with pytest.raises(BadRequest):
            await listing(ROOT, **arguments)
    if "sort" not in arguments:
        with pytest.raises(BadRequest):
            await desk.do.audit(ROOT, **arguments)


@pytest.mark.parametrize("text", ["\x00", "\ud800", 'a"b\x00'])
async def test_text_that_no_database_takes_is_refused(desk: Desk, text: str) -> None:
    for filters in (KeyFilters(name=text), KeyFilters(team=text), KeyFilters(owner=text), KeyFilters(tag=text)):
        with pytest.raises(BadRequest):
            await desk.do.keys(ROOT, filters)
    for entries in (AuditFilters(object_id=text), AuditFilters(since=2**70), AuditFilters(until=-1)):
        with pytest.raises(BadRequest):
            await desk.do.audit(ROOT, entries)


async def test_a_page_goes_on_within_the_team_of_a_team_admin_whatever_cursor_is_sent(desk: Desk) -> None:
    admin = await desk.as_key("boss", "sales", role="team_admin")
    foreign = await desk.do.keys(ROOT, limit=1)
    page = await desk.do.keys(msgspec.structs.replace(admin, role="admin"), after=foreign.next)
    assert {key.team for key in page.items} == {"sales"}
