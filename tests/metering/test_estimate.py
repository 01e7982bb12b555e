"""What a call will take is estimated from its size and from what its model lately did."""

import json
import random

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
from tests.support.yardsticks import times_a_count, times_as_long

T, M = "team_1", "openai/gpt-5.2"


def used(input_tokens: int, output_tokens: int = 100) -> Usage:
    return Usage(input_tokens, output_tokens, input_tokens + output_tokens)


def test_a_model_that_is_not_known_takes_a_token_for_four_bytes_and_answers_at_usual_length() -> None:
    assert Estimator().estimate(T, M, 4_000, None) == (1_001, FIRST_OUTPUT_TOKENS + 1)


@pytest.mark.parametrize(
    ("stated", "reserved"),
    [(1, 1), (16_000, 16_000), (0, 0), (-5, 0), (10**15, MAX_OUTPUT_TOKENS)],
)
def test_of_a_model_that_is_not_known_the_bound_that_the_call_states_is_reserved(stated: int, reserved: int) -> None:
    estimator = Estimator()
    assert estimator.estimate(T, M, 4_000, stated) == (1_001, reserved)
    for _ in range(LEARNT_FROM_CALLS - 1):
        estimator.learn(T, M, 4_000, used(1_000, 10))
    assert estimator.estimate(T, M, 4_000, stated)[1] == reserved


@pytest.mark.parametrize(("stated", "reserved"), [(1, 1), (700, 700), (16_000, 1_000), (0, 0), (None, 500)])
def test_of_a_model_that_is_known_an_answer_reserves_at_most_twice_what_few_exceed(
    stated: int | None, reserved: int
) -> None:
    estimator = Estimator()
    for number in range(2_000):
        estimator.learn(T, M, 4_000, used(1_000, 500 if number % 10 == 0 else 20))
    assert estimator.estimate(T, M, 4_000, stated)[1] == pytest.approx(reserved, rel=0.25)


def test_short_answers_never_make_a_reservation_tiny() -> None:
    estimator = Estimator()
    for _ in range(2_000):
        estimator.learn(T, M, 4_000, used(1_000, 1))
    assert estimator.estimate(T, M, 4_000, 16_000)[1] == LEAST_LEARNT_OUTPUT_TOKENS
    assert estimator.estimate(T, M, 4_000, 5)[1] == 5


@pytest.mark.parametrize("stated", [None, 600])
def test_several_answers_reserve_and_teach_each_for_itself(stated: int | None) -> None:
    one, four = Estimator(), Estimator()
    assert four.estimate(T, M, 4_000, stated, 4)[1] == 4 * one.estimate(T, M, 4_000, stated)[1]
    for _ in range(200):
        one.learn(T, M, 4_000, used(1_000, 50))
        four.learn(T, M, 4_000, used(1_000, 200), 4)
    assert four.estimate(T, M, 4_000, stated) == one.estimate(T, M, 4_000, stated)
    assert four.estimate(T, M, 4_000, stated, 4)[1] == 4 * one.estimate(T, M, 4_000, stated)[1]
    assert four.estimate(T, M, 4_000, 10**15, 128)[1] <= MAX_OUTPUT_TOKENS


def test_what_tokens_do_not_tell_costs_each_answer_as_nearly_all_did_before() -> None:
    estimator = Estimator()
    assert estimator.cost_microusd(T, M, 3) == 0
    estimator.learn_cost(T, M, 80_000, 2)
    assert [estimator.cost_microusd(T, M, answers) for answers in (1, 3)] == [40_000, 120_000]
    assert estimator.cost_microusd("team_2", M, 1) == 0
    chance = random.Random(7)
    for _ in range(3_000):
        estimator.learn_cost(T, M, chance.randrange(100_000))
    assert 85_000 < estimator.cost_microusd(T, M, 1) < 110_000


def test_what_always_costs_the_same_is_taken_to_cost_that_or_little_less() -> None:
    estimator = Estimator()
    for _ in range(30):
        estimator.learn_cost(T, M, 40_000)
        assert 38_000 <= estimator.cost_microusd(T, M, 1) <= 40_000


