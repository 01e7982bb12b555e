"""What grants allow, and which lie within which."""

import ipaddress
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.access.containment import is_within
from gateway.access.grants import (
    allows_address,
    allows_model,
    allows_route,
    check_address,
    check_model,
    check_route,
)
from gateway.errors import Forbidden, ModelNotAllowed, NetworkNotAllowed, RouteNotAllowed
from gateway.terms import EVERYTHING, Grants

PATTERNS = st.text("ab/*", max_size=6)
NAMES = st.text("ab/", max_size=8)
MODELS = st.none() | st.lists(PATTERNS, max_size=3).map(tuple)
NETWORKS = st.builds(
    lambda octet, length: str(ipaddress.ip_network((octet << 24, length), strict=False)),
    st.integers(0, 7),
    st.integers(5, 9),
)


@pytest.mark.parametrize(
    ("models", "names", "allowed"),
    [
        (None, ("openai/gpt-5.2",), True),
        (("openai/*",), ("openai/gpt-5.2",), True),
        (("openai/*",), ("zai/glm",), False),
        (("gpt-5.2",), ("gpt-5.2", "openai/gpt-5.2"), True),
        (("openai/gpt-5.2",), ("gpt-5.2", "openai/gpt-5.2"), True),
        ((), ("openai/gpt-5.2",), False),
        (None, (), True),
        (("*",), (), True),
        (("openai/*",), (), False),
    ],
)
def test_a_model_is_allowed_by_any_of_its_names(
    models: tuple[str, ...] | None, names: tuple[str, ...], allowed: bool
) -> None:
    assert allows_model((Grants(models=models),), names) == allowed


def test_every_grant_must_allow() -> None:
    grants = (Grants(models=("openai/*",), routes=("chat",)), Grants(models=("*mini",), networks=("10.0.0.0/8",)))
    assert allows_model(grants, ("openai/mini",))
    assert not allows_model(grants, ("openai/gpt",))
    assert not allows_model(grants, ("zai/mini",))
    assert allows_route(grants, "chat")
    assert not allows_route(grants, "files")
    assert allows_address(grants, "10.1.2.3")
    assert not allows_address(grants, "192.0.2.1")


def test_without_grants_everything_is_allowed() -> None:
    assert allows_model((), ())
    assert allows_route((), "files")
    assert allows_address((), None)


@pytest.mark.parametrize(
    ("address", "allowed"),
    [
        ("10.255.0.1", True),
        ("::ffff:10.0.0.1", True),
        ("11.0.0.1", False),
        ("2001:db8::1", True),
        ("2001:db9::1", False),
        ("192.0.2.7", True),
        ("192.0.2.8", False),
        ("", False),
        ("unix", False),
        (None, False),
        ("1" * 100_000, False),
    ],
)
def test_an_address_is_allowed_by_the_network_it_lies_in(address: str | None, allowed: bool) -> None:
    grants = (Grants(networks=("10.0.0.0/8", "2001:db8::/32", "192.0.2.7/32")),)
    assert allows_address(grants, address) == allowed


@pytest.mark.parametrize(
    ("check", "refusal", "code"),
    [
        (lambda grants: check_model(grants, ("zai/glm",)), ModelNotAllowed, "model_not_allowed"),
        (lambda grants: check_model(grants, ()), ModelNotAllowed, "model_not_allowed"),
        (lambda grants: check_route(grants, "files"), RouteNotAllowed, "route_not_allowed"),
        (lambda grants: check_address(grants, "192.0.2.1"), NetworkNotAllowed, "network_not_allowed"),
        (lambda grants: check_address(grants, None), NetworkNotAllowed, "network_not_allowed"),
    ],
)
def test_what_is_not_allowed_is_refused_with_a_code_of_its_own(
    check: Callable[[tuple[Grants, ...]], None], refusal: type[Forbidden], code: str
) -> None:
    check(())
    with pytest.raises(refusal) as caught:
        check((Grants(models=("openai/*",), routes=("chat",), networks=("10.0.0.0/8",)),))
    assert (caught.value.status, caught.value.code) == (403, code)


def test_a_refusal_does_not_repeat_a_name_of_any_length() -> None:
    with pytest.raises(ModelNotAllowed) as caught:
        check_model((Grants(models=()),), ("x" * 100_000,))
    assert len(caught.value.message) < 400


