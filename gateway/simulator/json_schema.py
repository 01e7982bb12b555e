"""A minimal instance of a JSON Schema, for structured output and for arguments of functions.

Knows the part of JSON Schema that OpenAI's structured outputs take
(https://platform.openai.com/docs/guides/structured-outputs), without `pattern`.
Pure; what it does not understand becomes a plausible value, never an error.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

Schema = dict[str, Any]

FORMATS = {
    "date-time": "2026-01-01T00:00:00Z",
    "date": "2026-01-01",
    "time": "00:00:00Z",
    "duration": "P1D",
    "email": "simulated@example.com",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://example.com/simulated",
    "uuid": "00000000-0000-4000-8000-000000000000",
}
# Past this depth a recursive schema takes its way out (null, no items, no further members).
DEEP = 6
TOO_DEEP = 24
MAX_ITEMS = 100
# Nested minItems multiply; past this many values the rest is null.
MAX_VALUES = 5_000


def instance(schema: Any, text: str = "[simulated]") -> Any:
    """The smallest value that I can think of; strings hold `text` where the schema leaves them free."""
    return _Maker(schema if isinstance(schema, dict) else {}, text).make(schema, 0)


class _Maker:
    def __init__(self, root: Schema, text: str) -> None:
        self._root = root
        self._text = text
        self._left = MAX_VALUES
        self._by_type: dict[str, Callable[[Schema, int], Any]] = {
            "object": self._object,
            "array": self._array,
            "string": self._string,
            "integer": lambda schema, _: int(_number(schema)),
            "number": lambda schema, _: _number(schema),
            "boolean": lambda *_: True,
            "null": lambda *_: None,
        }

    def make(self, schema: Any, depth: int) -> Any:
        self._left -= 1
        if not isinstance(schema, dict) or depth > TOO_DEEP or self._left < 0:
            return None
        if "const" in schema:
            return schema["const"]
        if _filled(schema.get("enum")):
            return schema["enum"][0]
        if "$ref" in schema:
            return self.make(self._resolve(schema["$ref"]), depth + 1)
        for word in ("anyOf", "oneOf", "allOf"):
            if _filled(schema.get(word)):
                return self.make(_branch(schema[word], depth), depth + 1)
        return self._by_type.get(_type_of(schema, depth), self._object)(schema, depth)

    def _resolve(self, reference: Any) -> Any:
        found: Any = self._root
        for step in str(reference).removeprefix("#").strip("/").split("/"):
            if step:
                found = found.get(step) if isinstance(found, dict) else None
        return found

    def _object(self, schema: Schema, depth: int) -> Schema:
        members = schema.get("properties")
        if not isinstance(members, dict):
            return {}
        required = schema.get("required")
        names = [name for name in members if name in required] if isinstance(required, list) else []
        return {name: self.make(members[name], depth + 1) for name in names}

    def _array(self, schema: Schema, depth: int) -> list[Any]:
        wanted = schema.get("minItems")
        count = min(wanted, MAX_ITEMS) if isinstance(wanted, int) else int(depth < DEEP)
        return [self.make(schema.get("items", {"type": "string"}), depth + 1) for _ in range(count)]

    def _string(self, schema: Schema, _: int) -> str:
        fixed = FORMATS.get(str(schema.get("format")))
        if fixed is not None:
            return fixed
        low, high = schema.get("minLength"), schema.get("maxLength")
        text = self._text.ljust(min(low, 10_000), ".") if isinstance(low, int) else self._text
        return text[:high] if isinstance(high, int) and high >= 0 else text


def _filled(value: Any) -> bool:
    return isinstance(value, list) and bool(value)


def _branch(branches: list[Any], depth: int) -> Any:
    if depth > DEEP and {"type": "null"} in branches:
        return {"type": "null"}
    return branches[0]


def _type_of(schema: Schema, depth: int) -> str:
    kind = schema.get("type", "object")
    if isinstance(kind, list):
        return "null" if depth > DEEP and "null" in kind else str((kind or ["object"])[0])
    return str(kind)


def _number(schema: Schema) -> float:
    step = schema.get("multipleOf")
    for word, shift in (("minimum", 0), ("exclusiveMinimum", 1), ("maximum", 0), ("exclusiveMaximum", -1)):
        bound = schema.get(word)
        if isinstance(bound, int | float):
            return _multiple(bound + shift, step)
    return 1


def _multiple(low: float, step: Any) -> float:
    return -(-low // step) * step if isinstance(step, int | float) and step > 0 else low
