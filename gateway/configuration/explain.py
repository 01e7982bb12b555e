"""What the models refuse, as problems: pydantic's error types to the words of this project.

Knows which settings there are, and so what a misspelled name was meant to be.
Uses the type and the bounds of an error, never the value that was refused.
"""

from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from gateway.configuration.environment import PREFIX, variable_of
from gateway.configuration.layers import LIMIT_TABLES, Layer
from gateway.configuration.problems import Origin, Path, Problem
from gateway.settings import SECTIONS, Key, Settings
from gateway.terms import LIMITS, limit_meant

_REASONS = {
    "int_parsing": "is not a whole number",
    "int_type": "is not a whole number",
    "int_from_float": "is not a whole number",
    "int_parsing_size": "is far too large",
    "float_parsing": "is not a number",
    "float_type": "is not a number",
    "finite_number": "is not a finite number",
    "bool_parsing": "is neither true nor false",
    "bool_type": "is neither true nor false",
    "string_type": "is not text",
    "string_too_short": "is empty",
    "string_too_long": "is longer than {max_length} characters",
    "greater_than": "is not more than {gt}",
    "greater_than_equal": "is less than {ge}",
    "less_than_equal": "is more than {le}",
    "literal_error": "is not one of {expected}",
    "missing": "is missing",
    "model_type": "is not a table of keys",
    "dict_type": "is not a table of names",
    "tuple_type": "is not a list",
    "datetime_parsing": "is not a time",
    "datetime_from_date_parsing": "is not a time",
    "datetime_object_invalid": "is not a time",
    "datetime_type": "is not a time",
    "timezone_aware": "has no offset from UTC",
    "value_error": "{error}",
}
_KEY_SHAPE = "{name: me, team: us, secret: …}"
_WITH_DESCRIPTION = frozenset(_REASONS) - {"literal_error", "value_error"}


def explain(error: ValidationError, layer: Layer) -> list[Problem]:
    """The problems of `error`, but for those that follow from a problem that `layer` has already."""
    known = [problem.path for problem in layer.problems]
    details = error.errors(include_url=False, include_context=True, include_input=False)
    problems = [_problem(detail, layer) for detail in details]
    return [problem for problem in problems if not any(_leads_to(problem.path, path) for path in known)]


def field_at(path: Path) -> FieldInfo | None:
    """The field that `path` names: `("keys", 0, "name")` is `Key.name`."""
    model: type[BaseModel] = Settings
    field = None
    for part in path:
        if isinstance(part, int):
            model = Key
            continue
        field = model.model_fields.get(part)
        if field is None:
            return None
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            model = field.annotation
    return field


def _leads_to(path: Path, other: Path) -> bool:
    return other[: len(path)] == path


def _problem(detail: ErrorDetails, layer: Layer) -> Problem:
    # pydantic marks an error in the key of a table, not in its value, by one more step.
    path = tuple(part for part in detail["loc"] if part != "[key]")
    origin = layer.origin_of(path)
    if detail["type"] == "extra_forbidden":
        return Problem(path, "unknown key", _suggestion(path, origin), origin)
    if _value_at(layer.values, path) is None:
        return Problem(path, "has no value", "give it one, or take the line out", origin)
    if detail["type"] == "literal_error" and path[:-1] in LIMIT_TABLES:
        return Problem(path, "unknown limit", _limit_meant(str(path[-1])), origin)
    reason = _REASONS.get(detail["type"], "is not valid").format(**detail.get("ctx", {}))
    return Problem(path, reason, _description(path) if detail["type"] in _WITH_DESCRIPTION else "", origin)


def _value_at(values: Any, path: Path) -> Any:
    for part in path:
        try:
            values = values[part]
        except (KeyError, IndexError, TypeError):
            return values
    return values


def _description(path: Path) -> str:
    if path[0] == "keys" and len(path) <= 2:
        return f"wanted: {_KEY_SHAPE if len(path) == 2 else f'[{_KEY_SHAPE}]'}"
    field = field_at(path)
    if field is None or not field.description:
        return ""
    default = None if field.is_required() else field.get_default(call_default_factory=True)
    said = "" if default in (None, (), {}) else f" (default: {default})"
    return f"wanted: {field.description.rstrip('.')}{said}"


def _limit_meant(name: str) -> str:
    meant = limit_meant(name)
    return f"the limits are {', '.join(LIMITS)}" if meant is None else f"did you mean {meant}?"


def _suggestion(path: Path, origin: Origin | None) -> str:
    spell = variable_of if origin is not None and origin.where.startswith(PREFIX) else _dotted
    if near := _nearest(path):
        return f"did you mean {spell(near)}?"
    if len(path) == 1:
        return f"the sections are {', '.join((*SECTIONS, 'keys'))}"
    return f"the keys are {', '.join(_names_beside(path))}"


def _dotted(path: Path) -> str:
    return str(path[-1]) if len(path) > 2 else ".".join(str(part) for part in path)


def _nearest(path: Path) -> Path | None:
    beside = {name: (*path[:-1], name) for name in _names_beside(path)}
    elsewhere = {name: (section, name) for section in SECTIONS for name in _names_beside((section, ""))}
    for names in (beside, elsewhere):
        if matches := get_close_matches(str(path[-1]), names, n=1, cutoff=0.7):
            return names[matches[0]]
    return None


def _names_beside(path: Path) -> list[str]:
    if len(path) == 1:
        return list(Settings.model_fields)
    if path[0] == "keys":
        return list(Key.model_fields)
    field = Settings.model_fields.get(str(path[0]))
    return list(field.annotation.model_fields) if field and field.annotation else []
