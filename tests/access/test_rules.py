"""Nobody sees or touches beyond their role and team, and nobody hands out more than they have."""

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.access import rules
from gateway.access.grants import allows_address, allows_model, allows_route
from gateway.access.records import Key, Team
from gateway.access.rules import Authority, Terms
from gateway.errors import BadRequest, Conflict, Forbidden, GatewayError, NotFound
from gateway.terms import EVERYTHING, NO_BUDGETS, NO_LIMITS, ROLES, Budgets, Grants, Limits, Role


def team(team_id: str = "team_1", **members: Any) -> Team:
    return msgspec.structs.replace(Team(team_id, team_id, "active", "api", 1, 1, 1), **members)


def key(key_id: str = "key_1", team_id: str = "team_1", **members: Any) -> Key:
    plain = Key(key_id, key_id, team_id, team_id, None, "member", "active", "api", "abcd", 1, 1, 1)
    return msgspec.structs.replace(plain, **members)


def authority(
    role: Role = "team_admin", home: Grants = EVERYTHING, defaults: Limits = NO_LIMITS, **members: Any
) -> Authority:
    own = key("key_own", role=role, **members)
    return Authority(role, own.team_id, own, team(own.team_id, grants=home), defaults)


def terms(role: Role = "member", home: Grants = EVERYTHING, **members: Any) -> Terms:
    plain = Terms(role, EVERYTHING, NO_LIMITS, NO_BUDGETS, None, home)
    return msgspec.structs.replace(plain, **members)


@pytest.mark.parametrize(
    ("role", "own_team", "sees"),
    [("admin", True, True), ("admin", False, True), ("team_admin", True, True), ("team_admin", False, False)],
)
def test_a_team_admin_sees_keys_of_their_own_team_alone(role: Role, own_team: bool, sees: bool) -> None:
    other = key(team_id="team_1" if own_team else "team_2")
    if sees:
        rules.check_sees_key(authority(role), other)
        rules.check_sees_team(authority(role), other.team_id)
    else:
        with pytest.raises(NotFound):
            rules.check_sees_key(authority(role), other)
        with pytest.raises(NotFound):
            rules.check_sees_team(authority(role), other.team_id)


def test_a_member_sees_their_own_key_alone() -> None:
    rules.check_sees_key(authority("member"), key("key_own"))
    with pytest.raises(NotFound):
        rules.check_sees_key(authority("member"), key("key_1"))


@pytest.mark.parametrize("own", ROLES)
@pytest.mark.parametrize("theirs", ROLES)
def test_nobody_touches_a_key_of_a_higher_role(own: Role, theirs: Role) -> None:
    is_allowed = own != "member" and ROLES.index(theirs) <= ROLES.index(own)
    if is_allowed:
        rules.check_touches_key(authority(own), key(role=theirs))
    else:
        with pytest.raises(Forbidden):
            rules.check_touches_key(authority(own), key(role=theirs))


@pytest.mark.parametrize("members", [{"source": "settings"}, {"state": "revoked"}])
def test_not_even_an_admin_touches_what_the_settings_declare_or_what_is_revoked(members: dict[str, str]) -> None:
    with pytest.raises(Conflict):
        rules.check_touches_key(authority("admin"), key(**members))


@pytest.mark.parametrize("member", ["name", "grants", "limits", "model_limits", "budgets", "state"])
def test_a_team_admin_changes_nothing_of_the_team_but_its_tags(member: str) -> None:
    before = team()
    wider: dict[str, Any] = {
        "name": "payroll",
        "grants": Grants(models=("a",)),
        "limits": Limits(parallel=1),
        "model_limits": {"a": Limits(parallel=1)},
        "budgets": Budgets(day_microusd=1),
        "state": "disabled",
    }
    rules.check_changes_team(authority(), before, msgspec.structs.replace(before, tags={"a": "b"}))
    with pytest.raises(Forbidden) as refusal:
        rules.check_changes_team(authority(), before, msgspec.structs.replace(before, **{member: wider[member]}))
    assert refusal.value.param == member


