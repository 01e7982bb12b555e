"""What a call will take is estimated from its size and from what its model lately did."""

import json
import random
import timeit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.call import Usage
from gateway.metering.estimate import (
    ATTACHMENT_BYTES,
    FIRST_OUTPUT_TOKENS,
    LEARNT_FROM_CALLS,
    LEAST_LEARNT_OUTPUT_TOKENS,
    MAX_INPUT_TOKENS,
    MAX_LEARNT_OUTPUT_TOKENS,
    MAX_OUTPUT_TOKENS,
    Estimator,
    prompt_bytes,
)

M = "openai/gpt-5.2"


def used(input_tokens: int, output_tokens: int = 100) -> Usage:
    return Usage(input_tokens, output_tokens, input_tokens + output_tokens)


def test_a_model_that_is_not_known_takes_a_token_for_four_bytes_and_answers_at_usual_length() -> None:
    assert Estimator().estimate(M, 4_000, None) == (1_001, FIRST_OUTPUT_TOKENS + 1)


@pytest.mark.parametrize(
    ("stated", "reserved"),
    [(1, 1), (16_000, 16_000), (0, 0), (-5, 0), (10**15, MAX_OUTPUT_TOKENS)],
)
def test_of_a_model_that_is_not_known_the_bound_that_the_call_states_is_reserved(stated: int, reserved: int) -> None:
    estimator = Estimator()
    assert estimator.estimate(M, 4_000, stated) == (1_001, reserved)
    for _ in range(LEARNT_FROM_CALLS - 1):
        estimator.learn(M, 4_000, used(1_000, 10))
    assert estimator.estimate(M, 4_000, stated)[1] == reserved


@pytest.mark.parametrize(("stated", "reserved"), [(1, 1), (700, 700), (16_000, 1_000), (0, 0), (None, 500)])
def test_of_a_model_that_is_known_an_answer_reserves_at_most_twice_what_few_exceed(
    stated: int | None, reserved: int
) -> None:
    estimator = Estimator()
    for number in range(2_000):
        estimator.learn(M, 4_000, used(1_000, 500 if number % 10 == 0 else 20))
    assert estimator.estimate(M, 4_000, stated)[1] == pytest.approx(reserved, rel=0.25)


def test_short_answers_never_make_a_reservation_tiny() -> None:
    estimator = Estimator()
    for _ in range(2_000):
        estimator.learn(M, 4_000, used(1_000, 1))
    assert estimator.estimate(M, 4_000, 16_000)[1] == LEAST_LEARNT_OUTPUT_TOKENS
    assert estimator.estimate(M, 4_000, 5)[1] == 5


@pytest.mark.parametrize("stated", [None, 600])
def test_several_answers_reserve_and_teach_each_for_itself(stated: int | None) -> None:
    one, four = Estimator(), Estimator()
    assert four.estimate(M, 4_000, stated, 4)[1] == 4 * one.estimate(M, 4_000, stated)[1]
    for _ in range(200):
        one.learn(M, 4_000, used(1_000, 50))
        four.learn(M, 4_000, used(1_000, 200), 4)
    assert four.estimate(M, 4_000, stated) == one.estimate(M, 4_000, stated)
    assert four.estimate(M, 4_000, stated, 4)[1] == 4 * one.estimate(M, 4_000, stated)[1]
    assert four.estimate(M, 4_000, 10**15, 128)[1] <= MAX_OUTPUT_TOKENS


def test_a_huge_body_reserves_no_more_than_any_model_takes() -> None:
    assert Estimator().estimate(M, 10**9, 1) == (MAX_INPUT_TOKENS, 1)


@pytest.mark.parametrize("tokens_per_byte", [0.1, 0.25, 0.4, 1.0])
def test_it_learns_how_many_bytes_a_token_of_a_model_has(tokens_per_byte: float) -> None:
    estimator, chance = Estimator(), random.Random(1)
    for _ in range(300):
        size = chance.randrange(1_000, 100_000)
        estimator.learn(M, size, used(int(size * tokens_per_byte * chance.uniform(0.8, 1.2))))
    assert estimator.estimate(M, 40_000, 1)[0] == pytest.approx(40_000 * tokens_per_byte, rel=0.1)
    assert estimator.estimate("another", 4_000, 1)[0] == 1_001


def test_a_call_on_a_stored_conversation_does_not_spoil_what_was_learnt() -> None:
    estimator = Estimator()
    for _ in range(100):
        estimator.learn(M, 20_000, used(5_000))
    for _ in range(10):
        estimator.learn(M, 200, used(500_000))
    assert estimator.estimate(M, 20_000, 1)[0] == pytest.approx(5_000, rel=0.2)


