"""A call is estimated by the bounds that its route reads, and by no others."""

import json

import pytest

from gateway.call import Route
from gateway.http.routes import ROUTES
from gateway.relay.body import MOST_ANSWERS, peek
from gateway.relay.stated import stated_output


def route(pattern: str) -> Route:
    return next(each for each in ROUTES if (each.method, each.pattern) == ("POST", pattern))


@pytest.mark.parametrize(
    ("pattern", "body", "stated"),
    [
        ("chat/completions", {}, (None, 1)),
        ("chat/completions", {"max_tokens": 5}, (5, 1)),
        ("chat/completions", {"max_completion_tokens": 6, "n": 2}, (6, 2)),
        ("chat/completions", {"max_completion_tokens": 30_000, "max_tokens": 1}, (30_000, 1)),
        ("chat/completions", {"max_completion_tokens": 1, "max_tokens": 30_000}, (30_000, 1)),
        ("chat/completions", {"max_completion_tokens": 30_000, "max_tokens": 0}, (30_000, 1)),
        ("chat/completions", {"max_output_tokens": 1, "best_of": 9, "prompt": ["a", "b"]}, (None, 1)),
        ("responses", {"max_output_tokens": 7, "max_tokens": 1, "max_completion_tokens": 1, "n": 9}, (7, 1)),
        ("responses", {"max_tokens": 1}, (None, 1)),
        ("responses/compact", {"max_output_tokens": 7}, (7, 1)),
        ("completions", {"max_tokens": 3, "max_completion_tokens": 1, "n": 4}, (3, 4)),
        ("completions", {"max_tokens": 3, "n": 2, "best_of": 5, "prompt": ["a", "b", "c"]}, (3, 15)),
        ("completions", {"best_of": 10**9, "prompt": ["a"] * 3_000}, (None, MOST_ANSWERS * 3_000)),
        ("chat/completions", {"max_tokens": 5, "n": 10_000}, (5, 10_000)),
        ("embeddings", {"max_tokens": 3, "n": 2}, (0, 1)),
        ("images/generations", {"n": 4, "prompt": "A cat"}, (None, 4)),
        ("audio/speech", {"n": 4, "input": "A cat"}, (0, 1)),
    ],
)
def test_only_what_the_route_reads_says_how_long_an_answer_may_be(
    pattern: str, body: dict[str, object], stated: tuple[int | None, int]
) -> None:
    assert stated_output(route(pattern), peek(json.dumps(body).encode())) == stated