HELD: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "grants.models": ({"grants": Grants(models=("openai/*",))}, {"grants": Grants(models=("openai/gpt-5.2",))}),
    "grants.routes": ({"grants": Grants(routes=("chat", "files"))}, {"grants": Grants(routes=("chat",))}),
    "grants.networks": ({"grants": Grants(networks=("10.0.0.0/8",))}, {"grants": Grants(networks=("10.1.0.0/16",))}),
    "limits.requests_per_minute": (
        {"limits": Limits(requests_per_minute=60)},
        {"limits": Limits(requests_per_minute=60, parallel=9)},
    ),
    "budgets.total_microusd": (
        {"budgets": Budgets(total_microusd=5)},
        {"budgets": Budgets(total_microusd=4)},
    ),
    "expires_at": ({"expires_at": 100}, {"expires_at": 100}),
}
TOO_MUCH: dict[str, dict[str, Any]] = {
    "grants.models": {"grants": Grants(models=("openai/gpt-5.2", "other/*"))},
    "grants.routes": {"grants": Grants(routes=("chat", "batches"))},
    "grants.networks": {"grants": Grants(networks=("0.0.0.0/0",))},
    "limits.requests_per_minute": {"limits": Limits(requests_per_minute=61)},
    "budgets.total_microusd": {"budgets": Budgets(total_microusd=6)},
    "expires_at": {"expires_at": 101},
}


@pytest.mark.parametrize("role", ["team_admin", "admin"])
@pytest.mark.parametrize("param", HELD)
def test_what_a_key_is_bound_to_binds_what_it_hands_out(role: Role, param: str) -> None:
    own, within = HELD[param]
    rules.check_hands_out(authority(role, **own), terms(**within))
    for wanted in ({}, TOO_MUCH[param]):
        with pytest.raises(Forbidden) as refusal:
            rules.check_hands_out(authority(role, **own), terms(**wanted))
        assert refusal.value.param == param


@pytest.mark.parametrize("param", HELD)
def test_a_key_that_was_wider_may_be_narrowed_by_one_who_has_less(param: str) -> None:
    own, within = HELD[param]
    rules.check_hands_out(authority(**own), terms(**TOO_MUCH[param]), terms())
    rules.check_hands_out(authority(**own), terms(**within), terms(**TOO_MUCH[param]))
    with pytest.raises(Forbidden):
        rules.check_hands_out(authority(**own), terms(), terms(**TOO_MUCH[param]))


def test_a_wider_key_is_not_raised_to_a_higher_role_by_one_who_has_less() -> None:
    narrow = authority(limits=Limits(parallel=1))
    rules.check_hands_out(narrow, terms("member"), terms("member"))
    with pytest.raises(Forbidden):
        rules.check_hands_out(narrow, terms("team_admin"), terms("member"))


DEFAULTS = Limits(requests_per_minute=5, parallel=2, max_wait_s=0)
ESCAPES = {
    "requests_per_minute": Limits(requests_per_day=10**9),
    "requests_per_hour": Limits(requests_per_minute=6),
    "parallel": Limits(parallel=3),
    "max_wait_s": Limits(max_wait_s=600),
}


@pytest.mark.parametrize("limits", ESCAPES.values(), ids=ESCAPES)
def test_a_team_admin_who_is_held_to_defaults_puts_no_limit_of_anybodys_in_their_place(limits: Limits) -> None:
    bound = authority(defaults=DEFAULTS)
    for before in (None, terms()):
        with pytest.raises(Forbidden):
            rules.check_hands_out(bound, terms(limits=limits), before)
        rules.check_hands_out(bound, terms(), before)
        within = Limits(requests_per_minute=5, requests_per_day=10**9, parallel=1, max_wait_s=0)
        rules.check_hands_out(bound, terms(limits=within), before)
    rules.check_hands_out(bound, terms(limits=limits), terms(limits=limits))
    rules.check_hands_out(authority("admin", defaults=DEFAULTS), terms(limits=limits))