def test_a_huge_body_reserves_no_more_than_any_model_takes() -> None:
    assert Estimator().estimate(T, M, 10**9, 1) == (MAX_INPUT_TOKENS, 1)


@pytest.mark.parametrize("tokens_per_byte", [0.1, 0.25, 0.4, 1.0])
def test_it_learns_how_many_bytes_a_token_of_a_model_has(tokens_per_byte: float) -> None:
    estimator, chance = Estimator(), random.Random(1)
    for _ in range(300):
        size = chance.randrange(1_000, 100_000)
        estimator.learn(T, M, size, used(int(size * tokens_per_byte * chance.uniform(0.8, 1.2))))
    assert estimator.estimate(T, M, 40_000, 1)[0] == pytest.approx(40_000 * tokens_per_byte, rel=0.1)
    assert estimator.estimate(T, "another", 4_000, 1)[0] == 1_001


def test_a_call_on_a_stored_conversation_does_not_spoil_what_was_learnt() -> None:
    estimator = Estimator()
    for _ in range(100):
        estimator.learn(T, M, 20_000, used(5_000))
    for _ in range(10):
        estimator.learn(T, M, 200, used(500_000))
    assert estimator.estimate(T, M, 20_000, 1)[0] == pytest.approx(5_000, rel=0.2)


@pytest.mark.parametrize("median", [20, 300, 4_000])
def test_without_a_stated_bound_one_answer_in_twenty_is_longer_than_what_is_reserved(median: int) -> None:
    estimator, chance = Estimator(), random.Random(2)
    answers = [int(median * chance.lognormvariate(0, 0.7)) for _ in range(12_000)]
    longer = 0
    for number, answer in enumerate(answers):
        longer += number >= 2_000 and answer > estimator.estimate(T, M, 100, None)[1]
        estimator.learn(T, M, 100, used(25, answer))
    assert 0.03 <= longer / 10_000 <= 0.07


def test_what_is_learnt_of_answers_has_bounds() -> None:
    estimator = Estimator()
    for _ in range(1_000):
        estimator.learn(T, M, 100, used(25, 10**9))
    assert estimator.estimate(T, M, 100, None)[1] == MAX_LEARNT_OUTPUT_TOKENS + 1
    for _ in range(5_000):
        estimator.learn(T, M, 100, used(25, 0))
    assert estimator.estimate(T, M, 100, None)[1] == 2


@given(st.lists(st.tuples(st.integers(0, 10**9), st.integers(0, 2**53), st.integers(0, 2**53)), max_size=50))
def test_whatever_it_was_taught_an_estimate_is_within_its_bounds(calls: list[tuple[int, int, int]]) -> None:
    estimator = Estimator()
    for size, input_tokens, output_tokens in calls:
        estimator.learn(T, M, size, used(input_tokens, output_tokens))
    for size in (0, 1, 10**6, 10**12):
        input_tokens, output_tokens = estimator.estimate(T, M, size, None)
        assert 1 <= input_tokens <= MAX_INPUT_TOKENS
        assert 1 <= output_tokens <= MAX_LEARNT_OUTPUT_TOKENS + 1


def test_the_models_that_were_used_last_are_kept() -> None:
    estimator = Estimator(max_models=3)
    for name in ("a", "b", "c", "a", "d"):
        estimator.learn(T, name, 10**6, used(10**6))
    assert len(estimator) == 3
    known = [estimator.estimate(T, name, 10**6, 1)[0] > 250_001 for name in "abcd"]
    assert known == [True, False, True, True]


def test_what_one_team_teaches_no_other_team_is_estimated_by() -> None:
    estimator, untaught = Estimator(), Estimator()
    for _ in range(100):
        estimator.learn(T, M, 40, used(100_000, 30_000))
    assert estimator.estimate("team_2", M, 4_000, None) == untaught.estimate("team_2", M, 4_000, None)
    assert estimator.estimate(T, M, 4_000, None)[1] > 30_000


def test_it_costs_a_call_next_to_nothing() -> None:
    estimator, usage = Estimator(), used(1_000)
    estimator.learn(T, M, 4_000, usage)
    assert times_a_count(lambda: estimator.estimate(T, M, 4_000, None)) < 20
    assert times_a_count(lambda: estimator.learn(T, M, 4_000, usage)) < 50


