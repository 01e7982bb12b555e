"""Tags of a call: a header that is understood or refused, and what of a body may be one."""

import json
import tracemalloc
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import BadRequest
from gateway.relay.tags import LARGEST_BYTES, MAX_TAGS, joined, read_tags, tags_of_body

TEN = {f"n{number}": str(number) for number in range(10)}


@pytest.mark.parametrize(
    ("header", "tags"),
    [
        (b"feature=search", {"feature": "search"}),
        (b"a=1,b=2", {"a": "1", "b": "2"}),
        (b" a = 1 ,\tb=2 ", {"a": "1", "b": "2"}),
        (b"path=/v1/x:y@z+1", {"path": "/v1/x:y@z+1"}),
        (b"a-b._1=" + b"x" * 64, {"a-b._1": "x" * 64}),
        (",".join(f"{name}={value}" for name, value in TEN.items()).encode(), TEN),
    ],
)
def test_a_header_is_names_and_values(header: bytes, tags: Mapping[str, str]) -> None:
    assert read_tags(header) == tags


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"a",
        b"a=",
        b"=1",
        b"a=1,",
        b"a=1,a=2",
        b"a=1=2",
        b"a=x y",
        b'a="x"',
        b"a=\xe9",
        b"\xe9=a",
        b"a=" + b"x" * 65,
        b"x" * 65 + b"=a",
        b",".join(b"n%d=1" % number for number in range(11)),
    ],
)
def test_a_header_that_cannot_be_read_is_refused_with_what_to_do(header: bytes) -> None:
    with pytest.raises(BadRequest, match="must be name=value"):
        read_tags(header)


@pytest.mark.parametrize(
    ("body", "tags"),
    [
        ({"metadata": {"a": "1"}, "user": "ann"}, {"a": "1", "user": "ann"}),
        ({"metadata": {"a": "two words", "b": 1, "c": None, "d": "", "e": "x" * 65, "f f": "1"}}, {"a": "two words"}),
        ({"metadata": {"user": "1"}, "user": "ann"}, {"user": "ann"}),
        ({"metadata": {"user": "1", "a": "2"}}, {"user": "1", "a": "2"}),
        ({"metadata": {"user": "1"}, "user": None}, {"user": "1"}),
        ({"metadata": {"user": "1"}, "user": "x" * 65}, {"user": "1"}),
        ({"metadata": [], "user": {}}, {}),
        ({}, {}),
        ([], {}),
    ],
)
def test_of_a_body_what_fits_is_taken(body: object, tags: Mapping[str, str]) -> None:
    assert tags_of_body(json.dumps(body).encode()) == tags


def test_of_a_body_its_user_comes_first_then_its_metadata_as_it_stands_ten_in_all() -> None:
    metadata = {f"n{number:02}": "1" for number in range(16)}
    for members in (metadata, {**metadata, "user": "1"}):
        tags = tags_of_body(json.dumps({"metadata": members, "user": "ann"}).encode())
        assert list(tags.items()) == [("user", "ann"), *list(metadata.items())[: MAX_TAGS - 1]]
    assert list(tags_of_body(json.dumps({"metadata": metadata}).encode())) == list(metadata)[:MAX_TAGS]


def test_metadata_that_would_take_long_to_read_is_not_read() -> None:
    metadata = {"a": "1", "b": "x" * (LARGEST_BYTES - 19)}
    assert len(json.dumps(metadata)) == LARGEST_BYTES
    assert tags_of_body(json.dumps({"metadata": metadata, "user": "ann"}).encode()) == {"a": "1", "user": "ann"}
    metadata["b"] += "x"
    assert tags_of_body(json.dumps({"metadata": metadata, "user": "ann"}).encode()) == {"user": "ann"}
    assert tags_of_body(json.dumps({"metadata": {"a": "1"}, "user": metadata}).encode()) == {"a": "1"}


def test_what_a_body_of_any_size_holds_is_not_built() -> None:
    members = ",".join(f'"a{number:07}":"1"' for number in range(200_000))
    bodies = [f'{{"metadata":{{{members}}},"user":"ann"}}', f'{{"metadata":null,"user":{{{members}}}}}']
    for body in map(str.encode, bodies):
        tracemalloc.start()
        try:
            tags_of_body(body)
            assert tracemalloc.get_traced_memory()[1] < LARGEST_BYTES
        finally:
            tracemalloc.stop()


anything: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.integers() | st.text(max_size=70), lambda inner: st.dictionaries(st.text(max_size=70), inner)
)


@given(anything, anything)
def test_tags_of_a_body_are_bounded_and_safe_whatever_is_in_it(metadata: object, user: object) -> None:
    tags = tags_of_body(json.dumps({"metadata": metadata, "user": user}).encode())
    assert len(tags) <= MAX_TAGS
    assert all(len(name) <= 64 and len(value) <= 64 and value.isprintable() for name, value in tags.items())


@given(st.dictionaries(st.text(), st.text()), st.dictionaries(st.text(), st.text()))
def test_of_two_sets_of_tags_the_first_comes_first_and_stands(first: dict[str, str], then: dict[str, str]) -> None:
    tags = joined(first, then)
    assert list(tags.items())[: len(first)] == list(first.items())
    assert tags == {**then, **first}