def test_a_team_admin_whose_own_limits_are_above_the_defaults_hands_out_up_to_their_own() -> None:
    raised = authority(defaults=DEFAULTS, limits=Limits(requests_per_minute=60, max_wait_s=30))
    rules.check_hands_out(raised, terms(limits=Limits(requests_per_minute=60, max_wait_s=30)))
    for more in (Limits(requests_per_minute=61, max_wait_s=30), Limits(requests_per_minute=60, max_wait_s=31)):
        with pytest.raises(Forbidden):
            rules.check_hands_out(raised, terms(limits=more))


def _waiting(own: int | None, of_team: int | None) -> Authority:
    who = authority(limits=Limits(max_wait_s=own))
    return msgspec.structs.replace(who, team=team(limits=Limits(max_wait_s=of_team)))


@pytest.mark.parametrize(
    ("own", "of_team", "most"), [(30, None, 30), (30, 60, 30), (None, 60, 60), (None, None, 600), (0, 60, 0)]
)
def test_nobody_lets_others_wait_longer_than_they_may_themselves(
    own: int | None, of_team: int | None, most: int
) -> None:
    giver = _waiting(own, of_team)
    rules.check_hands_out(giver, terms(limits=Limits(max_wait_s=most)))
    for wanted in {most + 1, 600} - {601, most}:
        for before in (None, terms()):
            with pytest.raises(Forbidden) as refusal:
                rules.check_hands_out(giver, terms(limits=Limits(max_wait_s=wanted)), before)
            assert refusal.value.param == "limits.max_wait_s"
    rules.check_hands_out(giver, terms(limits=Limits(max_wait_s=601)), terms(limits=Limits(max_wait_s=601)))


def test_a_key_that_says_nothing_of_waiting_waits_as_its_giver_only_if_that_one_says_nothing_either() -> None:
    rules.check_hands_out(_waiting(None, 60), terms())
    rules.check_hands_out(_waiting(30, 60), terms(), terms())
    with pytest.raises(Forbidden):
        rules.check_hands_out(_waiting(30, 60), terms())


def test_a_key_that_names_nothing_takes_what_its_team_has() -> None:
    home = Grants(models=("openai/*",))
    rules.check_hands_out(authority(home=home), terms(home=home))
    with pytest.raises(Forbidden):
        rules.check_hands_out(authority(home=home), terms(home=home, grants=Grants(models=("*",))))


def test_an_admin_whose_team_is_restricted_hands_out_no_more_in_another_team() -> None:
    bound = authority("admin", home=Grants(models=("openai/*",)))
    rules.check_hands_out(bound, terms(home=Grants(models=("openai/gpt-5.2",))))
    with pytest.raises(Forbidden):
        rules.check_hands_out(bound, terms())


def test_a_restricted_admin_widens_no_team_but_may_narrow_any() -> None:
    bound = authority("admin", grants=Grants(models=("a", "b")))
    rules.check_team_grants(bound, Grants(models=("a",)), EVERYTHING)
    rules.check_team_grants(bound, Grants(models=("c",)), EVERYTHING)
    with pytest.raises(Forbidden):
        rules.check_team_grants(bound, Grants(models=("a", "c")), Grants(models=("a",)))


@pytest.mark.parametrize("own", ROLES)
def test_no_role_above_ones_own_is_handed_out(own: Role) -> None:
    for role in ROLES:
        if ROLES.index(role) <= ROLES.index(own):
            rules.check_hands_out(authority(own), terms(role))
        else:
            with pytest.raises(Forbidden):
                rules.check_hands_out(authority(own), terms(role))


def test_whoever_holds_the_machine_is_bound_by_nothing() -> None:
    rules.check_hands_out(Authority("admin"), terms("admin"))