ONE_FOR_ONE = bytes(range(256))


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


PROSE = " long prose" * 90_000
ALMOST = [
    f";base64,{'x' * 300}{PROSE}",
    f"data:image/png;base64,{BASE64[:8_000]},{PROSE}",
    f"data:image/png;base64,{PROSE.replace(' ', '.')}",
    f"data:image/png;base64,{PROSE.replace(' ', chr(9))}",
    f"data:image/png;base64,{PROSE.replace(' ', chr(92))}",
    f"data:image/png;base64,{PROSE.replace(' ', '€')}",
]


@pytest.mark.parametrize("text", ALMOST)
def test_what_only_begins_like_an_attachment_is_text(text: str) -> None:
    for whole in (body({"type": "text", "text": text}), body({"data": text})):
        assert prompt_bytes(whole) >= len(whole) - 2_000


def test_spaces_that_are_escaped_are_none_of_an_attachment() -> None:
    whole = body({"type": "text", "text": f";base64,{'x' * 300}{PROSE}"}).replace(b" long", b"\\u0020long")
    assert prompt_bytes(whole) == len(whole)


@pytest.mark.parametrize("old", ["/", "\n", "\r\n"])
def test_an_attachment_may_be_written_in_lines_and_with_its_slashes_escaped(old: str) -> None:
    lines = old.join(["QUJD" * 19] * 2_000)
    whole = body({"type": "input_audio", "input_audio": {"data": lines}}).replace(b"/", b"\\/")
    assert prompt_bytes(whole) < ATTACHMENT_BYTES + 500


@pytest.mark.parametrize("attachment", ATTACHMENTS)
@pytest.mark.parametrize("count", [1, 3])
def test_an_image_or_a_sound_counts_for_little_whatever_its_size(attachment: object, count: int) -> None:
    whole = body(TEXT, *[attachment] * count, TEXT)
    assert prompt_bytes(whole) == len(whole) - count * (len(BASE64) - ATTACHMENT_BYTES)


@pytest.mark.parametrize("mark", [b";base64,", b'"data":"'])
def test_an_attachment_is_seen_wherever_it_stands(mark: bytes) -> None:
    for before in range(20_000, 20_000 + ATTACHMENT_BYTES, 7):
        whole = b" " * before + mark + b"A" * (ATTACHMENT_BYTES + 1) + b'"' + b" " * 9_000
        assert prompt_bytes(whole) == len(whole) - 1, before


@pytest.mark.parametrize("tail", [b'"data"', b'"data":', b'"data":"', b";base64,", b';base64,"', b'"data"' * 9_999])
def test_a_body_that_is_no_json_is_counted_too(tail: bytes) -> None:
    whole = body(TEXT) + tail
    assert len(body(TEXT)) <= prompt_bytes(whole) <= len(whole)


@given(st.lists(st.sampled_from([b'"', b"data", b'"data"', b";base64,", b":", b" ", b"A" * 7_000, b"data:"])))
def test_no_body_counts_for_less_than_nothing(pieces: list[bytes]) -> None:
    whole = b"x" * 20_000 + b"".join(pieces)
    assert 0 < prompt_bytes(whole) <= len(whole)


def test_a_body_of_ten_megabytes_is_looked_through_a_few_times_at_most() -> None:
    whole = body({"type": "image_url", "image_url": {"url": f"data:image/png;base64,{'QUJD' * 2_500_000}"}})
    assert times_as_long(lambda: prompt_bytes(whole), lambda: whole.translate(ONE_FOR_ONE)) < 6


@pytest.mark.parametrize(
    "piece", [b";base64,", b'";base64,"', b'"data":"', b";base64,QUJD\\n", b'"data"' + b"\\/" * 500]
)
def test_no_body_of_ten_megabytes_keeps_the_loop_busy(piece: bytes) -> None:
    whole = b'{"text":"' + piece * (10_000_000 // len(piece)) + b'"}'
    assert times_as_long(lambda: prompt_bytes(whole), lambda: whole.translate(ONE_FOR_ONE)) < 10