@pytest.mark.parametrize(
    ("models", "said"),
    [
        ([()], "no model"),
        ([("openai/*", "fast")], "openai/*, fast"),
        ([tuple(f"m{number}" for number in range(12))], "m0, m1, m2, m3, m4, m5, m6, m7, m8, m9 and 2 more"),
        ([("openai/*",), ("*-mini", "zai/*")], "openai/*, and of these only *-mini, zai/*"),
        ([("openai/*",), ("openai/*",)], "openai/*"),
        ([("openai/*",), ()], "no model"),
        ([None, ("openai/*",)], "openai/*"),
    ],
)
def test_a_refusal_names_the_models_that_may_be_used(models: list[tuple[str, ...] | None], said: str) -> None:
    with pytest.raises(ModelNotAllowed) as caught:
        check_model(tuple(Grants(models=each) for each in models), ("zai/glm",))
    assert caught.value.message == (
        f"This API key may not use the model 'zai/glm'. It may use {said}; ask whoever runs this gateway for others."
    )


@given(MODELS, MODELS, NAMES)
def test_models_are_within_exactly_if_no_name_is_gained(
    inner: tuple[str, ...] | None, outer: tuple[str, ...] | None, name: str
) -> None:
    narrow, wide = (Grants(models=inner),), (Grants(models=outer),)
    if is_within(narrow[0], wide[0]):
        assert allows_model(wide, (name,)) or not allows_model(narrow, (name,))
    else:
        gained = (pattern.replace("*", "#") for pattern in (("*",) if inner is None else inner))
        assert any(not allows_model(wide, (witness,)) for witness in gained)


@given(st.lists(NETWORKS, max_size=3).map(tuple), st.lists(NETWORKS, max_size=3).map(tuple))
def test_networks_are_within_exactly_if_no_address_is_gained(inner: tuple[str, ...], outer: tuple[str, ...]) -> None:
    narrow, wide = (Grants(networks=inner),), (Grants(networks=outer),)
    places = [f"{octet}.{half}.0.1" for octet in range(8) for half in (0, 128)]
    gained = [place for place in places if allows_address(narrow, place) and not allows_address(wide, place)]
    assert is_within(narrow[0], wide[0]) == (not gained)


@pytest.mark.parametrize(
    ("inner", "outer", "within"),
    [
        (EVERYTHING, EVERYTHING, True),
        (EVERYTHING, Grants(models=("openai/*",)), False),
        (EVERYTHING, Grants(models=("*",)), True),
        (EVERYTHING, Grants(routes=("chat",)), False),
        (EVERYTHING, Grants(networks=("0.0.0.0/0", "::/0")), False),
        (Grants(models=("openai/gpt",), routes=("chat",)), Grants(models=("openai/*",)), True),
        (Grants(models=("openai/gpt",)), Grants(models=("openai/*",), routes=("chat",)), False),
        (Grants(routes=("chat",)), Grants(routes=("chat", "files")), True),
        (Grants(routes=()), Grants(routes=()), True),
        (Grants(networks=("10.0.0.0/9", "10.128.0.0/9")), Grants(networks=("10.0.0.0/8",)), True),
        (Grants(networks=("10.0.0.0/8",)), Grants(networks=("10.0.0.0/9", "10.128.0.0/9")), True),
        (Grants(networks=("2001:db8::/48",)), Grants(networks=("10.0.0.0/8", "2001:db8::/32")), True),
        (Grants(networks=("10.0.0.0/8",)), Grants(networks=("2001:db8::/32",)), False),
        (Grants(networks=()), Grants(networks=("10.0.0.0/8",)), True),
    ],
)
def test_a_grant_is_within_another_if_each_part_of_it_is(inner: Grants, outer: Grants, within: bool) -> None:
    assert is_within(inner, outer) == within


MANY_NAMES = [tuple(f"a{'a' * 200}{key} {number}" for number in range(10)) for key in range(500)]


@pytest.mark.parametrize("pattern", ["vendor{}/*", "*" + "a*" * 7 + "{}b"])
def test_what_a_whole_import_hands_out_is_compared_within_seconds(pattern: str) -> None:
    wide = Grants(models=(*(pattern.format(number) for number in range(199)), "nothing"))
    started_s = time.process_time()
    assert not any(is_within(Grants(models=names), wide) for names in MANY_NAMES)
    assert time.process_time() - started_s < 3


def test_two_hundred_networks_are_compared_with_as_many_in_no_time() -> None:
    wide = Grants(networks=tuple(f"10.{number}.0.0/17" for number in range(200)))
    narrow = Grants(networks=tuple(f"10.{number}.0.0/24" for number in range(200)))
    started_s = time.process_time()
    assert all(is_within(narrow, wide) for _ in range(25))
    assert time.process_time() - started_s < 1
