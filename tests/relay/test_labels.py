"""Where names of ids are mere labels."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.relay.labels import label_spans

LABEL = {"file_id": "label"}
IN_LABELS: list[Any] = [
    {"metadata": LABEL},
    {"attributes": LABEL},
    {"files": [{"file_id": "id"}, {"file_id": "id", "attributes": LABEL}]},
    {"input": ["a", {"content": "b"}, {"content": [{"file_id": "id"}, {"annotations": [LABEL]}]}]},
    {"items": [{"content": [{"annotations": [LABEL]}]}]},
    {"tools": [{"parameters": {"example": LABEL}}, {"function": {"parameters": LABEL}}, {"headers": LABEL}]},
    {"tools": [{"type": "namespace", "tools": [{"parameters": LABEL}]}]},
    {"functions": [{"parameters": LABEL}]},
    {"text": {"format": {"schema": LABEL}}},
    {"response_format": {"json_schema": {"schema": LABEL}}},
]
NOT_IN_LABELS: list[Any] = [
    {"input": [{"metadata": {"file_id": "id"}}]},
    {"input": [{"content": [{"attributes": {"file_id": "id"}}]}], "metadata": {}},
    {"prompt": {"variables": {"metadata": {"file_id": "id"}}}},
    {"tools": [{"container": {"file_ids": ["id"]}}]},
    {"annotations": [{"file_id": "id"}]},
    {"input": {"content": [{"annotations": {"file_id": "id"}}]}},
]


def labels_in(body: bytes) -> bytes:
    return b" ".join(body[start:end] for start, end in label_spans(body))


@pytest.mark.parametrize("indent", [None, 3])
@pytest.mark.parametrize("body", IN_LABELS)
def test_labels_are_told_from_ids_and_ids_from_labels(body: Any, indent: int | None) -> None:
    data = json.dumps(body, indent=indent).encode()
    spans = label_spans(data)
    at = [i for i in range(len(data)) if data.startswith(b'"label"', i)]
    ids = [i for i in range(len(data)) if data.startswith(b'"id"', i)]
    assert at
    assert all(any(start <= i < end for start, end in spans) for i in at)
    assert not any(start <= i < end for start, end in spans for i in ids)


@pytest.mark.parametrize("body", NOT_IN_LABELS)
def test_elsewhere_a_name_is_taken_at_its_word(body: Any) -> None:
    assert b'"id"' not in labels_in(json.dumps(body).encode())


VALUES = st.recursive(
    st.none() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)


@given(VALUES, VALUES, st.sampled_from([None, 0, 2]))
def test_a_label_is_cut_out_exactly_whatever_surrounds_it(before: Any, label: Any, indent: int | None) -> None:
    body = {"a": before, "files": [before, {"b": before, "attributes": label}, before], "metadata": label, "c": 1}
    data = json.dumps(body, indent=indent).encode()
    assert [json.loads(data[start:end]) for start, end in label_spans(data)] == [label, label]