@pytest.mark.parametrize("grace_s", [-1, rules.LONGEST_GRACE_S + 1])
def test_a_grace_is_at_most_thirty_days(grace_s: int) -> None:
    with pytest.raises(BadRequest):
        rules.check_grace(grace_s)


MODELS, ROUTES, ADDRESSES = ("a/x", "a/y", "b/x"), ("chat", "files"), ("10.1.1.1", "10.2.1.1", "192.0.2.1")
amount = st.none() | st.integers(1, 4)
some_grants = st.builds(
    Grants,
    models=st.none() | st.lists(st.sampled_from(["a/x", "a/*", "*/x", "*", "b/x"]), max_size=2).map(tuple),
    routes=st.none() | st.lists(st.sampled_from(ROUTES), max_size=2).map(tuple),
    networks=st.none() | st.lists(st.sampled_from(["10.0.0.0/8", "10.1.0.0/16", "192.0.2.1"]), max_size=2).map(tuple),
)
some_limits = st.builds(Limits, requests_per_minute=amount, requests_per_day=amount, parallel=amount)
some_budgets = st.builds(Budgets, day_microusd=amount)
some_terms = st.builds(Terms, st.sampled_from(ROLES), some_grants, some_limits, some_budgets, amount, some_grants)


@st.composite
def like(draw: st.DrawFn, other: Terms) -> Terms:
    """Terms that differ in a few members: of those that differ in all, hardly any are allowed."""
    changed = draw(st.sets(st.sampled_from(Terms.__struct_fields__), max_size=2))
    new = draw(some_terms)
    return msgspec.structs.replace(other, **{member: getattr(new, member) for member in changed})


def held_to(limits: Limits, defaults: Limits) -> dict[str, int | None]:
    own, default = msgspec.structs.asdict(limits), msgspec.structs.asdict(defaults)
    kinds = [[name for name in own if name.startswith(kind)] for kind in ("requests", "tokens", "parallel")]
    return {
        name: own[name] if any(own[other] is not None for other in kind) else default[name]
        for kind in kinds
        for name in kind
    }


def powers(worth: Terms, defaults: Limits) -> set[object]:
    """All that a key of these terms can do, one by one: the oracle knows nothing of how grants are compared."""
    grants = (worth.grants, worth.home)
    amounts = {**held_to(worth.limits, defaults), **msgspec.structs.asdict(worth.budgets), "end": worth.expires_at}
    return (
        {("model", name) for name in MODELS if allows_model(grants, (name,))}
        | {("route", group) for group in ROUTES if allows_route(grants, group)}
        | {("address", address) for address in ADDRESSES if allows_address(grants, address)}
        | {(name, n) for name, most in amounts.items() for n in range(1, 7) if most is None or n <= most}
        | {("role", rank) for rank in range(ROLES.index(worth.role) + 1)}
    )


@settings(max_examples=1000, deadline=None)
@given(data=st.data(), own=some_terms, defaults=st.just(NO_LIMITS) | some_limits)
def test_whatever_is_allowed_a_key_can_do_no_more_than_its_giver_or_than_it_could(
    data: st.DataObject, own: Terms, defaults: Limits
) -> None:
    wanted = data.draw(like(own))
    before = data.draw(st.none() | like(wanted))
    members = {"grants": own.grants, "limits": own.limits, "budgets": own.budgets, "expires_at": own.expires_at}
    giver = authority(own.role, own.home, defaults, **members)
    if before is not None:
        before = msgspec.structs.replace(before, home=wanted.home)
    try:
        rules.check_hands_out(giver, wanted, before)
    except GatewayError:
        return
    if own.role == "admin":
        # Whoever runs the gateway may say something else than its defaults.
        defaults = NO_LIMITS
    could = set() if before is None else powers(before, defaults)
    assert powers(wanted, defaults) <= powers(own, defaults) | could