@pytest.mark.parametrize("median", [20, 300, 4_000])
def test_without_a_stated_bound_one_answer_in_twenty_is_longer_than_what_is_reserved(median: int) -> None:
    estimator, chance = Estimator(), random.Random(2)
    answers = [int(median * chance.lognormvariate(0, 0.7)) for _ in range(12_000)]
    longer = 0
    for number, answer in enumerate(answers):
        longer += number >= 2_000 and answer > estimator.estimate(M, 100, None)[1]
        estimator.learn(M, 100, used(25, answer))
    assert 0.03 <= longer / 10_000 <= 0.07


def test_what_is_learnt_of_answers_has_bounds() -> None:
    estimator = Estimator()
    for _ in range(1_000):
        estimator.learn(M, 100, used(25, 10**9))
    assert estimator.estimate(M, 100, None)[1] == MAX_LEARNT_OUTPUT_TOKENS + 1
    for _ in range(5_000):
        estimator.learn(M, 100, used(25, 0))
    assert estimator.estimate(M, 100, None)[1] == 2


@given(st.lists(st.tuples(st.integers(0, 10**9), st.integers(0, 2**53), st.integers(0, 2**53)), max_size=50))
def test_whatever_it_was_taught_an_estimate_is_within_its_bounds(calls: list[tuple[int, int, int]]) -> None:
    estimator = Estimator()
    for size, input_tokens, output_tokens in calls:
        estimator.learn(M, size, used(input_tokens, output_tokens))
    for size in (0, 1, 10**6, 10**12):
        input_tokens, output_tokens = estimator.estimate(M, size, None)
        assert 1 <= input_tokens <= MAX_INPUT_TOKENS
        assert 1 <= output_tokens <= MAX_LEARNT_OUTPUT_TOKENS + 1


def test_the_models_that_were_used_last_are_kept() -> None:
    estimator = Estimator(max_models=3)
    for name in ("a", "b", "c", "a", "d"):
        estimator.learn(name, 10**6, used(10**6))
    assert len(estimator) == 3
    known = [estimator.estimate(name, 10**6, 1)[0] > 250_001 for name in "abcd"]
    assert known == [True, False, True, True]


def test_it_costs_a_microsecond_a_call_at_most() -> None:
    estimator, usage = Estimator(), used(1_000)
    estimator.learn(M, 4_000, usage)
    count = 10_000
    asked = min(timeit.repeat(lambda: estimator.estimate(M, 4_000, None), number=count)) / count
    taught = min(timeit.repeat(lambda: estimator.learn(M, 4_000, usage), number=count)) / count
    print(f"estimate {asked * 1e6:.2f} us, learn {taught * 1e6:.2f} us")
    assert asked < 1e-6
    assert taught < 3e-6


def body(*parts: object) -> bytes:
    return json.dumps({"model": M, "messages": [{"role": "user", "content": list(parts)}]}).encode()


TEXT = {"type": "text", "text": "all the words that there are " * 1_000}
BASE64 = "QUJD" * 100_000
ATTACHMENTS = [
    {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{BASE64}"}},
    {"type": "input_image", "image_url": f"data:image/png;base64,{BASE64}"},
    {"type": "input_file", "filename": "a.pdf", "file_data": f"data:application/pdf;base64,{BASE64}"},
    {"type": "input_audio", "input_audio": {"data": BASE64, "format": "wav"}},
    {"type": "input_audio", "input_audio": {"format": "wav", "data": f"data:audio/wav;base64,{BASE64}"}},
]


def test_of_text_every_byte_counts() -> None:
    for text in (b"", body(), body(TEXT), body({"data": TEXT["text"]}), body({"data": 7, "text": TEXT["text"]})):
        assert prompt_bytes(text) == len(text)


@pytest.mark.parametrize("attachment", ATTACHMENTS)
@pytest.mark.parametrize("count", [1, 3])
def test_an_image_or_a_sound_counts_for_little_whatever_its_size(attachment: object, count: int) -> None:
    whole = body(TEXT, *[attachment] * count, TEXT)
    assert prompt_bytes(whole) == len(whole) - count * (len(BASE64) - ATTACHMENT_BYTES)


@pytest.mark.parametrize("tail", [b'"data"', b'"data":', b'"data":"', b";base64,", b';base64,"', b'"data"' * 9_999])
def test_a_body_that_is_no_json_is_counted_too(tail: bytes) -> None:
    whole = body(TEXT) + tail
    assert len(body(TEXT)) <= prompt_bytes(whole) <= len(whole)


@given(st.lists(st.sampled_from([b'"', b"data", b'"data"', b";base64,", b":", b" ", b"A" * 7_000, b"data:"])))
def test_no_body_counts_for_less_than_nothing(pieces: list[bytes]) -> None:
    whole = b"x" * 20_000 + b"".join(pieces)
    assert 0 < prompt_bytes(whole) <= len(whole)


def test_a_body_of_ten_megabytes_is_looked_through_in_a_few_milliseconds() -> None:
    whole = body({"type": "image_url", "image_url": {"url": f"data:image/png;base64,{'QUJD' * 2_500_000}"}})
    assert min(timeit.repeat(lambda: prompt_bytes(whole), number=1)) < 0.02
