"""Minimal instances of schemas."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.simulator.json_schema import instance

TREE: dict[str, Any] = {
    "type": "object",
    "properties": {"next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}},
    "required": ["next"],
}


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"type": "string"}, "[simulated]"),
        ({"type": "string", "maxLength": 3}, "[si"),
        ({"type": "string", "minLength": 13}, "[simulated].."),
        ({"type": "string", "format": "date"}, "2026-01-01"),
        ({"type": "string", "enum": ["b", "a"]}, "b"),
        ({"const": {"a": 1}}, {"a": 1}),
        ({"type": "integer", "minimum": 5}, 5),
        ({"type": "integer", "exclusiveMinimum": 5, "multipleOf": 4}, 8),
        ({"type": "number", "maximum": -2.5}, -2.5),
        ({"type": "boolean"}, True),
        ({"type": ["null", "string"]}, None),
        ({"type": "array", "items": {"type": "null"}, "minItems": 2}, [None, None]),
        ({"type": "object", "properties": {"a": {}, "b": {}}, "required": ["b"]}, {"b": {}}),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"type": "null"}}}, None),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, 1),
    ],
)
def test_the_smallest_value_that_fits(schema: dict[str, Any], expected: object) -> None:
    assert instance(schema) == expected


def test_a_recursive_schema_takes_its_way_out() -> None:
    value, depth = instance(TREE), 0
    while value["next"] is not None:
        value, depth = value["next"], depth + 1
    assert depth < 10


def test_nested_arrays_do_not_explode() -> None:
    schema: dict[str, Any] = {"type": "array", "minItems": 10**9}
    schema["items"] = {"$ref": "#"}
    assert isinstance(instance(schema), list)


_words = st.sampled_from(
    ["type", "enum", "anyOf", "properties", "required", "items", "minItems", "minimum", "multipleOf", "$ref"]
)
_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["object", "array", "string", "integer", "number", "null", "#", "#/a"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_words, inner, max_size=4),
    max_leaves=12,
)


@given(_values)
def test_no_schema_is_an_error(schema: object) -> None:
    instance(schema)
