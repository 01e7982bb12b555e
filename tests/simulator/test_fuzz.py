"""No body makes the simulator fail: it answers or refuses."""

from typing import Any

import msgspec
import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

_scalars = (
    st.none()
    | st.booleans()
    | st.integers(-3, 300)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["", "x", "user", "tool", "auto", "none", "function", "custom", "message", "input_text"])
)
_names = st.sampled_from(
    ["type", "role", "content", "text", "name", "function", "image_url", "url", "schema", "format", "output", "id"]
)
_json = st.recursive(
    _scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_names, inner, max_size=4), max_leaves=8
)
_items = st.lists(st.dictionaries(_names, _json, max_size=5), max_size=3)
_members: dict[str, st.SearchStrategy[Any]] = {
    "messages": _items | _json,
    "input": _items | _json,
    "tools": _items | _json,
    "items": _items | _json,
    **dict.fromkeys(
        (
            "stop",
            "n",
            "tool_choice",
            "response_format",
            "text",
            "reasoning",
            "max_tokens",
            "max_output_tokens",
            "metadata",
            "conversation",
            "previous_response_id",
            "prompt",
            "dimensions",
            "stream_options",
            "store",
            "background",
        ),
        _json,
    ),
}
_bodies = st.fixed_dictionaries({"model": st.just("simulated")}, optional={**_members, "stream": st.booleans()})
PATHS = [
    "chat/completions",
    "responses",
    "responses/input_tokens",
    "responses/compact",
    "conversations",
    "embeddings",
    "completions",
    "moderations",
    "images/generations",
    "audio/speech",
    "vector_stores",
    "uploads",
    "batches",
]


@pytest.mark.parametrize("path", PATHS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=_bodies)
def test_every_body_is_answered_or_refused(url: str, http: requests.Session, path: str, body: dict[str, Any]) -> None:
    reply = http.post(f"{url}/{path}", data=msgspec.json.encode(body), timeout=10)
    assert reply.status_code in (200, 400, 404)
    if reply.status_code != 200:
        assert reply.json()["error"]["message"]
