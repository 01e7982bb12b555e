"""Which models the tools of a request name."""

import json
from typing import Any

import pytest

from gateway.errors import BadRequest
from gateway.relay.tool_models import tool_models


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"model": "m", "input": "tools"}, []),
        ({"tools": None}, []),
        ({"tools": ["a", 1, None]}, []),
        ({"tools": [{"type": "web_search"}, {"type": "code_interpreter", "model": None}]}, []),
        ({"tools": [{"type": "image_generation", "model": "x"}]}, ["x"]),
        ({"tools": [{"type": "of_next_year", "model": "x"}]}, ["x"]),
        ({"tools": [{"type": "image_generation"}]}, [None]),
        ({"tools": [{"type": "image_generation", "model": None}]}, [None]),
        ({"tools": [{"type": "namespace", "tools": [{"type": "a", "model": "x"}]}]}, ["x"]),
        ({"input": [{"type": "additional_tools", "tools": [{"type": "a", "model": "x"}]}, {"model": "y"}]}, ["x"]),
        ({"items": [{"type": "tool_search_output", "tools": [{"model": "x"}]}]}, ["x"]),
        ({"tools": [{"type": "function", "parameters": {"properties": {"model": {"type": "string"}}}}]}, []),
    ],
)
def test_a_model_is_found_wherever_a_tool_may_name_one(body: Any, expected: list[str | None]) -> None:
    assert tool_models(json.dumps(body).encode()) == expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"tools":[],"tools":[{"model":"a"}]}', ["a"]),
        (b'{"TOOLS":[{"Model":"a","model":"b"}]}', ["a", "b"]),
        (rb'{"t\u006fols":[{"m\u006fdel":"\u0061"}]}', ["a"]),
        (rb'{"tools":[{"type":"image\u005fgeneration"}]}', [None]),
        (b'{"tools":[{"type":"web_search","type":"image_generation"}]}', [None]),
    ],
)
def test_no_spelling_hides_one(body: bytes, expected: list[str | None]) -> None:
    assert tool_models(body) == expected


@pytest.mark.parametrize("body", [b'{"tools":[{"model":7}]}', b'{"tools":[{"tools":' * 100_000])
def test_what_cannot_be_told_is_refused(body: bytes) -> None:
    with pytest.raises(BadRequest):
        tool_models(body)
